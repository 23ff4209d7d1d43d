package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func TestBroadcastKeepsOrder(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, p := newTestApp(t, testConfig())
		server := serve(t, app, p)
		server.Client = client
		streams := []*apptest.Stream{server.Subscribe(t, "", "aiContent/*"), server.Subscribe(t, "", "aiContent/*")}
		const n = 300
		for i := range n {
			go func() {
				server.tryPost(generated(fmt.Sprint("order-", i), `{}`, ""), nil)
			}()
		}
		var orders [2][]string
		for i, s := range streams {
			for len(orders[i]) < n {
				select {
				case event := <-s.Events:
					var decoded struct{ Record struct{ Id string } }
					if err := json.Unmarshal([]byte(event), &decoded); err != nil {
						t.Fatal(err)
					}
					orders[i] = append(orders[i], decoded.Record.Id)
				case <-time.After(20 * time.Second):
					t.Fatalf("got %d of %d events", len(orders[i]), n)
				}
			}
		}
		var want []string
		if err := app.DB().NewQuery("SELECT id FROM aiContent ORDER BY rowid").Column(&want); err != nil {
			t.Fatal(err)
		}
		for i, order := range orders {
			if !slices.Equal(order, want) {
				t.Errorf("subscriber %d: order differs from the order of the commits", i)
			}
		}
	})
}

// hookTime is how long hooks behind a commit may take before others go first.
const hookTime = time.Second

// A hook after the commit that takes its time delays the broadcast of its own record
// only so long, and the order of the others not at all.
func TestBroadcastWaitsForHooks(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		for _, row := range []struct {
			name string
			hook func(e *core.RecordEvent) error // of the first record
			want []string
		}{
			{"a slow hook keeps the order", func(e *core.RecordEvent) error {
				time.Sleep(hookTime / 4)
				return e.Next()
			}, []string{"first", "second", "third"}},
			{"a hook that hangs lets the others pass", func(e *core.RecordEvent) error {
				time.Sleep(hookTime * 2)
				return e.Next()
			}, []string{"second", "third", "first"}},
			{"a hook that fails", func(e *core.RecordEvent) error { return errors.New("no") }, []string{"second", "third"}},
			{"a hook that panics", func(e *core.RecordEvent) error { panic("no") }, []string{"second", "third"}},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				app, p := newTestApp(t, testConfig())
				app.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
					if e.Record.GetString("title") == "first" {
						return row.hook(e)
					}
					return e.Next()
				})
				server := serve(t, app, p)
				server.Client = client
				s := server.Subscribe(t, "", "aiContent/*")
				for _, title := range []string{"first", "second", "third"} {
					server.mustPost(t, generated(title, `{"title":"`+title+`"}`, ""))
				}
				for i, want := range row.want {
					select {
					case event := <-s.Events:
						if !strings.Contains(event, `"title":"`+want+`"`) {
							t.Fatalf("event %d: got %s, want %s", i, event, want)
						}
					case <-time.After(20 * time.Second):
						t.Fatalf("event %d: none, want %s", i, want)
					}
				}
			})
		}
	})
}

// A viewer never gets a state of a record that the rule hid from it when PocketBase asked.
func TestBroadcastHidesWhatItsTransactionHid(t *testing.T) {
	t.Parallel()
	const owner = "owner0000000000"
	save := func(app core.App, id string, set map[string]any) error {
		record, err := app.FindRecordById(store.Content, id)
		if err != nil {
			content, err := app.FindCachedCollectionByNameOrId(store.Content)
			if err != nil {
				return err
			}
			record = core.NewRecord(content)
			record.Id = id
		}
		record.Load(set)
		return app.Save(record)
	}
	hideAgain := func(app core.App) {
		app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
			if err := e.Next(); err != nil || e.Record.GetString("title") != "secret" {
				return err
			}
			return save(e.App, e.Record.Id, map[string]any{"userId": owner})
		})
	}
	const id = "r00000000000000"
	for _, row := range []struct {
		name string
		bind func(app core.App)
		do   func(server *testServer) error
	}{
		{"a hook hides what the app creates", hideAgain, func(server *testServer) error {
			return save(server, id, map[string]any{"title": "secret"})
		}},
		{"a hook hides what a webhook brings", hideAgain, func(server *testServer) error {
			_, _, err := server.tryPost(generated("hidden", `{"title":"secret"}`, ""), nil)
			return err
		}},
		{"created public and hidden in one transaction", nil, func(server *testServer) error {
			return server.RunInTransaction(func(tx core.App) error {
				return errors.Join(save(tx, id, map[string]any{"title": "secret"}), save(tx, id, map[string]any{"userId": owner}))
			})
		}},
		{"created and deleted in one transaction", nil, func(server *testServer) error {
			return server.RunInTransaction(func(tx core.App) error {
				if err := save(tx, id, map[string]any{"title": "secret"}); err != nil {
					return err
				}
				record, err := tx.FindRecordById(store.Content, id)
				if err != nil {
					return err
				}
				return tx.Delete(record)
			})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
				app, p := newTestApp(t, testConfig())
				if row.bind != nil {
					row.bind(app)
				}
				server := serve(t, app, p)
				server.Client = client
				guest := server.Subscribe(t, "", "aiContent/*")
				if err := row.do(server); err != nil {
					t.Fatal(err)
				}
				server.mustPost(t, generated("end", `{"title":"the end"}`, ""))
				for event := ""; !strings.Contains(event, "the end"); {
					if event = <-guest.Events; strings.Contains(event, "secret") {
						t.Errorf("a guest got %s", event)
					}
				}
			})
		})
	}
}

// Subscribers with options, whom PocketBase serves one after the other, take nothing from
// the order of those without.
func TestBroadcastKeepsOrderBesideOptions(t *testing.T) {
	app, p := newTestApp(t, testConfig())
	server := serve(t, app, p)
	plain := server.Subscribe(t, "", `aiContent/*?options=%7B%22query%22%3A%7B%7D%7D`) // subscribe("*", fn, {})
	for range 100 {
		server.Subscribe(t, "", `aiContent/*?options={"query":{"fields":"id,title"}}`)
	}
	const n = 100
	var group sync.WaitGroup
	defer group.Wait()
	for i := range n {
		group.Go(func() {
			for status := 0; status != http.StatusOK; { // 503 while hooks, and PocketBase's broadcast, are behind
				var err error
				if status, _, err = server.tryPost(generated(fmt.Sprint("beside-", i), `{}`, ""), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var order []string
	for range n {
		select {
		case event := <-plain.Events:
			order = append(order, idOf(event))
		case <-time.After(5 * time.Minute):
			t.Fatalf("got %d of %d events", len(order), n)
		}
	}
	var want []string
	if err := app.DB().NewQuery("SELECT id FROM aiContent ORDER BY rowid").Column(&want); err != nil {
		t.Fatal(err)
	}
	back := 0
	for i := 1; i < n; i++ {
		if slices.Index(want, order[i]) < slices.Index(want, order[i-1]) {
			back++
		}
	}
	if back > 0 {
		t.Errorf("%d steps back of %d", back, n)
	}
}

package hooks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What one webhook's hook does is that webhook's alone: its neighbours in the batch are
// stored, it is refused, and its payload kept.
func TestBatchRefusesOne(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(hang) })
	insertFor := func(e *core.RecordEvent, ctx context.Context) error {
		_, err := e.App.NonconcurrentDB().NewQuery(`
			INSERT INTO modelriverCallbacks (id) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e10)
			SELECT 'x' || sum(i) FROM n`).WithContext(ctx).Execute()
		return err
	}

	for _, row := range []struct {
		name  string
		hook  func(e *core.RecordEvent) error
		twice bool // the hooks of neighbours may run again
	}{
		{"by an error", func(*core.RecordEvent) error { return errors.New("no") }, false},
		{"by an error behind the insert", func(e *core.RecordEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			return errors.New("no")
		}, false},
		{"by a panic", func(*core.RecordEvent) error { panic("no") }, false},
		{"by a deadline", func(*core.RecordEvent) error { return fmt.Errorf("enrich: %w", context.DeadlineExceeded) }, false},
		{"by a context that was cancelled", func(*core.RecordEvent) error { return fmt.Errorf("enrich: %w", context.Canceled) }, false},
		{"by an HTTP client's time-out", func(*core.RecordEvent) error {
			_, err := (&http.Client{Timeout: 50 * time.Millisecond}).Get(slow.URL)
			return err
		}, false},
		{"by a query that took too long", func(e *core.RecordEvent) error {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			return e.App.NonconcurrentDB().NewQuery("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e10) SELECT sum(i) FROM n").
				WithContext(ctx).Row(new(int))
		}, false},
		{"by an INSERT that took too long, which SQLite undoes with its transaction", func(e *core.RecordEvent) error {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			return insertFor(e, ctx)
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, testConfig())
			var ran, failed counts
			server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
				title := e.Record.GetString("title")
				ran.add(title)
				if title == "poison" {
					return row.hook(e)
				}
				return e.Next()
			})
			server.OnRecordAfterCreateError(store.Content).BindFunc(func(e *core.RecordErrorEvent) error {
				failed.add(e.Record.GetString("title"))
				return e.Next()
			})
			titles := []string{"first", "second", "poison", "third"}
			var payloads []string
			for _, title := range titles {
				payloads = append(payloads, generated(title, `{"title":"`+title+`"}`, ""))
			}
			for i, status := range server.postTogether(t, payloads...) {
				if status != 200 {
					t.Errorf("%s: got %d, want 200", titles[i], status)
				}
			}
			if got := len(records(t, server, store.Content)); got != 3 {
				t.Errorf("records: got %d, want 3", got)
			}
			callback := only(t, server, store.Callbacks)
			if callback.GetString("payload") != payloads[2] || !strings.HasPrefix(callback.GetString("lastError"), "refused: ") {
				t.Errorf("row of the refused one: got payload %q, error %q", callback.GetString("payload"), callback.GetString("lastError"))
			}
			for _, title := range []string{"first", "second", "third"} {
				if got := ran.get(title); got != 1 && !row.twice {
					t.Errorf("%s: OnRecordCreate ran %d times, want 1", title, got)
				}
				if got := failed.get(title); got != 0 && !row.twice {
					t.Errorf("%s: OnRecordAfterCreateError ran %d times, want 0", title, got)
				}
			}
			if row.twice {
				return
			}
			heard := 1
			if row.name == "by a panic" {
				heard = 0 // PocketBase calls no hook of it
			}
			if ran.get("poison") != 1 || failed.get("poison") != heard {
				t.Errorf("poison: OnRecordCreate ran %d times, OnRecordAfterCreateError %d times, want 1 and %d", ran.get("poison"), failed.get("poison"), heard)
			}
		})
	}
}

// Webhooks of one batch whose hooks pass, refuse or panic, before or behind the insert,
// and save other records on the way: every hook of what is stored runs once and ends
// well, every one of what is not hears of the error, and nothing is left of it.
func TestBatchRunsHooksOnce(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	notes := core.NewBaseCollection("notes")
	notes.Fields.Add(&core.TextField{Name: "text"})
	if err := server.Save(notes); err != nil {
		t.Fatal(err)
	}
	var ran, stored, failed, noted, unnoted, completed, undone counts
	refused := errors.New("not this one")
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		title, kind := e.Record.GetString("title"), e.Record.GetString("body")
		ran.add(title)
		e.App.TxInfo().OnComplete(func(err error) error {
			if err == nil {
				completed.add(title)
			} else {
				undone.add(title)
			}
			return nil
		})
		note := core.NewRecord(notes)
		note.Set("text", title)
		if err := e.App.Save(note); err != nil {
			return err
		}
		switch kind {
		case "refuse":
			return refused
		case "panic":
			panic("oops")
		}
		if err := e.Next(); err != nil {
			return err
		}
		switch kind {
		case "refuse late":
			return refused
		case "panic late":
			panic("oops")
		}
		return nil
	})
	server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
		stored.add(e.Record.GetString("title"))
		if e.Record.GetString("body") == "fails afterwards" {
			panic("after")
		}
		return e.Next()
	})
	server.OnRecordAfterCreateError(store.Content).BindFunc(func(e *core.RecordErrorEvent) error {
		failed.add(e.Record.GetString("title"))
		return e.Next()
	})
	server.OnModelAfterCreateSuccess("notes").BindFunc(func(e *core.ModelEvent) error {
		noted.add(e.Model.(*core.Record).GetString("text"))
		panic("a note's hook")
	})
	server.OnRecordAfterCreateError("notes").BindFunc(func(e *core.RecordErrorEvent) error {
		unnoted.add(e.Record.GetString("text"))
		return e.Next()
	})

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kinds := []string{"", "", "", "refuse", "panic", "refuse late", "panic late", "fails afterwards"}
	kindOf := map[string]string{}
	stream := server.Subscribe(t, "", "aiContent/*")
	var want []string // in the stream
	for round := range 12 {
		var payloads []string
		for i := range 1 + random.IntN(9) {
			title, kind := fmt.Sprintf("%d-%d", round, i), kinds[random.IntN(len(kinds))]
			kindOf[title] = kind
			payloads = append(payloads, generated(title, fmt.Sprintf(`{"title":%q,"body":%q}`, title, kind), ""))
			if kind == "" {
				want = append(want, title)
			}
		}
		for i, status := range server.postTogether(t, payloads...) {
			if status != 200 {
				t.Errorf("round %d, webhook %d: got %d", round, i, status)
			}
		}
	}
	// The last is not refused, and its hooks run after all others'.
	kindOf["last"], want = "", append(want, "last")
	server.mustPost(t, generated("last", `{"title":"last"}`, ""))
	eventually(t, "the last one's hooks have run", func() bool { return completed.get("last") == 1 && noted.get("last") == 1 })
	server.plugin.commits.Stop(20 * time.Second)

	var titles []string
	for len(titles) < len(want) {
		select {
		case event := <-stream.Events:
			_, title, _ := strings.Cut(event, `"title":"`)
			title, _, _ = strings.Cut(title, `"`)
			if kindOf[title] == "fails afterwards" {
				t.Errorf("%s: the stream has what a hook after create kept from it", title)
			}
			titles = append(titles, title)
		case <-time.After(time.Minute):
			t.Fatalf("stream: got %q, want %q", titles, want)
		}
	}
	if !slices.Equal(titles, want) {
		t.Errorf("stream: got %q, want %q", titles, want)
	}

	contents, texts := counts{}, counts{}
	for _, record := range records(t, server, store.Content) {
		contents.add(record.GetString("title"))
	}
	var rows []*core.Record
	if err := server.RecordQuery("notes").All(&rows); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		texts.add(row.GetString("text"))
	}
	for title, kind := range kindOf {
		good, bad := 1, 0
		if strings.HasPrefix(kind, "refuse") || strings.HasPrefix(kind, "panic") {
			good, bad = 0, 1
		}
		for _, row := range []struct {
			name string
			got  *counts
			want int
		}{
			{"OnRecordCreate", &ran, 1},
			{"records", &contents, good},
			{"notes of the hook", &texts, good},
			{"OnRecordAfterCreateSuccess", &stored, good},
			{"OnModelAfterCreateSuccess of the note", &noted, good},
			{"OnRecordAfterCreateError of the note", &unnoted, bad},
			{"OnComplete without error", &completed, good},
			{"OnComplete with an error", &undone, bad},
		} {
			if got := row.got.get(title); got != row.want {
				t.Errorf("%s, which does %q: %s: got %d, want %d", title, kind, row.name, got, row.want)
			}
		}
		if got := failed.get(title); got != bad && !strings.HasPrefix(kind, "panic") { // which is above PocketBase's own
			t.Errorf("%s, which does %q: OnRecordAfterCreateError: got %d, want %d", title, kind, got, bad)
		}
	}
}

// Where no hook of the app sees it, a batch with a refusal is run again instead.
func TestBatchWithoutHooks(t *testing.T) {
	t.Parallel()
	app := pocketbase.NewWithConfig(pocketbase.Config{DefaultDataDir: t.TempDir(), HideStartBanner: true})
	if err := app.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		event := &core.TerminateEvent{App: app} // which ends the log's writer
		if err := app.OnTerminate().Trigger(event, func(*core.TerminateEvent) error { return app.ResetBootstrapState() }); err != nil {
			t.Error(err)
		}
	})
	p, err := newPlugin(app, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	p.bind()
	if _, err := apis.NewRouter(app); err != nil {
		t.Fatal(err)
	}
	if got, want := commit.SaveHooks(app), p.commits.OwnHooks(); got != want {
		t.Errorf("an app without hooks of its own: got %d hooks around a save, want %d", got, want)
	}
	if err := app.RunAllMigrations(); err != nil {
		t.Fatal(err)
	}
	collection, err := app.FindCollectionByNameOrId(store.Content)
	if err != nil {
		t.Fatal(err)
	}
	collection.Fields.GetByName("category").(*core.TextField).Pattern = "^[a-z]+$"
	if err := app.Save(collection); err != nil {
		t.Fatal(err)
	}

	release := hold(p.commits)
	var group sync.WaitGroup
	for i, category := range []string{"good", "BAD", "fine", "BAD"} {
		payload := fmt.Sprintf(`{"type":"task.completed","channel_id":"c%d","data":{},"customer_data":{"category":%q}}`, i, category)
		event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			if err := p.ingest(event, []byte(payload), nil); err != nil {
				t.Error(err)
			}
		})
	}
	awaitWebhooks(t, p.commits, 4)
	release()
	group.Wait()
	contents, callbacks := records(t, app, store.Content), records(t, app, store.Callbacks)
	if len(contents) != 2 || len(callbacks) != 2 || callbacks[0].GetString("payload") == "" {
		t.Errorf("got %d records and %d refused events, want 2 and 2", len(contents), len(callbacks))
	}

	app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error { return e.Next() })
	if got, own := commit.SaveHooks(app), p.commits.OwnHooks(); got != own+1 {
		t.Errorf("an app with a hook of its own: got %d, want %d", got, own+1)
	}
}

// A hook whose own database is busy takes nothing from the webhooks and outcomes beside its own.
func TestBatchBesideABusyHook(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "Busy" {
			return busyError{}
		}
		return e.Next()
	})
	statuses := server.postTogether(t, generated("a", `{}`, ""), generated("b", `{"title":"Busy"}`, ""), generated("c", `{}`, ""))
	if want := []int{200, 503, 200}; !slices.Equal(statuses, want) {
		t.Errorf("got %v, want %v", statuses, want)
	}
}

// A busyError is that of SQLite's driver.
type busyError struct{}

func (busyError) Error() string { return "database is locked" }
func (busyError) Code() int     { return 5 }

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
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// postTogether posts payloads so that they are of one batch, in this order.
func (s *testServer) postTogether(t testing.TB, payloads ...string) (statuses []int) {
	t.Helper()
	s.awaitOutbox(t)
	release := hold(s.plugin.commits)
	statuses = make([]int, len(payloads))
	var group sync.WaitGroup
	for i, payload := range payloads {
		group.Go(func() {
			var err error
			if statuses[i], _, err = s.tryPost(payload, nil); err != nil {
				t.Error(err)
			}
		})
		awaitWebhooks(t, s.plugin.commits, i+1)
	}
	release()
	group.Wait()
	return statuses
}

// hold keeps the committer from writing until it is called.
func hold(c *commit.Committer) (release func()) {
	began, held := make(chan struct{}), make(chan struct{})
	c.Add(&commit.Write{Run: func(core.App) error {
		close(began)
		<-held
		return nil
	}, Done: func(error) {}})
	<-began
	return func() { close(held) }
}

func awaitWebhooks(t testing.TB, c *commit.Committer, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d webhooks wait", n), func() bool {
		waiting := 0
		for _, w := range c.Waiting() {
			if w.Instead != nil { // not one of the outbox
				waiting++
			}
		}
		return waiting >= n
	})
}

func (s *testServer) awaitOutbox(t testing.TB) {
	t.Helper()
	eventually(t, "the outbox runs", func() bool {
		return s.plugin.outbox.Running()
	})
}

// counts counts by name.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[name]++
}

func (c *counts) get(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[name]
}

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
			if err := p.ingest(event, []byte(payload)); err != nil {
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

// A record that exists is never called refused, whoever stored it.
func TestRefusalOfWhatIsStored(t *testing.T) {
	t.Parallel()
	t.Run("by another delivery in the batch", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		var calls atomic.Int32
		server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
			if calls.Add(1) == 1 {
				return errors.New("the other service is down")
			}
			return e.Next()
		})
		payload := generated("same", `{"title":"flaky"}`, rec.callbackURL("same"))
		for _, status := range server.postTogether(t, payload, payload, payload) {
			if status != 200 {
				t.Errorf("got %d, want 200", status)
			}
		}
		awaitHealed(t, server, rec)
		for _, received := range rec.all() {
			if strings.Contains(received.body, "processing_failed") {
				t.Errorf("callback: got %s", received.body)
			}
		}
	})
	t.Run("by another process while the hook ran", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		payload := generated("same", `{"title":"flaky"}`, rec.callbackURL("same"))
		event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) (err error) {
			refuse := false
			once.Do(func() { refuse = true })
			if !refuse {
				return e.Next()
			}
			e.App.TxInfo().OnComplete(func(error) error {
				cb := &store.Callback{Id: recordId(event, []byte(payload)), URL: event.CallbackURL, Host: "127.0.0.1", Expires: store.DateTime(time.Now().Add(time.Minute))}
				return server.RunInTransaction(func(tx core.App) error {
					_, err := server.plugin.store(tx, event, cb, time.Now())
					return err
				})
			})
			return errors.New("the other service is down")
		})
		server.mustPost(t, payload)
		awaitHealed(t, server, rec)
		for _, received := range rec.all() {
			if strings.Contains(received.body, "processing_failed") {
				t.Errorf("callback: got %s", received.body)
			}
		}
	})

	// What an older version left: its row says refused, and the record is there.
	errorBody := string(modelriver.ErrorCallbackBody("refused: no"))
	for name, row := range map[string]struct {
		left  dbx.Params
		again func(t *testing.T, server *testServer, payload string, header http.Header)
	}{
		"failed, by another webhook": {dbx.Params{"state": store.Failed, "body": errorBody}, func(t *testing.T, server *testServer, payload string, _ http.Header) {
			server.mustPost(t, payload)
		}},
		"failed, by setting the row pending":    {dbx.Params{"state": store.Failed, "body": errorBody}, setPending},
		"pending, its error callback not sent":  {dbx.Params{"state": store.Pending, "body": errorBody, "nextAttempt": store.DateTime(time.Now())}, nil},
		"pending, ingested again and for ever":  {dbx.Params{"state": store.Pending, "body": "", "nextAttempt": store.DateTime(time.Now())}, nil},
		"pending, by another webhook meanwhile": {dbx.Params{"state": store.Pending, "body": errorBody, "nextAttempt": store.DateTime(time.Now().Add(time.Minute)), "attempts": 2}, func(t *testing.T, server *testServer, payload string, _ http.Header) { server.mustPost(t, payload) }},
	} {
		for _, owed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, a callback is owed: %t", name, owed), func(t *testing.T) {
				t.Parallel()
				rec := newReceiver(t, nil)
				server := newTestServer(t, testConfig())
				url := ""
				if owed {
					url = rec.callbackURL("left")
				}
				payload := generated("left", `{"title":"left","n":1.0}`, url)
				server.mustPost(t, payload)
				id := only(t, server, store.Content).Id
				if owed {
					awaitState(t, server, store.Delivered)
				} else {
					insertTestCallback(t, server, server.plugin, id, "")
				}
				before := len(rec.all())
				left := dbx.Params{"record": "", "payload": payload, "lastError": "refused: no", "deliveredAt": "", "attempts": 1, "lastStatus": 200}
				for field, value := range row.left {
					left[field] = value
				}
				setCallback(t, server, id, left)
				if row.again != nil {
					row.again(t, server, payload, nil)
				} else {
					server.plugin.outbox.Wake()
				}
				if !owed {
					eventually(t, "no row is left", func() bool { return len(records(t, server, store.Callbacks)) == 0 })
					return
				}
				awaitHealed(t, server, rec)
				received := rec.all()[before:]
				if len(received) != 1 || !strings.HasPrefix(received[0].body, `{"data":{"title":"left","n":1.0,"id":"`+id+`"`) {
					t.Errorf("callbacks: got %v, want one with the content", received)
				}
			})
		}
	}
}

func awaitHealed(t *testing.T, server *testServer, rec *receiver) {
	t.Helper()
	row := awaitState(t, server, store.Delivered)
	record := only(t, server, store.Content)
	if row.GetString("record") != record.Id || row.GetString("payload") != "" || row.GetString("lastError") != "" {
		t.Errorf("row: got record %q, payload %q, error %q", row.GetString("record"), row.GetString("payload"), row.GetString("lastError"))
	}
}

// Hooks after create that are slower than the webhooks hold these up: they do not pile
// up. One that hangs, or waits for a webhook in its turn, ends nothing.
func TestHooksAfterCommitAreBounded(t *testing.T) {
	t.Parallel()
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.awaitOutbox(t)
		release := make(chan struct{})
		var running, most atomic.Int32
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			return e.Next()
		})
		for i := range commit.MaxOpen { // answered while all hooks before still run
			server.mustPost(t, generated(fmt.Sprint(i), `{}`, ""))
		}
		eventually(t, "their hooks run", func() bool { return running.Load() == commit.MaxOpen })
		var group sync.WaitGroup
		const more = 8
		for i := range more {
			group.Go(func() {
				if status, body, err := server.tryPost(generated(fmt.Sprint("more", i), `{}`, ""), nil); err != nil || status != 200 {
					t.Errorf("got %d %s %v", status, body, err)
				}
			})
		}
		awaitWebhooks(t, server.plugin.commits, more)
		if got := len(records(t, server, store.Content)); got != commit.MaxOpen {
			t.Errorf("records: got %d, want %d", got, commit.MaxOpen)
		}
		close(release)
		group.Wait()
		server.plugin.commits.Stop(20 * time.Second)
		if got := most.Load(); got > commit.MaxOpen {
			t.Errorf("hooks at the same time: got %d, want at most %d", got, commit.MaxOpen)
		}
		if got := len(records(t, server, store.Content)); got != commit.MaxOpen+more {
			t.Errorf("records: got %d, want %d", got, commit.MaxOpen+more)
		}
	})
	t.Run("each waits for another webhook", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.awaitOutbox(t)
		var all sync.WaitGroup
		all.Add(commit.MaxOpen)
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			if title := e.Record.GetString("title"); !strings.HasPrefix(title, "inner") {
				all.Done()
				all.Wait()
				server.tryPost(generated("inner "+title, `{"title":"inner"}`, ""), nil)
			}
			return e.Next()
		})
		for i := range commit.MaxOpen {
			server.mustPost(t, generated(fmt.Sprint(i), fmt.Sprintf(`{"title":"%d"}`, i), ""))
		}
		eventually(t, "the committer waits for the hooks", func() bool {
			return len(server.plugin.commits.Waiting()) > 0
		})
		for deadline := time.Now().Add(3 * commit.MaxWait); ; {
			status, _, err := server.tryPost(generated("later", `{}`, ""), nil)
			if err == nil && status == 200 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a later webhook: got %d, %v", status, err)
			}
		}
	})
}

func TestCommitterEnds(t *testing.T) {
	t.Parallel()
	terminate := func(server *testServer) {
		event := &core.TerminateEvent{App: server.TestApp}
		if err := server.OnTerminate().Trigger(event, func(*core.TerminateEvent) error { return nil }); err != nil {
			t.Error(err)
		}
	}
	t.Run("with the hooks that run", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		began, release := make(chan struct{}), make(chan struct{})
		var ended atomic.Bool
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			close(began)
			<-release
			time.Sleep(50 * time.Millisecond) // its work
			ended.Store(true)
			return e.Next()
		})
		server.mustPost(t, generated("ending", `{}`, ""))
		<-began
		close(release)
		terminate(server)
		if !ended.Load() {
			t.Error("a hook after create still runs behind OnTerminate")
		}
		if err := server.plugin.commits.Do(func(core.App) error { return nil }); err != nil {
			t.Errorf("a write afterwards: %v", err)
		}
	})
	t.Run("without one that hangs", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		began, release := make(chan struct{}), make(chan struct{})
		t.Cleanup(func() { close(release) })
		server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
			close(began)
			<-release
			return e.Next()
		})
		server.mustPost(t, generated("hanging", `{}`, ""))
		<-began
		started := time.Now()
		terminate(server)
		if took := time.Since(started); took > time.Minute {
			t.Errorf("OnTerminate took %s", took)
		}
	})
}

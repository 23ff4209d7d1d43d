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

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// hold keeps the committer from writing until it is called.
func (c *committer) hold() (release func()) {
	began, held := make(chan struct{}), make(chan struct{})
	c.add(&write{run: func(core.App) error {
		close(began)
		<-held
		return nil
	}, done: func(error) {}})
	<-began
	return func() { close(held) }
}

func (c *committer) awaitWebhooks(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d webhooks wait", n), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		waiting := 0
		for _, w := range c.waiting {
			if w.instead != nil { // not one of the outbox
				waiting++
			}
		}
		return waiting >= n
	})
}

// postTogether posts payloads so that they are of one batch, in this order.
func (s *testServer) postTogether(t testing.TB, payloads ...string) (statuses []int) {
	t.Helper()
	s.awaitOutbox(t)
	release := s.plugin.commits.hold()
	statuses = make([]int, len(payloads))
	var group sync.WaitGroup
	for i, payload := range payloads {
		group.Go(func() {
			var err error
			if statuses[i], _, err = s.tryPost(payload, nil); err != nil {
				t.Error(err)
			}
		})
		s.plugin.commits.awaitWebhooks(t, i+1)
	}
	release()
	group.Wait()
	return statuses
}

func (s *testServer) awaitOutbox(t testing.TB) {
	t.Helper()
	eventually(t, "the outbox runs", func() bool {
		s.plugin.outbox.mu.Lock()
		defer s.plugin.outbox.mu.Unlock()
		return s.plugin.outbox.running
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
			server.OnRecordCreate(contentCollection).BindFunc(func(e *core.RecordEvent) error {
				title := e.Record.GetString("title")
				ran.add(title)
				if title == "poison" {
					return row.hook(e)
				}
				return e.Next()
			})
			server.OnRecordAfterCreateError(contentCollection).BindFunc(func(e *core.RecordErrorEvent) error {
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
			if got := len(records(t, server, contentCollection)); got != 3 {
				t.Errorf("records: got %d, want 3", got)
			}
			callback := only(t, server, callbackCollection)
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
	server.OnRecordCreate(contentCollection).BindFunc(func(e *core.RecordEvent) error {
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
	server.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
		stored.add(e.Record.GetString("title"))
		if e.Record.GetString("body") == "fails afterwards" {
			panic("after")
		}
		return e.Next()
	})
	server.OnRecordAfterCreateError(contentCollection).BindFunc(func(e *core.RecordErrorEvent) error {
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
	server.plugin.commits.stop(20 * time.Second)

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
	for _, record := range records(t, server, contentCollection) {
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
	if p.commits.hooked() {
		t.Errorf("an app without hooks of its own: got %d hooks around a save, want %d", saveHooks(app), p.commits.plain())
	}
	if err := app.RunAllMigrations(); err != nil {
		t.Fatal(err)
	}
	collection, err := app.FindCollectionByNameOrId(contentCollection)
	if err != nil {
		t.Fatal(err)
	}
	collection.Fields.GetByName("category").(*core.TextField).Pattern = "^[a-z]+$"
	if err := app.Save(collection); err != nil {
		t.Fatal(err)
	}

	release := p.commits.hold()
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
	p.commits.awaitWebhooks(t, 4)
	release()
	group.Wait()
	contents, callbacks := records(t, app, contentCollection), records(t, app, callbackCollection)
	if len(contents) != 2 || len(callbacks) != 2 || callbacks[0].GetString("payload") == "" {
		t.Errorf("got %d records and %d refused events, want 2 and 2", len(contents), len(callbacks))
	}

	app.OnRecordCreate(contentCollection).BindFunc(func(e *core.RecordEvent) error { return e.Next() })
	if !p.commits.hooked() {
		t.Error("an app with a hook of its own: got none")
	}
}

// PocketBase's list of functions after a transaction is where we expect it.
func TestAfterFuncs(t *testing.T) {
	t.Parallel()
	app, _ := newTestApp(t, testConfig())
	bad := errors.New("bad")
	var got []error
	err := app.RunInTransaction(func(tx core.App) error {
		note := func(err error) error { got = append(got, err); return nil }
		after := afterFuncsOf(tx.TxInfo())
		if after == nil {
			t.Fatal("this PocketBase keeps the functions after a transaction elsewhere: see core/db_tx.go")
		}
		tx.TxInfo().OnComplete(note)
		mark := after.len()
		tx.TxInfo().OnComplete(note)
		tx.TxInfo().OnComplete(func(error) error { panic("oops") })
		after.end(mark, bad)
		mark = after.len()
		tx.TxInfo().OnComplete(note)
		after.end(mark, nil)
		return nil
	})
	if len(got) != 3 || got[0] != nil || !errors.Is(got[1], bad) || got[2] != nil {
		t.Errorf("outcomes: got %v, want none, bad, none", got)
	}
	if err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("error: got %v, want the panic", err)
	}
	if afterFuncsOf(&core.TxAppInfo{}).len() != 0 {
		t.Error("a new transaction has functions")
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
		server.OnRecordCreate(contentCollection).BindFunc(func(e *core.RecordEvent) error {
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
		server.OnRecordCreate(contentCollection).BindFunc(func(e *core.RecordEvent) (err error) {
			refuse := false
			once.Do(func() { refuse = true })
			if !refuse {
				return e.Next()
			}
			e.App.TxInfo().OnComplete(func(error) error {
				cb := &callback{Id: recordId(event, []byte(payload)), URL: event.CallbackURL, Host: "127.0.0.1", Expires: dateTime(time.Now().Add(time.Minute))}
				return server.RunInTransaction(func(tx core.App) error {
					_, err := server.plugin.store(tx, event, cb, time.Now(), time.Now())
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
		"failed, by another webhook": {dbx.Params{"state": stateFailed, "body": errorBody}, func(t *testing.T, server *testServer, payload string, _ http.Header) {
			server.mustPost(t, payload)
		}},
		"failed, by setting the row pending":    {dbx.Params{"state": stateFailed, "body": errorBody}, setPending},
		"pending, its error callback not sent":  {dbx.Params{"state": statePending, "body": errorBody, "nextAttempt": dateTime(time.Now())}, nil},
		"pending, ingested again and for ever":  {dbx.Params{"state": statePending, "body": "", "nextAttempt": dateTime(time.Now())}, nil},
		"pending, by another webhook meanwhile": {dbx.Params{"state": statePending, "body": errorBody, "nextAttempt": dateTime(time.Now().Add(time.Minute)), "attempts": 2}, func(t *testing.T, server *testServer, payload string, _ http.Header) { server.mustPost(t, payload) }},
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
				id := only(t, server, contentCollection).Id
				if owed {
					awaitState(t, server, stateDelivered)
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
					eventually(t, "no row is left", func() bool { return len(records(t, server, callbackCollection)) == 0 })
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
	row := awaitState(t, server, stateDelivered)
	record := only(t, server, contentCollection)
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
		server.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			return e.Next()
		})
		for i := range maxOpen { // answered while all hooks before still run
			server.mustPost(t, generated(fmt.Sprint(i), `{}`, ""))
		}
		eventually(t, "their hooks run", func() bool { return running.Load() == maxOpen })
		var group sync.WaitGroup
		const more = 8
		for i := range more {
			group.Go(func() {
				if status, body, err := server.tryPost(generated(fmt.Sprint("more", i), `{}`, ""), nil); err != nil || status != 200 {
					t.Errorf("got %d %s %v", status, body, err)
				}
			})
		}
		server.plugin.commits.awaitWebhooks(t, more)
		if got := len(records(t, server, contentCollection)); got != maxOpen {
			t.Errorf("records: got %d, want %d", got, maxOpen)
		}
		close(release)
		group.Wait()
		server.plugin.commits.stop(20 * time.Second)
		if got := most.Load(); got > maxOpen {
			t.Errorf("hooks at the same time: got %d, want at most %d", got, maxOpen)
		}
		if got := len(records(t, server, contentCollection)); got != maxOpen+more {
			t.Errorf("records: got %d, want %d", got, maxOpen+more)
		}
	})
	t.Run("each waits for another webhook", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.awaitOutbox(t)
		var all sync.WaitGroup
		all.Add(maxOpen)
		server.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
			if title := e.Record.GetString("title"); !strings.HasPrefix(title, "inner") {
				all.Done()
				all.Wait()
				server.tryPost(generated("inner "+title, `{"title":"inner"}`, ""), nil)
			}
			return e.Next()
		})
		for i := range maxOpen {
			server.mustPost(t, generated(fmt.Sprint(i), fmt.Sprintf(`{"title":"%d"}`, i), ""))
		}
		eventually(t, "the committer waits for the hooks", func() bool {
			server.plugin.commits.mu.Lock()
			defer server.plugin.commits.mu.Unlock()
			return len(server.plugin.commits.waiting) > 0
		})
		for deadline := time.Now().Add(3 * maxCommitWait); ; {
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
		server.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
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
		if err := server.plugin.commits.do(func(core.App) error { return nil }); err != nil {
			t.Errorf("a write afterwards: %v", err)
		}
	})
	t.Run("without one that hangs", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		began, release := make(chan struct{}), make(chan struct{})
		t.Cleanup(func() { close(release) })
		server.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
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

// A panic where a write ends is nobody else's.
func TestCommitterSurvivesPanics(t *testing.T) {
	t.Parallel()
	_, p := newTestApp(t, testConfig())
	c := p.commits
	run := func(core.App) error { return nil }
	settled := make(chan struct{}, 100)
	c.committed = func([]*core.Record) { panic("committed") }
	c.settled = func([]*core.Record) {
		settled <- struct{}{}
		panic("settled")
	}
	release := c.hold()
	results := make(chan error, 10)
	for _, w := range []*write{
		{run: run, done: func(error) { panic("done") }},
		{run: func(core.App) error { return errors.New("refused") }, done: func(error) { panic("done of a failed one") }},
		{run: func(tx core.App) error {
			tx.TxInfo().OnComplete(func(error) error { panic("OnComplete") })
			return nil
		}, done: func(error) {}},
		{run: run, done: func(err error) { results <- err }},
	} {
		c.add(w)
	}
	release()
	if err := <-results; err != nil {
		t.Errorf("the last one: %v", err)
	}
	<-settled
	for name, w := range map[string]*write{
		"done alone":         {run: run, done: func(error) { panic("done") }},
		"done of a failure":  {run: func(core.App) error { return errors.New("refused") }, done: func(error) { panic("done") }},
		"OnComplete alone":   {run: func(tx core.App) error { tx.TxInfo().OnComplete(func(error) error { panic("OnComplete") }); return nil }, done: func(error) {}},
		"instead":            {run: func(core.App) error { return errors.New("refused") }, instead: func(core.App, error) error { panic("instead") }, done: func(error) {}},
		"what waits in vain": {run: run, done: func(error) { panic("done") }},
	} {
		c.add(w)
		if err := c.do(run); err != nil {
			t.Errorf("after a panic in %s: %v", name, err)
		}
	}
}

func TestBatchIsBounded(t *testing.T) {
	t.Parallel()
	batches := func(t *testing.T, p *plugin, n, size int, run func()) map[*core.TxAppInfo]int {
		t.Helper()
		var mu sync.Mutex
		var order []int
		of := map[*core.TxAppInfo]int{}
		release := p.commits.hold()
		var group sync.WaitGroup
		for i := range n {
			group.Add(1)
			p.commits.add(&write{size: size, run: func(tx core.App) error {
				run()
				mu.Lock()
				defer mu.Unlock()
				of[tx.TxInfo()]++
				return nil
			}, done: func(err error) {
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				group.Done()
			}})
		}
		release()
		group.Wait()
		if !slices.IsSorted(order) || len(order) != n {
			t.Errorf("order of the answers: got %v", order)
		}
		return of
	}
	for _, row := range []struct {
		name    string
		n, size int
		run     func()
		most    int
	}{
		{"by count", maxBatch + 10, 0, func() {}, maxBatch},
		{"by bytes", 10, maxBatchSize/3 + 1, func() {}, 2},
		{"by bytes of each one", 3, 2 * maxBatchSize, func() {}, 1},
		{"by the time of hooks", 5, 0, func() { time.Sleep(maxBatchTime * 2 / 3) }, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, p := newTestApp(t, testConfig())
			for _, got := range batches(t, p, row.n, row.size, row.run) {
				if got > row.most {
					t.Errorf("writes of a batch: got %d, want at most %d", got, row.most)
				}
			}
		})
	}
}

// A codedError is a driver's error, with its code.
type codedError int

func (e codedError) Error() string { return fmt.Sprintf("SQL error (%d)", int(e)) }
func (e codedError) Code() int     { return int(e) }

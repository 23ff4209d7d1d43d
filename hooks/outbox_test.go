package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Thousands whose window ended while their host hung are not waited for one by one.
func TestOutboxGivesUpOnASilentHost(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	rec := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-hang })
	config := testConfig()
	config.CallbackTimeout = 300 * time.Millisecond
	app, p := newTestApp(t, config)
	t.Cleanup(func() { close(hang) })
	const n = 2 * outbox.MaxHeld
	for i := range n {
		id := fmt.Sprintf("silent%09d", i)
		insertTestCallback(t, app, p, id, rec.callbackURL("silent"))
		setCallback(t, app, id, dbx.Params{"expires": store.DateTime(time.Now().Add(-time.Minute))})
	}
	p.outbox.Start()
	defer p.outbox.Stop()
	eventually(t, "all have failed", func() bool {
		failed, err := app.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Failed})
		return err == nil && failed == n
	})
	if got := len(rec.all()); got > 4*outbox.MaxSending {
		t.Errorf("callbacks to the silent host: got %d, want about %d", got, outbox.MaxSending)
	}
}

// Crash points around one attempt: what the row says is what the next process does.
func TestOutboxResumes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		left dbx.Params // on the row when the process died; a duration is a time from now
		sent bool       // at once
	}{
		{"after the commit, before the first attempt", dbx.Params{"attempts": 1, "nextAttempt": 4 * time.Minute}, true},
		{"unclaimed", dbx.Params{"attempts": 0, "nextAttempt": time.Duration(0)}, true},
		{"between attempts, due", dbx.Params{"attempts": 2, "lastStatus": 503, "lastError": "x", "nextAttempt": -time.Second}, true},
		{"between attempts, not due", dbx.Params{"attempts": 2, "lastStatus": 503, "lastError": "x", "nextAttempt": 4 * time.Minute}, false},
		{"the window ended while it was down", dbx.Params{"attempts": 1, "expires": -time.Hour, "nextAttempt": -time.Hour}, true},
		{"the clock was set back by an hour", dbx.Params{"attempts": 3, "lastStatus": 503, "lastError": "x", "expires": time.Hour, "nextAttempt": time.Hour}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			app, p := newTestApp(t, testConfig())
			insertTestCallback(t, app, p, "resumes00000000", rec.callbackURL("resumes"))
			left := dbx.Params{}
			for field, value := range row.left {
				if fromNow, ok := value.(time.Duration); ok {
					value = store.DateTime(time.Now().Add(fromNow))
				}
				left[field] = value
			}
			setCallback(t, app, "resumes00000000", left)
			p.outbox.Start()
			defer p.outbox.Stop()
			if row.sent {
				awaitState(t, app, store.Delivered)
				return
			}
			if _, err := p.outbox.RunOnce(); err != nil {
				t.Fatal(err)
			}
			if got := only(t, app, store.Callbacks); got.GetInt("attempts") != 2 || len(rec.all()) != 0 {
				t.Errorf("got %d attempts and %d callbacks, want 2 and none", got.GetInt("attempts"), len(rec.all()))
			}
		})
	}
}

// A host that hangs takes its own senders only.
func TestOutboxSlowHostDelaysNobody(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	slow := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-hang })
	fast := newReceiver(t, nil)
	config := testConfig()
	config.CallbackTimeout = time.Hour
	server := newTestServer(t, config)
	t.Cleanup(func() { close(hang) }) // before the server waits for it
	const n = 2*outbox.MaxHeld + 50
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < n; i += 8 {
				channel := fmt.Sprintf("slow-%d", i)
				if status, body, err := server.tryPost(generated(channel, `{}`, slow.callbackURL(channel)), nil); err != nil || status != 200 {
					t.Errorf("%s: %d %s %v", channel, status, body, err)
				}
			}
		})
	}
	group.Wait()
	server.mustPost(t, generated("fast", `{}`, fast.callbackURL("fast")))
	fast.await(t, 1)
	if got := len(slow.all()); got > outbox.MaxSending {
		t.Errorf("the slow host has %d callbacks at the same time, want at most %d", got, outbox.MaxSending)
	}
	if held := server.plugin.outbox.Held(); held > outbox.MaxHeld+1 {
		t.Errorf("callbacks in memory: got %d, want at most %d", held, outbox.MaxHeld+1)
	}
}

// More callbacks than fit in memory are all sent, each once.
func TestOutboxOverflowsIntoTheTable(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	rec := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	config := testConfig()
	config.CallbackTimeout = time.Hour // none is sent again while they wait for the release
	server := newTestServer(t, config)
	const n = 3 * outbox.MaxHeld
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < n; i += 8 {
				channel := fmt.Sprintf("overflow-%d", i)
				if status, body, err := server.tryPost(generated(channel, `{}`, rec.callbackURL(channel)), nil); err != nil || status != 200 {
					t.Errorf("%s: %d %s %v", channel, status, body, err)
				}
			}
		})
	}
	group.Wait()
	close(release)
	eventually(t, "all callbacks are delivered", func() bool {
		delivered, err := server.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Delivered})
		return err == nil && delivered == n
	})
	if got := len(rec.all()); got != n {
		t.Errorf("callbacks: got %d, want %d", got, n)
	}
}

func TestOutboxStartAndStop(t *testing.T) {
	t.Parallel()
	t.Run("stop without start, twice each", func(t *testing.T) {
		t.Parallel()
		_, p := newTestApp(t, testConfig())
		p.outbox.Stop()
		p.outbox.Start()
		p.outbox.Start()
		p.outbox.Stop()
		p.outbox.Stop()
	})
	t.Run("a callback that is being sent comes to its end", func(t *testing.T) {
		t.Parallel()
		arrived := make(chan struct{})
		server := newTestServer(t, testConfig())
		rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			eventually(t, "the outbox stops", func() bool {
				return !server.plugin.outbox.Running()
			})
		})
		server.mustPost(t, generated("ending", `{}`, rec.callbackURL("ending")))
		<-arrived
		server.plugin.outbox.Stop()
		if got := only(t, server, store.Callbacks).GetString("state"); got != store.Delivered {
			t.Errorf("state: got %s, want delivered", got)
		}
	})
	t.Run("a callback that hangs is cut off and sent by the next start", func(t *testing.T) {
		t.Parallel()
		hang, arrived := make(chan struct{}), make(chan struct{}, 10)
		rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			arrived <- struct{}{}
			<-hang
		})
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("hanging", `{}`, rec.callbackURL("hanging")))
		<-arrived
		started := time.Now()
		server.plugin.outbox.Stop()
		if took := time.Since(started); took > 25*time.Second { // the callback would take 30
			t.Errorf("Stop took %s", took)
		}
		row := only(t, server, store.Callbacks)
		if row.GetString("state") != store.Pending {
			t.Fatalf("state: got %s, want pending", row.GetString("state"))
		}
		close(hang)
		server.plugin.outbox.Start()
		awaitState(t, server, store.Delivered)
	})
	t.Run("webhooks are taken while it is stopped, callbacks sent later", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		server.plugin.outbox.Stop()
		server.mustPost(t, generated("stopped", `{}`, rec.callbackURL("stopped")))
		if got := only(t, server, store.Callbacks); got.GetString("state") != store.Pending || got.GetInt("attempts") != 0 {
			t.Errorf("row: got %s, %d attempts", got.GetString("state"), got.GetInt("attempts"))
		}
		server.plugin.outbox.Start()
		awaitState(t, server, store.Delivered)
	})
}

// An accepted callback whose outcome could not be written is sent again: at least once.
func TestOutboxSendsAgainWhatItCouldNotWrite(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	app, p := newTestApp(t, testConfig())
	insertTestCallback(t, app, p, "unwritten000000", rec.callbackURL("unwritten"))
	claimed := false
	rec.setAnswer(func(http.ResponseWriter, *http.Request) {
		if !claimed {
			claimed = true
			// The disk fills up between the answer and the write.
			if _, err := app.NonconcurrentDB().NewQuery("PRAGMA query_only = 1").Execute(); err != nil {
				t.Error(err)
			}
		}
	})
	p.outbox.Start()
	rec.await(t, 1)
	p.outbox.Stop()
	if _, err := app.NonconcurrentDB().NewQuery("PRAGMA query_only = 0").Execute(); err != nil {
		t.Fatal(err)
	}
	if got := only(t, app, store.Callbacks).GetString("state"); got != store.Pending {
		t.Fatalf("state: got %s, want pending", got)
	}
	p.outbox.Start()
	defer p.outbox.Stop()
	awaitState(t, app, store.Delivered)
	if got := len(rec.all()); got != 2 {
		t.Errorf("callbacks: got %d, want 2", got)
	}
}

func TestOutboxDeletesDelivered(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	old, recent := store.DateTime(time.Now().Add(-46*24*time.Hour)), store.DateTime(time.Now().Add(-44*24*time.Hour))
	for id, set := range map[string]dbx.Params{
		"delivered000old": {"state": store.Delivered, "deliveredAt": old},
		"delivered000new": {"state": store.Delivered, "deliveredAt": recent},
		"failed000000old": {"state": store.Failed, "deliveredAt": old},
		"pending00000old": {"deliveredAt": ""},
	} {
		insertTestCallback(t, app, p, id, "https://api.modelriver.com/v1/callback/x")
		setCallback(t, app, id, set)
	}
	deleteOld(app)
	var left []string
	for _, row := range records(t, app, store.Callbacks) {
		left = append(left, row.Id)
	}
	if got, want := len(left), 3; got != want || strings.Contains(strings.Join(left, " "), "delivered000old") {
		t.Errorf("left: got %v, want all but delivered000old", left)
	}
}

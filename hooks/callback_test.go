package hooks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func TestCallbackRequest(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("c1", `{"title":"T","score":12345678901234567890,"id":"theirs"}`, rec.callbackURL("c1")))

	received := rec.await(t, 1)[0]
	record := only(t, server, store.Content)
	want := fmt.Sprintf(`{"data":{"title":"T","score":12345678901234567890,"id":%[1]q,"saved_at":%[2]q},"task_id":"pocketbase_%[1]s","metadata":{"database":"pocketbase","table":"aiContent","record_id":%[1]q}}`,
		record.Id, record.GetDateTime("created").Time().Format("2006-01-02T15:04:05.000Z"))
	if received.body != want {
		t.Errorf("body: got %s\nwant %s", received.body, want)
	}
	if got, want := received.header.Get("Authorization"), "Bearer "+testKey; got != want {
		t.Errorf("Authorization: got %q, want %q", got, want)
	}
	if got, want := received.header.Get("Content-Type"), "application/json"; got != want {
		t.Errorf("Content-Type: got %q, want %q", got, want)
	}
	if received.path != "/v1/callback/c1" {
		t.Errorf("path: got %q", received.path)
	}
	row := awaitState(t, server, store.Delivered)
	if row.Id != record.Id || row.GetString("record") != record.Id || row.GetInt("lastStatus") != 200 || row.GetInt("attempts") != 1 || row.GetDateTime("deliveredAt").IsZero() {
		t.Errorf("row: got %v", row.PublicExport())
	}
}

func TestCallbackOutcomes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		answers   []int // one after the other, the last one for ever
		state     string
		callbacks int    // with error callbacks
		lastError string // a part of it
	}{
		{"accepted", []int{200}, store.Delivered, 1, ""},
		{"accepted with 204", []int{204}, store.Delivered, 1, ""},
		{"refused for good", []int{400}, store.Failed, 2, "answered 400 Bad Request; error callback: answered 400"},
		{"refused for good, the error callback accepted", []int{410, 200}, store.Failed, 2, "answered 410 Gone; error callback: accepted"},
		{"unauthorized", []int{401}, store.Failed, 2, "answered 401 Unauthorized"},
		{"a redirect", []int{307}, store.Failed, 2, "answered 307"},
		{"unavailable, then accepted", []int{503, 200}, store.Delivered, 2, ""},
		{"timed out, then accepted", []int{408, 200}, store.Delivered, 2, ""},
		{"too early, then accepted", []int{425, 200}, store.Delivered, 2, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			answers := row.answers
			rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				w.WriteHeader(answers[0])
				if len(answers) > 1 {
					answers = answers[1:]
				}
			})
			server := newTestServer(t, testConfig())
			server.mustPost(t, generated("outcome", `{"title":"T"}`, rec.callbackURL("outcome")))
			callback := awaitState(t, server, row.state)
			if got := rec.all(); len(got) != row.callbacks {
				t.Errorf("callbacks: got %d, want %d", len(got), row.callbacks)
			}
			if got := callback.GetString("lastError"); !strings.Contains(got, row.lastError) || row.lastError == "" && got != "" {
				t.Errorf("lastError: got %q, want %q in it", got, row.lastError)
			}
			if row.state == store.Failed && !strings.Contains(rec.all()[1].body, `"error":"processing_failed"`) {
				t.Errorf("error callback: got %s", rec.all()[1].body)
			}
			only(t, server, store.Content) // whatever becomes of the callback
		})
	}
}

// Every attempt sends the same bytes, whatever became of the record since.
func TestCallbackBodyIsFrozen(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerStatus(503))
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("frozen", `{"title":"As it was"}`, rec.callbackURL("frozen")))
	rec.await(t, 1)
	record := only(t, server, store.Content)
	record.Set("data", map[string]any{"title": "Edited"})
	if err := server.Save(record); err != nil {
		t.Fatal(err)
	}
	rec.setAnswer(nil)
	received := rec.await(t, 2)
	if received[0].body != received[1].body {
		t.Errorf("attempts differ:\n%s\n%s", received[0].body, received[1].body)
	}
}

func TestCallbackRetryAfterWins(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(429)
	})
	server := newTestServer(t, testConfig())
	started := time.Now()
	server.mustPost(t, generated("later", `{}`, rec.callbackURL("later")))
	var row *core.Record
	eventually(t, "the attempt is written down", func() bool {
		row = only(t, server, store.Callbacks)
		return row.GetInt("lastStatus") == 429
	})
	next := row.GetDateTime("nextAttempt").Time()
	if next.Before(started.Add(119*time.Second)) || next.After(time.Now().Add(121*time.Second)) {
		t.Errorf("next attempt after %s, want 2 minutes", next.Sub(started))
	}
}

func TestCallbackLargeBodyIsReadFromTheTable(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	text := strings.Repeat("0123456789", 100_000)
	server.mustPost(t, generated("large", `{"body":"`+text+`","n":1.0}`, rec.callbackURL("large")))
	if got := rec.await(t, 1)[0].body; !strings.HasPrefix(got, `{"data":{"body":"`+text+`","n":1.0,"id":`) {
		t.Errorf("body of %d bytes begins %.80s", len(got), got)
	}
}

func TestCallbackHostIsPinned(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	config := testConfig()
	config.CallbackHosts = nil
	server := newTestServer(t, config)
	server.mustPost(t, generated("pinned", `{}`, rec.callbackURL("pinned")))
	row := awaitState(t, server, store.Failed)
	if got := row.GetString("lastError"); !strings.Contains(got, "is not one that may get the API key") || !strings.Contains(got, "MODELRIVER_CALLBACK_HOSTS") {
		t.Errorf("lastError: got %q", got)
	}
	if got := rec.all(); len(got) != 0 {
		t.Errorf("callbacks to a host that is not allowed: got %v", got)
	}
}

func TestCallbackHookHearsOfFailure(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerStatus(404))
	server := newTestServer(t, testConfig())
	alarms := make(chan string, 10)
	server.OnRecordAfterUpdateSuccess(store.Callbacks).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("state") == store.Failed {
			alarms <- e.Record.Id + " " + e.Record.GetString("lastError")
		}
		return e.Next()
	})
	server.mustPost(t, generated("alarm", `{}`, rec.callbackURL("alarm")))
	row := awaitState(t, server, store.Failed)
	select {
	case got := <-alarms:
		if got != row.Id+" "+row.GetString("lastError") {
			t.Errorf("alarm: got %q", got)
		}
	case <-time.After(time.Minute):
		t.Error("no alarm")
	}
}

// A hook that refuses the update of a failed callback's row cannot keep it from failing.
func TestCallbackFailsAgainstAHook(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerStatus(404))
	server := newTestServer(t, testConfig())
	server.OnRecordUpdate(store.Callbacks).BindFunc(func(*core.RecordEvent) error { return errors.New("never") })
	server.mustPost(t, generated("stubborn", `{}`, rec.callbackURL("stubborn")))
	if got := awaitState(t, server, store.Failed).GetString("lastError"); !strings.Contains(got, "answered 404") {
		t.Errorf("lastError: got %q", got)
	}
}

// A failed callback is sent again by the same webhook, or by setting it pending.
func TestCallbackFailedAgain(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(t *testing.T, server *testServer, payload string, header http.Header){
		"by another webhook": func(t *testing.T, server *testServer, payload string, _ http.Header) {
			server.mustPost(t, payload)
		},
		"by setting the row pending": setPending,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, answerStatus(403))
			server := newTestServer(t, testConfig())
			payload := generated("again", `{}`, rec.callbackURL("again"))
			server.mustPost(t, payload)
			awaitState(t, server, store.Failed)
			rec.setAnswer(nil)
			again(t, server, payload, nil)
			row := awaitState(t, server, store.Delivered)
			if row.GetInt("attempts") != 1 || row.GetString("lastError") != "" {
				t.Errorf("row: got %d attempts, error %q", row.GetInt("attempts"), row.GetString("lastError"))
			}
			only(t, server, store.Content)
		})
	}
}

func TestCallbackWithoutKey(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	config := testConfig()
	config.APIKey = ""
	app, p := newTestApp(t, config)
	server := serve(t, app, p)
	server.mustPost(t, generated("keyless", `{}`, rec.callbackURL("keyless")))
	if _, err := p.outbox.RunOnce(); err != nil {
		t.Fatal(err)
	}
	row := only(t, app, store.Callbacks)
	if row.GetString("state") != store.Pending || row.GetInt("attempts") != 0 || len(rec.all()) != 0 {
		t.Fatalf("row: got %s after %d attempts, want pending after none", row.GetString("state"), row.GetInt("attempts"))
	}

	t.Run("is sent once there is one", func(t *testing.T) {
		p.outbox.Stop()
		later, err := newPlugin(app, testConfig())
		if err != nil {
			t.Fatal(err)
		}
		later.outbox.Start()
		defer later.outbox.Stop()
		awaitState(t, app, store.Delivered)
	})
	t.Run("fails when the window ends", func(t *testing.T) {
		setCallback(t, app, row.Id, dbx.Params{
			"state": store.Pending, "attempts": 0, "nextAttempt": store.DateTime(time.Now()), "expires": store.DateTime(time.Now().Add(-time.Second)),
		})
		p.outbox.Start()
		p.outbox.Wake()
		if got := awaitState(t, app, store.Failed).GetString("lastError"); !strings.Contains(got, "MODELRIVER_API_KEY") {
			t.Errorf("lastError: got %q", got)
		}
	})
}

// The answer of a receiver must not bring the key into the database.
func TestKeyStaysOutOfTheDatabase(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		io.WriteString(w, "bad header: "+r.Header.Get("Authorization"))
	})
	server := newTestServer(t, testConfig())
	server.Settings().Logs.MaxDays = 5
	server.mustPost(t, generated("echo", `{}`, rec.callbackURL("echo")))
	row := awaitState(t, server, store.Failed)
	if got := row.GetString("lastError"); strings.Contains(got, testKey) || !strings.Contains(got, "[API key]") {
		t.Errorf("lastError: got %q", got)
	}
	if logs := logRows(t, server); strings.Contains(logs, testKey) {
		t.Errorf("the key is in the logs:\n%s", logs)
	}
}

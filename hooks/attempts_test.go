package hooks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// attemptsOf returns all attempts, oldest first.
func attemptsOf(t testing.TB, app core.App) []*core.Record {
	t.Helper()
	var rows []*core.Record
	if err := app.RecordQuery(store.Attempts).OrderBy("at", "rowid").All(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// described is what an attempt's row says, in one line.
func described(row *core.Record) string {
	kind := "callback"
	if row.GetBool("errorCallback") {
		kind = "error callback"
	}
	return fmt.Sprintf("%s %d error=%q answer=%q", kind, row.GetInt("status"), row.GetString("error"), row.GetString("answer"))
}

func wantAttempts(t testing.TB, app core.App, want ...string) {
	t.Helper()
	var got []string
	for _, row := range attemptsOf(t, app) {
		got = append(got, described(row))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("attempts: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func answerText(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// makeDue has the only callback sent now that waits for its next attempt.
func makeDue(t testing.TB, server *testServer, attempts int) {
	t.Helper()
	eventually(t, "the attempt is written down", func() bool { return len(attemptsOf(t, server)) == attempts })
	setCallback(t, server, only(t, server, store.Callbacks).Id, dbx.Params{"nextAttempt": store.DateTime(time.Now())})
	eventually(t, "its place in memory is free", func() bool { return server.plugin.outbox.Held() == 0 })
	server.plugin.outbox.Wake()
}

// Every outcome of an attempt leaves a row, which tells what came of it.
func TestAttemptsAreKept(t *testing.T) {
	t.Parallel()
	began := time.Now().Add(-time.Millisecond)
	rec := newReceiver(t, answerText(503, "busy"))
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	makeDue(t, server, 1)
	rec.await(t, 2)
	rec.setAnswer(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		fmt.Fprintf(w, "thank you, %s", r.Header.Get("Authorization"))
	})
	makeDue(t, server, 2)
	row := awaitState(t, server, store.Delivered)
	busy := `callback 503 error="answered 503 Service Unavailable" answer="busy"`
	wantAttempts(t, server, busy, busy, `callback 200 error="" answer="thank you, Bearer [API key]"`)
	for _, attempt := range attemptsOf(t, server) {
		at := attempt.GetDateTime("at").Time()
		if attempt.GetString("callback") != row.Id || at.Before(began) || at.After(time.Now()) || !attempt.GetDateTime("expires").Equal(row.GetDateTime("expires")) {
			t.Errorf("got %v", attempt)
		}
	}
	if got := attemptsOf(t, server)[2].GetInt("duration"); got < 20 || got > 10_000 {
		t.Errorf("duration: got %d ms, want 20 and some", got)
	}
}

// What was tried before a retry is still there after it.
func TestAttemptsSurviveARetry(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerText(422, "no such channel"))
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	row := awaitState(t, server, store.Failed)
	refused := `error="answered 422 Unprocessable Entity" answer="no such channel"`
	wantAttempts(t, server, "callback 422 "+refused, "error callback 422 "+refused)

	rec.setAnswer(answerText(200, "ok"))
	row.Set("state", store.Pending)
	if err := server.Save(row); err != nil {
		t.Fatal(err)
	}
	awaitState(t, server, store.Delivered)
	wantAttempts(t, server, "callback 422 "+refused, "error callback 422 "+refused, `callback 200 error="" answer="ok"`)
}

// A refused event is told by error callbacks; what became of ingesting it again is told too,
// and all of it stays when it is stored.
func TestAttemptsOfARefusedEvent(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerText(200, "noted"))
	server := newTestServer(t, testConfig())
	reason := "not yet"
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if reason != "" {
			return errors.New(reason)
		}
		return e.Next()
	})
	again := func(state string) {
		t.Helper()
		row := only(t, server, store.Callbacks)
		row.Set("state", store.Pending)
		if err := server.Save(row); err != nil {
			t.Fatal(err)
		}
		awaitState(t, server, state)
	}
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	awaitState(t, server, store.Failed)
	reason = "still not"
	again(store.Failed)
	reason = ""
	again(store.Delivered)
	wantAttempts(t, server,
		`error callback 200 error="" answer="noted"`,
		`callback 0 error="refused: still not" answer=""`,
		`callback 200 error="" answer="noted"`)
}

// Why a callback was not even sent is told.
func TestAttemptsThatWereNotMade(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, url string
		want      string
	}{
		{"to a host that may not get the key", "https://elsewhere.example/c", "callback 0 error=\"callback URL not allowed: host \\\"elsewhere.example:443\\\" is not one"},
		{"without a key", "https://api.modelriver.com/v1/callback/c", "callback 0 error=\"no API key was set within the callback window: set MODELRIVER_API_KEY"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := testConfig()
			config.APIKey = ""
			config.CallbackWindow = time.Second
			server := newTestServer(t, config)
			server.mustPost(t, generated("c", `{}`, row.url))
			awaitState(t, server, store.Failed)
			rows := attemptsOf(t, server)
			if len(rows) != 1 || !strings.HasPrefix(described(rows[0]), row.want) {
				wantAttempts(t, server, row.want)
			}
		})
	}
}

// Someone edits or deletes the row while its callback is being sent, or a hook refuses to
// save what came of it: the attempt was made all the same.
func TestAttemptsWhenTheRowChanges(t *testing.T) {
	t.Parallel()
	ok := `callback 200 error="" answer="ok"`
	for _, row := range []struct {
		name   string
		change func(t *testing.T, server *testServer, id string)
		answer int
		want   []string
	}{
		{"armed again", func(t *testing.T, server *testServer, id string) {
			setCallback(t, server, id, dbx.Params{"expires": store.DateTime(time.Now().Add(time.Hour)), "attempts": 0, "nextAttempt": store.DateTime(time.Now().Add(time.Minute))}) // not beyond the window, where it would be due
		}, 200, []string{ok}},
		{"given up by hand", func(t *testing.T, server *testServer, id string) {
			setCallback(t, server, id, dbx.Params{"state": store.Failed})
		}, 200, []string{ok}},
		{"deleted", func(t *testing.T, server *testServer, id string) {
			if err := server.Delete(only(t, server, store.Callbacks)); err != nil {
				t.Fatal(err)
			}
		}, 200, nil},
		{"its record deleted", func(t *testing.T, server *testServer, id string) {
			if err := server.Delete(only(t, server, store.Content)); err != nil {
				t.Fatal(err)
			}
		}, 200, []string{ok}},
		{"a hook refuses the outcome", func(t *testing.T, server *testServer, id string) {
			server.OnRecordUpdate(store.Callbacks).BindFunc(func(*core.RecordEvent) error { return errors.New("no") })
		}, 410, []string{`callback 410 error="answered 410 Gone" answer="ok"`, `error callback 410 error="answered 410 Gone" answer="ok"`}},
		{"no attempts can be stored", func(t *testing.T, server *testServer, id string) {
			if _, err := server.NonconcurrentDB().NewQuery("ALTER TABLE modelriverAttempts RENAME TO away").Execute(); err != nil {
				t.Fatal(err)
			}
		}, 200, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			let := make(chan struct{})
			rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				<-let
				w.WriteHeader(row.answer)
				_, _ = io.WriteString(w, "ok")
			})
			server := newTestServer(t, testConfig())
			server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
			rec.await(t, 1)
			row.change(t, server, only(t, server, store.Callbacks).Id)
			close(let)
			eventually(t, "the attempt ends", func() bool { return server.plugin.outbox.Held() == 0 })
			if row.name == "no attempts can be stored" {
				awaitState(t, server, store.Delivered) // not sent again
				return
			}
			wantAttempts(t, server, row.want...)
		})
	}
}

// A server that stops while a callback is sent has no outcome to write down. The next one
// sends again, and only that is told.
func TestAttemptsOfAServerThatStops(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	rec := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-hang })
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	rec.await(t, 1)
	server.plugin.outbox.Stop()
	wantAttempts(t, server)
	close(hang)
	rec.setAnswer(answerText(200, "ok"))
	server.plugin.outbox.Start()
	awaitState(t, server, store.Delivered)
	wantAttempts(t, server, `callback 200 error="" answer="ok"`)
}

// Those of a host that hangs are told as what they are.
func TestAttemptsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	rec := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-hang })
	config := testConfig()
	config.CallbackTimeout = 50 * time.Millisecond
	server := newTestServer(t, config)
	t.Cleanup(func() { close(hang) })
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	eventually(t, "the attempt is written down", func() bool { return len(attemptsOf(t, server)) > 0 })
	row := attemptsOf(t, server)[0]
	if got := described(row); got != `callback 0 error="no answer within 50ms" answer=""` || row.GetInt("duration") < 50 {
		t.Errorf("got %s after %d ms", got, row.GetInt("duration"))
	}
}

package hooks

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// awaitState waits until the only callback row is in the state, and returns it.
func awaitState(t testing.TB, app core.App, state string) *core.Record {
	t.Helper()
	eventually(t, "the callback is "+state, func() bool {
		return only(t, app, store.Callbacks).GetString("state") == state
	})
	return only(t, app, store.Callbacks)
}

// A receiver takes ModelRiver's place for callbacks.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	received []receivedRequest
	answer   http.HandlerFunc // nil answers 200
}

type receivedRequest struct {
	at     time.Time
	path   string
	header http.Header
	body   string
}

func newReceiver(t testing.TB, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		r.received = append(r.received, receivedRequest{time.Now(), request.URL.Path, request.Header, string(body)})
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			request.Body = io.NopCloser(strings.NewReader(string(body)))
			answer(w, request)
		}
	}))
	t.Cleanup(func() {
		r.Server.CloseClientConnections()
		r.Server.Close()
	})
	return r
}

func (r *receiver) callbackURL(channel string) string { return r.URL + "/v1/callback/" + channel }

func (r *receiver) setAnswer(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) all() []receivedRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]receivedRequest(nil), r.received...)
}

// await waits for n callbacks and returns them.
func (r *receiver) await(t testing.TB, n int) []receivedRequest {
	t.Helper()
	eventually(t, fmt.Sprintf("%d callbacks arrive", n), func() bool { return len(r.all()) >= n })
	return r.all()
}

func answerStatus(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func setCallback(t testing.TB, app core.App, id string, set dbx.Params) {
	t.Helper()
	if _, err := app.NonconcurrentDB().Update(store.Callbacks, set, dbx.HashExp{"id": id}).Execute(); err != nil {
		t.Fatal(err)
	}
}

func insertTestCallback(t testing.TB, app core.App, p *plugin, id, url string) *store.Callback {
	t.Helper()
	ticket, cb := p.outbox.Admit(id, url)
	ticket.Dropped()
	cb.Attempts, cb.NextAttempt, cb.Body = 0, time.Now(), []byte(`{"data":{}}`)
	err := app.RunInTransaction(func(tx core.App) error {
		return cb.Insert(tx, time.Now(), "", "")
	})
	if err != nil {
		t.Fatal(err)
	}
	return cb
}

// deleteOld runs what runs daily.
func deleteOld(app core.App) {
	for _, job := range app.Cron().Jobs() {
		if job.Id() == "modelriverRetention" {
			job.Run()
		}
	}
}

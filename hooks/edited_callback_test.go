package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const callbacksPath = "/api/collections/modelriverCallbacks/records/"

// PocketBase writes all fields of a row that somebody edits, as they were when it read them. What
// became of the callback since is not undone.
func TestEditUndoesNoDelivery(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]string{"something else": `{"url":"https://example.com/x"}`, "the state too": `{"state":"failed"}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			let := make(chan struct{})
			rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-let:
				case <-t.Context().Done():
				}
			})
			server := newTestServer(t, testConfig())
			root := superuserToken(t, server)
			server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
			rec.await(t, 1)
			server.OnRecordUpdateRequest(store.Callbacks).BindFunc(func(e *core.RecordRequestEvent) error {
				close(let)
				awaitState(t, server, store.Delivered)
				return e.Next()
			})
			id := only(t, server, store.Callbacks).Id
			if status, body := server.call(t, root, http.MethodPatch, callbacksPath+id, fields); status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			row := only(t, server, store.Callbacks)
			if row.GetString("state") != store.Delivered || row.GetString("deliveredAt") == "" || row.GetInt("lastStatus") != 200 {
				t.Errorf("got %v, want it delivered", row)
			}
			if wrote := strings.Contains(fields, "url"); wrote != (row.GetString("url") == "https://example.com/x") {
				t.Errorf("url: got %s", row.GetString("url"))
			}
		})
	}
}

// A callback that waits in memory, behind those that its host is slow to take, is not sent any
// more when its row is deleted or no longer says so.
func TestCancelledCallbackIsNotSent(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]func(t *testing.T, server *testServer, root, id string){
		"deleted": func(t *testing.T, server *testServer, root, id string) {
			if status, body := server.call(t, root, http.MethodDelete, callbacksPath+id, ""); status != 204 {
				t.Fatalf("got %d %s", status, body)
			}
		},
		"set to failed": func(t *testing.T, server *testServer, root, id string) {
			if status, body := server.call(t, root, http.MethodPatch, callbacksPath+id, `{"state":"failed"}`); status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			let := make(chan struct{})
			rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-let:
				case <-t.Context().Done():
				}
			})
			server := newTestServer(t, testConfig())
			server.awaitOutbox(t)
			root := superuserToken(t, server)
			for i := range outbox.MaxSending {
				server.mustPost(t, generated(fmt.Sprint(i), `{}`, rec.callbackURL("first")))
			}
			rec.await(t, outbox.MaxSending)
			server.mustPost(t, generated("cancelled", `{}`, rec.callbackURL("cancelled")))
			id := contentOf(t, server, "cancelled").Id
			server.mustPost(t, generated("last", `{}`, rec.callbackURL("last")))
			eventually(t, "both wait", func() bool { return server.plugin.outbox.Held() == outbox.MaxSending+2 })
			cancel(t, server, root, id)
			close(let)
			eventually(t, "all are sent", func() bool { return server.plugin.outbox.Held() == 0 })
			for _, received := range rec.all() {
				if strings.Contains(received.body, id) {
					t.Errorf("sent after all: %s", received.body)
				}
			}
		})
	}
}

// A hook that hears of a failed callback saves its record again, at once or when the callback was
// armed again meanwhile.
func TestHookSavesTheFailedCallback(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerStatus(404))
	server := newTestServer(t, testConfig())
	heard := make(chan *core.Record, 1)
	server.OnRecordAfterUpdateSuccess(store.Callbacks).BindFunc(func(e *core.RecordEvent) error {
		select {
		case heard <- e.Record:
		default:
		}
		return e.Next()
	})
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	failed := <-heard
	failed.Set("url", "https://example.com/x")
	if err := server.Save(failed); err != nil {
		t.Fatal(err)
	}
	row := only(t, server, store.Callbacks)
	if row.GetString("state") != store.Failed || !strings.Contains(row.GetString("lastError"), "404") || row.GetString("url") != "https://example.com/x" {
		t.Errorf("got %v", row)
	}
	server.plugin.outbox.Stop()
	expires := store.DateTime(time.Now().Add(time.Minute))
	setCallback(t, server, row.Id, dbx.Params{"state": "pending", "attempts": 0, "nextAttempt": expires, "expires": expires})
	if err := server.Save(failed); err != nil {
		t.Fatal(err)
	}
	if row := only(t, server, store.Callbacks); row.GetString("state") != store.Pending || !row.GetDateTime("expires").Equal(expires) {
		t.Errorf("got %v, want it armed", row)
	}
}

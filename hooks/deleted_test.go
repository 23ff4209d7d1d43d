package hooks

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// What was deleted stays deleted when its webhook comes again, with a callback or
// without, for as long as its callback row is kept.
func TestDeletedStaysDeleted(t *testing.T) {
	t.Parallel()
	for _, called := range []bool{true, false} {
		for name, remove := range map[string]func(t *testing.T, server *testServer){
			"in the dashboard": func(t *testing.T, server *testServer) {
				path := "/api/collections/aiContent/records/" + only(t, server, store.Content).Id
				if status, body := server.call(t, superuserToken(t, server), http.MethodDelete, path, ""); status != 204 {
					t.Fatalf("delete: got %d %s", status, body)
				}
			},
			"by a hook": func(t *testing.T, server *testServer) {
				if err := server.Delete(only(t, server, store.Content)); err != nil {
					t.Fatal(err)
				}
			},
			"with all others": func(t *testing.T, server *testServer) {
				collection, err := server.FindCollectionByNameOrId(store.Content)
				if err != nil {
					t.Fatal(err)
				}
				if err := server.TruncateCollection(collection); err != nil {
					t.Fatal(err)
				}
			},
		} {
			callbacks := map[bool]string{true: ", with a callback", false: ", without a callback"}
			t.Run(name+callbacks[called], func(t *testing.T) {
				t.Parallel()
				rec := newReceiver(t, nil)
				server := newTestServer(t, testConfig())
				payload := generated("gone", `{"title":"Gone"}`, "")
				state := store.Deleted
				if called {
					payload = generated("gone", `{"title":"Gone"}`, rec.callbackURL("gone"))
					state = store.Delivered
				}
				server.mustPost(t, payload)
				id := only(t, server, store.Content).Id
				if called {
					awaitState(t, server, store.Delivered)
				}
				remove(t, server)
				for range 2 {
					server.mustPost(t, payload)
					if got := len(records(t, server, store.Content)); got != 0 {
						t.Fatalf("records: got %d, want it to stay deleted", got)
					}
				}
				row := only(t, server, store.Callbacks)
				if row.Id != id || row.GetString("state") != state || row.GetString("record") != "" {
					t.Errorf("row: got %s %s of record %q, want %s %s", row.Id, row.GetString("state"), row.GetString("record"), id, state)
				}
				if got, want := len(rec.all()), map[bool]int{true: 1, false: 0}[called]; got != want {
					t.Errorf("callbacks: got %d, want %d", got, want)
				}

				// The row is kept for as long as that of a delivered callback.
				deleteOld(server)
				server.mustPost(t, payload)
				if got := len(records(t, server, store.Content)); got != 0 {
					t.Errorf("records within Retention: got %d, want 0", got)
				}
				old := store.DateTime(time.Now().Add(-46 * 24 * time.Hour))
				if called {
					setCallback(t, server, id, dbx.Params{"deliveredAt": old})
				} else {
					setCallback(t, server, id, dbx.Params{"created": old})
				}
				deleteOld(server)
				server.mustPost(t, payload)
				only(t, server, store.Content)
			})
		}
	}
}

// A row that tells of a deleted record counts as no callback, and cannot be sent.
func TestDeletedIsNoCallback(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	payload := generated("gone", `{"title":"Gone"}`, "")
	server.mustPost(t, payload)
	if err := server.Delete(only(t, server, store.Content)); err != nil {
		t.Fatal(err)
	}
	row := only(t, server, store.Callbacks)

	wantLines(t, mustRun(t, server.plugin, "status", "--json"),
		`"received": 0`, `"delivered": 0`, `"waiting": 0`, `"failed": 0`, `"lastError": null`)
	figures, err := store.ReadFigures(server, time.Now().Add(-time.Hour), 5*time.Minute)
	if err != nil || figures.Received != 0 || figures.Delivered != 0 || figures.Median != nil {
		t.Errorf("figures: got %+v, %v", figures, err)
	}
	if out := mustRun(t, server.plugin, "callbacks"); !strings.Contains(out, row.Id+"\tdeleted\t") || !strings.Contains(out, "is not stored again") {
		t.Errorf("callbacks: got %s", out)
	}
	out, err := runCommand(server.plugin, "retry", row.Id)
	wantError(t, err, "delete this row")
	if strings.Contains(out, "to be sent again") {
		t.Errorf("retry: got %s", out)
	}
	path := "/api/collections/modelriverCallbacks/records/" + row.Id
	root := superuserToken(t, server)
	if status, body := server.call(t, root, http.MethodPatch, path, `{"state":"pending"}`); status != 400 || !strings.Contains(body, "delete this row") {
		t.Errorf("an edit: got %d %s, want 400 with the remedy", status, body)
	}
	if status, body := server.call(t, root, http.MethodPatch, path, `{"lastError":"by me"}`); status != 200 {
		t.Errorf("an edit of something else: got %d %s", status, body)
	}

	// Without the row the webhook is new.
	if status, body := server.call(t, root, http.MethodDelete, path, ""); status != 204 {
		t.Fatalf("delete: got %d %s", status, body)
	}
	server.mustPost(t, payload)
	only(t, server, store.Content)
}

// A deletion that is undone leaves nothing behind.
func TestDeletionUndone(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("kept", `{}`, ""))
	err := server.RunInTransaction(func(tx core.App) error {
		record, err := tx.FindFirstRecordByData(store.Content, "channelId", "kept")
		if err != nil {
			return err
		}
		if err := tx.Delete(record); err != nil {
			t.Error(err)
		}
		return errors.New("undo")
	})
	if err == nil || len(records(t, server, store.Callbacks)) != 0 || len(records(t, server, store.Content)) != 1 {
		t.Errorf("got %v, %d callback rows, %d records", err, len(records(t, server, store.Callbacks)), len(records(t, server, store.Content)))
	}
}

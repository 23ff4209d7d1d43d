package hooks

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Whoever deletes content deletes all of it, in every way that PocketBase has.
func TestPayloadGoesWithItsRecord(t *testing.T) {
	t.Parallel()
	truncate := func(collection string) func(*testing.T, *testServer) {
		return func(t *testing.T, server *testServer) {
			path := "/api/collections/" + collection + "/truncate"
			if status, body := server.call(t, superuserToken(t, server), http.MethodDelete, path, ""); status != 204 {
				t.Fatalf("truncate: got %d %s", status, body)
			}
		}
	}
	remove := func(collection string) func(*testing.T, *testServer) {
		return func(t *testing.T, server *testServer) {
			if err := server.Delete(only(t, server, collection)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name    string
		refused bool
		remove  func(*testing.T, *testServer)
		stay    [2]int // payloads and attempts
	}{
		{"a record is deleted", false, remove(store.Content), [2]int{0, 0}},
		{"all records are deleted", false, truncate(store.Content), [2]int{0, 0}},
		{"the callback of a record is deleted", false, remove(store.Callbacks), [2]int{1, 0}},
		{"all callbacks are deleted", false, truncate(store.Callbacks), [2]int{1, 0}},
		{"a refused event is deleted", true, remove(store.Callbacks), [2]int{0, 0}},
		{"the attempts are deleted", false, truncate(store.Attempts), [2]int{1, 0}},
		{"a user with all content is deleted", false, deleteOwner, [2]int{0, 0}},
		{"a record is deleted in a batch", false, deleteInBatch(""), [2]int{0, 0}},
		{"a record is deleted in a batch that fails", false, deleteInBatch("nope"), [2]int{1, 1}},
		{"a record is deleted, and a hook fails after it", false, deleteBeforeFailure, [2]int{0, 0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
				if row.refused {
					return errors.New("no")
				}
				return e.Next()
			})
			payload := generated("c", `{"title":"Secret"}`, rec.callbackURL("c"))
			server.mustPost(t, payload)
			awaitState(t, server, map[bool]string{true: store.Failed, false: store.Delivered}[row.refused])
			onlyPayload(t, server)
			row.remove(t, server)
			got := [2]int{len(payloadsOf(t, server)), len(attemptsOf(t, server))}
			if got != row.stay {
				t.Errorf("got %v payloads and attempts, want %v", got, row.stay)
			}
			server.mustPost(t, payload) // and webhooks are taken all the same
		})
	}
	t.Run("a deletion is undone", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		_ = server.RunInTransaction(func(tx core.App) error {
			if err := tx.Delete(only(t, tx, store.Content)); err != nil {
				t.Error(err)
			}
			return errors.New("undo")
		})
		onlyPayload(t, server)
	})
	t.Run("a deletion is committed late", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		err := server.RunInTransaction(func(tx core.App) error {
			err := tx.Delete(only(t, tx, store.Content))
			onlyPayload(t, server)
			return err
		})
		if got := len(payloadsOf(t, server)); err != nil || got != 0 {
			t.Errorf("got %d payloads, %v, want none", got, err)
		}
	})
	t.Run("callbacks are deleted past the hooks", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("a", `{}`, rec.callbackURL("a")))
		awaitState(t, server, store.Delivered)
		if err := server.UnsafeWithoutHooks().Delete(only(t, server, store.Callbacks)); err != nil {
			t.Fatal(err)
		}
		server.mustPost(t, generated("b", `{}`, rec.callbackURL("b")))
		kept := awaitState(t, server, store.Delivered)
		deleteOld(server)
		if got := attemptsOf(t, server); len(got) != 1 || got[0].GetString("callback") != kept.Id {
			t.Errorf("got %d attempts, want that of %s", len(got), kept.Id)
		}
	})
	t.Run("a callback is too old", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
		row := awaitState(t, server, store.Delivered)
		setCallback(t, server, row.Id, dbx.Params{"deliveredAt": store.DateTime(time.Now().Add(-46 * 24 * time.Hour))})
		deleteOld(server)
		if got := [2]int{len(attemptsOf(t, server)), len(payloadsOf(t, server))}; got != [2]int{0, 1} {
			t.Errorf("got %v attempts and payloads, want none and 1", got)
		}
	})
}

// deleteOwner deletes a user whose content goes with it.
func deleteOwner(t *testing.T, server *testServer) {
	t.Helper()
	content, err := server.FindCollectionByNameOrId(store.Content)
	if err != nil {
		t.Fatal(err)
	}
	user, _ := newUser(t, server, "owner@example.com")
	content.Fields.Add(&core.RelationField{Name: "owner", CollectionId: user.Collection().Id, CascadeDelete: true})
	if err := server.Save(content); err != nil {
		t.Fatal(err)
	}
	record := only(t, server, store.Content)
	record.Set("owner", user.Id)
	if err := server.Save(record); err != nil {
		t.Fatal(err)
	}
	if err := server.Delete(user); err != nil {
		t.Fatal(err)
	}
}

// deleteInBatch deletes the record and, if that is not empty, another, of which there is none.
func deleteInBatch(other string) func(*testing.T, *testServer) {
	return func(t *testing.T, server *testServer) {
		t.Helper()
		server.Settings().Batch.Enabled = true
		remove := func(id string) string {
			return `{"method":"DELETE","url":"/api/collections/aiContent/records/` + id + `"}`
		}
		requests, want := remove(only(t, server, store.Content).Id), 200
		if other != "" {
			requests, want = requests+","+remove(other), 400
		}
		status, body := server.call(t, superuserToken(t, server), http.MethodPost, "/api/batch", `{"requests":[`+requests+`]}`)
		if status != want {
			t.Fatalf("batch: got %d %s, want %d", status, body, want)
		}
	}
}

func deleteBeforeFailure(t *testing.T, server *testServer) {
	t.Helper()
	server.OnRecordAfterDeleteSuccess(store.Content).Bind(&hook.Handler[*core.RecordEvent]{
		Func: func(*core.RecordEvent) error { return errors.New("late") }, Priority: -1, // before what was bound earlier
	})
	if err := server.Delete(only(t, server, store.Content)); err == nil {
		t.Fatal("the hook was not run")
	}
}

// A payload that no hook deleted, as SQL deleted its record or a crash came in between, is
// deleted at night. No other is.
func TestLostPayloadsAreDeleted(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	refuseSome(server)
	lost := map[string]bool{}
	for _, title := range []string{"T", "Refused"} {
		for _, fate := range []string{"kept", "lost"} {
			server.mustPost(t, generated(title+fate, `{"title":"`+title+`"}`, ""))
			for _, row := range payloadsOf(t, server) {
				if _, known := lost[row.Id]; !known {
					lost[row.Id] = fate == "lost"
				}
			}
		}
	}
	for id, lost := range lost {
		if !lost {
			continue
		}
		for _, table := range []string{store.Content, store.Callbacks} {
			if _, err := server.NonconcurrentDB().Delete(table, dbx.HashExp{"id": id}).Execute(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := len(payloadsOf(t, server)); got != 4 {
		t.Fatalf("by day: got %d payloads, want 4", got)
	}
	deleteOld(server)
	rows := payloadsOf(t, server)
	if len(rows) != 2 || lost[rows[0].Id] || lost[rows[1].Id] {
		t.Errorf("got %v, want the 2 that were not lost", rows)
	}
}

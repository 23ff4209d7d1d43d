package hooks

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A webhook that tells of an error ends its request with the message, and an answer that a
// hook refuses without the cause, which is the operator's.
func TestRequestThatFailsLater(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	for _, payload := range []string{
		`{"type":"task.failed","channel_id":%q,"status":"error","error":{"message":"provider failed"}}`,
		`{"status":"error","channel_id":%q,"message":"provider failed"}`,
		`{"data":null,"channel_id":%q,"error":{"message":"provider failed"},"meta":{"status":"error"}}`,
		`{"type":"task.completed","data":null,"channel_id":%q,"error":"provider failed"}`,
		`{"type":"task.ai_generated","channel_id":%q,"error":"provider failed","callback_url":"` + river.callbackURL("x") + `"}`,
	} {
		id := server.mustAsk(t, token)
		awaitRequest(t, server, id, store.Sent)
		server.mustPost(t, fmt.Sprintf(payload, "c-"+id))
		if failed := awaitRequest(t, server, id, store.Failed); failed.GetString("error") != "provider failed" {
			t.Errorf("%s: got %v", payload, failed)
		}
		server.mustPost(t, completed("c-"+id, "After all", ""))
		awaitRequest(t, server, id, store.Answered)
		server.mustPost(t, fmt.Sprintf(payload, "c-"+id))
		awaitRequest(t, server, id, store.Answered)
	}

	server.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("of the operator's database") })
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	server.mustPost(t, completed("c-"+id, "Refused", ""))
	if failed := awaitRequest(t, server, id, store.Failed); failed.GetString("error") != reasonRefused {
		t.Errorf("got %v", failed)
	}
}

// An answer that was refused and is ingested again months later, when nothing is left of its
// request, is still its user's.
func TestRefusedAnswerStaysItsUsers(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	asker, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	refuse := true
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if refuse {
			return errors.New("no")
		}
		return e.Next()
	})
	server.mustPost(t, completed("c-"+id, "Refused", `{"category":"x"}`))
	awaitRequest(t, server, id, store.Failed)
	refuse = false
	for _, table := range []string{store.Requests, store.Channels} {
		if _, err := server.NonconcurrentDB().Delete(table, dbx.NewExp("1=1")).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	callback := awaitState(t, server, store.Failed)
	callback.Set("state", store.Pending)
	if err := server.Save(callback); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stored", func() bool { return len(records(t, server, store.Content)) == 1 })
	if owner := only(t, server, store.Content).GetString("userId"); owner != asker.Id {
		t.Errorf("it belongs to %q", owner)
	}
}

// A host's hooks hear of what becomes of a request, but can't prevent it.
func TestHooksCannotUndoWhatBecameOfARequest(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	server.OnRecordUpdate(store.Requests).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("state") == store.Sent {
			panic("a hook's mistake")
		}
		return errors.New("no")
	})
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	server.mustPost(t, completed("c-"+id, "T", ""))
	awaitRequest(t, server, id, store.Answered)
}

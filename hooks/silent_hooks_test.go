package hooks

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A hook that ends the chain, as one does that forgets e.next() in pb_hooks, has PocketBase save
// nothing and say nothing of it. What is not stored is never called stored.
func TestSilentHookRefuses(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	var silent atomic.Bool
	silent.Store(true)
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if silent.Load() {
			return nil
		}
		return e.Next()
	})
	payload := generated("c", `{"title":"One"}`, rec.callbackURL("c"))
	server.mustPost(t, payload)
	row := awaitState(t, server, store.Failed)
	if !strings.Contains(row.GetString("lastError"), "Next") || row.GetString("payload") == "" {
		t.Errorf("got %q, payload %q: want why it is refused, and the payload kept", row.GetString("lastError"), row.GetString("payload"))
	}
	if received := rec.all(); len(received) != 1 || !strings.Contains(received[0].body, "processing_failed") {
		t.Errorf("callbacks: got %v, want one that tells of the refusal", received)
	}
	silent.Store(false)
	server.mustPost(t, payload)
	awaitState(t, server, store.Delivered)
	if got := only(t, server, store.Content).GetString("title"); got != "One" {
		t.Errorf("title: got %q, want One", got)
	}
}

// A request is sent once, whatever a hook makes of the update that says so.
func TestSilentHookAsksOnce(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	server.OnRecordUpdate(store.Requests).BindFunc(func(*core.RecordEvent) error { return nil })
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	server.mustPost(t, completed("c-"+id, "Answer", ""))
	awaitRequest(t, server, id, store.Answered)
	if n := len(river.all()); n != 1 {
		t.Errorf("sent %d times, want once", n)
	}
}

// A callback that failed for good is not sent again, whatever a hook makes of that.
func TestSilentHookEndsCallback(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerStatus(404))
	server := newTestServer(t, testConfig())
	server.OnRecordUpdate(store.Callbacks).BindFunc(func(*core.RecordEvent) error { return nil })
	server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
	awaitState(t, server, store.Failed)
}

// What a hook keeps from being deleted does not keep the night's job from ending.
func TestSilentHookEndsRetention(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerStatus(400))
	var deletes atomic.Int32
	server.OnRecordDelete(store.Requests).BindFunc(func(*core.RecordEvent) error {
		if deletes.Add(1) > 1000 {
			return errors.New("it goes on and on")
		}
		return nil
	})
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Failed)
	setRow(t, server, store.Requests, id, dbx.Params{"created": "2020-01-01 00:00:00.000Z"})
	deleteOld(server)
	if n := deletes.Load(); n > 2 {
		t.Errorf("tried to delete it %d times", n)
	}
}

// A hook that fails behind its row, as one does that writes a log of its own, takes nothing from
// what is known of whose an answer is.
func TestHookBehindTheRow(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(e *core.RecordEvent) error{
		"behind the row": func(e *core.RecordEvent) error { return errors.Join(e.Next(), errors.New("the log is full")) },
		"before it":      func(e *core.RecordEvent) error { return errors.New("the log is full") },
		"silently":       func(e *core.RecordEvent) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, _ := newAskServer(t, answerChannels)
			server.OnRecordCreate(store.Channels).BindFunc(fail)
			user, token := newUser(t, server, "asker@example.com")
			id := server.mustAsk(t, token)
			if err := server.Delete(awaitRequest(t, server, id, store.Sent)); err != nil {
				t.Fatal(err)
			}
			deleteOld(server)
			server.mustPost(t, completed("c-"+id, "Answer", ""))
			if got := contentOf(t, server, "c-"+id).GetString("userId"); got != user.Id {
				t.Errorf("userId: got %q, want %q", got, user.Id)
			}
		})
	}
}

// A hook that ends or deletes the request when it is claimed has it not sent: of one that was
// deleted before it was sent, nobody remembers whose the answer is.
func TestHookThatEndsTheClaim(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(e *core.RecordEvent) error{
		"ended": func(e *core.RecordEvent) error {
			e.Record.Set("state", store.Failed)
			e.Record.Set("error", "Not today.")
			return e.Next()
		},
		"deleted": func(e *core.RecordEvent) error {
			if err := e.App.Delete(e.Record); err != nil {
				return err
			}
			return e.Next()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, river := newAskServer(t, answerChannels)
			server.OnRecordUpdate(store.Requests).BindFunc(func(e *core.RecordEvent) error {
				if e.Record.GetString("state") != store.Queued {
					return e.Next()
				}
				return end(e)
			})
			_, token := newUser(t, server, "asker@example.com")
			id := server.mustAsk(t, token)
			eventually(t, "it is over", func() bool {
				request, err := server.FindRecordById(store.Requests, id)
				return err != nil || request.GetString("error") == "Not today."
			})
			awaitAttempts(t, server)
			if received := river.all(); len(received) != 0 {
				t.Errorf("sent %v, want nothing", received)
			}
		})
	}
}

// A request that a hook keeps, by an error, keeps no other from being deleted.
func TestHookThatKeepsARequest(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerStatus(400))
	_, token := newUser(t, server, "asker@example.com")
	kept := server.mustAsk(t, token)
	server.OnRecordDelete(store.Requests).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.Id == kept {
			return errors.New("a lawyer wants it")
		}
		return e.Next()
	})
	for _, id := range []string{kept, server.mustAsk(t, token), server.mustAsk(t, token)} {
		awaitRequest(t, server, id, store.Failed)
		setRow(t, server, store.Requests, id, dbx.Params{"created": "2020-01-01 00:00:00.000Z"})
	}
	deleteOld(server)
	if got := only(t, server, store.Requests).Id; got != kept {
		t.Errorf("got %s, want %s", got, kept)
	}
}

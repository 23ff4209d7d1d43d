package hooks

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// sameRequest fails unless the request still has all that tells what became of it.
func sameRequest(t *testing.T, app core.App, want *core.Record) {
	t.Helper()
	got, err := app.FindRecordById(store.Requests, want.Id)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"state", "attempts", "nextAttempt", "channelId", "error", "record"} {
		if got.GetString(field) != want.GetString(field) {
			t.Errorf("%s: got %q, want %q as before", field, got.GetString(field), want.GetString(field))
		}
	}
}

// lateOutcomes are how an attempt can end after its request was cancelled, deleted or asked
// again.
var lateOutcomes = map[string]http.HandlerFunc{
	"not taken now": answerStatus(http.StatusServiceUnavailable),
	"refused":       answerStatus(http.StatusBadRequest),
	"unknown":       answerStatus(http.StatusBadGateway),
	"taken":         func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c-late") },
}

// The outcome of an attempt is not that of the next one, which is being sent meanwhile: it
// neither ends it nor has it sent a third time.
func TestOutcomeOfAnAttemptThatWasAskedAgain(t *testing.T) {
	t.Parallel()
	for name, late := range lateOutcomes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := make(chan http.HandlerFunc), make(chan http.HandlerFunc)
			var posts atomic.Int32
			began := make(chan struct{}, 10)
			server, river := newAskServer(t, func(w http.ResponseWriter, r *http.Request) {
				mine := map[int32]chan http.HandlerFunc{1: first, 2: second}[posts.Add(1)]
				began <- struct{}{}
				select {
				case answer := <-mine:
					answer(w, r)
				case <-t.Context().Done():
				}
			})
			_, token := newUser(t, server, "asker@example.com")
			id := server.mustAsk(t, token)
			<-began
			for _, state := range []string{store.Failed, store.Queued} { // as the retry command does
				setState(t, server, id, state)
			}
			<-began
			sending, err := server.FindRecordById(store.Requests, id)
			if err != nil {
				t.Fatal(err)
			}
			first <- late
			time.Sleep(1500 * time.Millisecond) // in which one that is tried again would be sent
			sameRequest(t, server, sending)
			second <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c-second") }
			if sent := awaitRequest(t, server, id, store.Sent); sent.GetString("channelId") != "c-second" {
				t.Errorf("got %v, want the channel of the second attempt", sent)
			}
			if n := len(river.all()); n != 2 {
				t.Errorf("sent %d times, want twice", n)
			}
		})
	}
}

// A request that was cancelled or deleted while it was sent stays that, and is not sent
// again, whatever becomes of the attempt. Only a channel is remembered, whose answer is its
// user's.
func TestOutcomeOfAnAttemptThatWasGivenUp(t *testing.T) {
	t.Parallel()
	for name, late := range lateOutcomes {
		for _, deleted := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", deleted", false: ", cancelled"}[deleted], func(t *testing.T) {
				t.Parallel()
				answer, began, let := held(t)
				server, river := newAskServer(t, answer)
				user, token := newUser(t, server, "asker@example.com")
				id := server.mustAsk(t, token)
				<-began
				var cancelled *core.Record
				if deleted {
					request, err := server.FindRecordById(store.Requests, id)
					if err != nil {
						t.Fatal(err)
					}
					if err := server.Delete(request); err != nil {
						t.Fatal(err)
					}
				} else {
					cancelled = setState(t, server, id, store.Failed)
				}
				let <- late
				time.Sleep(1500 * time.Millisecond)
				if n := len(river.all()); n != 1 {
					t.Errorf("sent %d times, want once", n)
				}
				if name == "taken" {
					server.mustPost(t, completed("c-late", "Late", ""))
					if owner := contentOf(t, server, "c-late").GetString("userId"); owner != user.Id {
						t.Errorf("the answer belongs to %q, want whoever asked", owner)
					}
				} else if !deleted {
					sameRequest(t, server, cancelled)
				}
				if deleted && len(records(t, server, store.Requests)) > 0 {
					t.Error("a request that was deleted is back")
				}
			})
		}
	}
}

// setState sets the request's state, as an operator does by hand, and returns it.
func setState(t *testing.T, app core.App, id, state string) *core.Record {
	t.Helper()
	request, err := app.FindRecordById(store.Requests, id)
	if err != nil {
		t.Fatal(err)
	}
	request.Set("state", state)
	if err := app.Save(request); err != nil {
		t.Fatal(err)
	}
	return request
}

// A silentTransport tells nothing of what it wrote, as one that net/http has not made.
type silentTransport func(*http.Request) (*http.Response, error)

func (s silentTransport) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }

// What a transport of the app's own wrote is not known, if it is none of net/http's: what it
// had no answer to is not sent again.
func TestTransportThatTellsNothing(t *testing.T) {
	t.Parallel()
	var posts atomic.Int32
	config := testConfig()
	config.HTTPClient = &http.Client{Transport: silentTransport(func(*http.Request) (*http.Response, error) {
		posts.Add(1)
		return nil, errors.New("the connection was lost")
	})}
	server := newTestServer(t, config)
	openRequests(t, server)
	_, token := newUser(t, server, "asker@example.com")
	failed := awaitRequest(t, server, server.mustAsk(t, token), store.Failed)
	if !strings.HasPrefix(failed.GetString("error"), "It is not known whether") || failed.GetDateTime("expires").IsZero() {
		t.Errorf("got %v, want that nobody knows", failed)
	}
	time.Sleep(1500 * time.Millisecond)
	if n := posts.Load(); n != 1 {
		t.Errorf("sent %d times, want once", n)
	}
}

// A request whose window has passed before it was ever sent is sent once: it is failed
// if that is not taken, however little it was tried.
func TestRequestWhoseWindowHasPassed(t *testing.T) {
	t.Parallel()
	river := newReceiver(t, answerStatus(http.StatusServiceUnavailable))
	app, p := newTestApp(t, askConfig(river))
	openRequests(t, app)
	request := core.NewRecord(mustFindCollection(t, app, store.Requests))
	request.Load(map[string]any{"workflow": "story", "input": map[string]any{}})
	if err := app.Save(request); err != nil {
		t.Fatal(err)
	}
	p.outbox.Now = func() time.Time { return time.Now().Add(10 * time.Minute) }
	server := serve(t, app, p)
	failed := awaitRequest(t, server, request.Id, store.Failed)
	if !strings.HasPrefix(failed.GetString("error"), "ModelRiver did not take the request") || failed.GetString("expires") != "" {
		t.Errorf("got %v", failed)
	}
	time.Sleep(1500 * time.Millisecond)
	if n := len(river.all()); n != 1 {
		t.Errorf("sent %d times, want once", n)
	}
}

// What is sent for a request is what was claimed, whatever a hook behind the commit does with the
// record that it hears of.
func TestHookBehindTheClaim(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerStatus(400))
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Failed)
	setRow(t, server, store.Requests, id, dbx.Params{"state": "queued", "nextAttempt": store.DateTime(time.Now().Add(time.Minute))})
	server.OnRecordAfterUpdateSuccess(store.Requests).BindFunc(func(e *core.RecordEvent) error {
		e.Record.Set("workflow", "for the audit")
		e.Record.Set("attempts", 0)
		return e.Next()
	})
	var claimed *core.Record
	err := server.RunInTransaction(func(tx core.App) (err error) {
		claimed, err = store.ClaimRequest(tx, id)
		return err
	})
	if err != nil || claimed.GetString("workflow") != "story" || claimed.GetInt("attempts") != 2 {
		t.Errorf("got %v, %v, want it as it is in the table", claimed, err)
	}
}

package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const (
	cancelledUnsent = "The operator of this server cancelled the request before ModelRiver took it."
	cancelledSent   = "The operator of this server cancelled the request after it was sent. If an answer comes, it is shown."
)

// edit changes the request as PocketBase's dashboard does.
func (s *testServer) edit(t testing.TB, root, id, fields string) {
	t.Helper()
	if status, answer := s.call(t, root, http.MethodPatch, requestsPath+"/"+id, fields); status != 200 {
		t.Fatalf("edit %s: got %d %s", fields, status, answer)
	}
}

// waysToCancel are all there are.
var waysToCancel = map[string]func(t *testing.T, server *testServer, root, id string){
	"in the dashboard": func(t *testing.T, server *testServer, root, id string) {
		server.edit(t, root, id, `{"state":"failed"}`)
	},
	"by the command": func(t *testing.T, server *testServer, _, id string) {
		wantLines(t, mustRun(t, server.plugin, "cancel", id), "^"+id+": The operator of this server cancelled")
	},
	"by a hook": func(t *testing.T, server *testServer, _, id string) {
		request, err := server.FindRecordById(store.Requests, id)
		if err != nil {
			t.Error(err)
			return
		}
		if err := fail(server, request); err != nil {
			t.Error(err)
		}
	},
}

// A request that waits is never sent once it is cancelled.
func TestCancelWhatWaits(t *testing.T) {
	t.Parallel()
	for name, cancel := range waysToCancel {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, river := newAskServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(503)
			})
			_, token := newUser(t, server, "asker@example.com")
			root := superuserToken(t, server)
			id := server.mustAsk(t, token)
			eventually(t, "it waits", func() bool {
				request, err := server.FindRecordById(store.Requests, id)
				return err == nil && request.GetInt("attempts") >= 1 && request.GetString("nextAttempt") != ""
			})
			cancel(t, server, root, id)
			before := len(river.all())
			river.setAnswer(answerChannels)
			failed := awaitRequest(t, server, id, store.Failed)
			if failed.GetString("error") != cancelledUnsent || failed.GetString("nextAttempt") != "" || failed.GetString("expires") != "" {
				t.Errorf("got %v", failed)
			}
			other := server.mustAsk(t, token)
			awaitRequest(t, server, other, store.Sent) // not before what was due has been sent
			eventually(t, "the time of the next attempt has come", func() bool {
				return failed.GetDateTime("updated").Time().Add(4 * time.Second).Before(server.plugin.outbox.Now())
			})
			server.mustPost(t, completed("c-"+other, "Other", ""))
			if n := len(river.all()) - before; n != 1 {
				t.Errorf("sent %d times since, want only the other request", n)
			}
			_, err := runCommand(server.plugin, "cancel", id, other, "norequesthasit0")
			for _, want := range []string{id + ": failed already", other + ": is answered", "norequesthasit0: there is no such request"} {
				wantError(t, err, want)
			}
		})
	}
}

// What was sent, or is being sent, can't be unsent: its answer is shown, and stays its user's.
func TestCancelWhatWasSent(t *testing.T) {
	t.Parallel()
	for name, cancel := range waysToCancel {
		for _, sending := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, while it is sent: %t", name, sending), func(t *testing.T) {
				t.Parallel()
				answer, began, let := held(t)
				server, river := newAskServer(t, answer)
				_, token := newUser(t, server, "asker@example.com")
				_, otherToken := newUser(t, server, "other@example.com")
				root := superuserToken(t, server)
				id := server.mustAsk(t, token)
				<-began
				if sending {
					cancel(t, server, root, id)
					failed := awaitRequest(t, server, id, store.Failed)
					if failed.GetString("error") != cancelledSent || failed.GetString("expires") == "" || failed.GetInt("attempts") != 1 {
						t.Errorf("cancelled while it is sent: got %v", failed)
					}
				}
				let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c-"+id) }
				if !sending {
					awaitRequest(t, server, id, store.Sent)
					cancel(t, server, root, id)
				}
				eventually(t, "its channel is known", func() bool {
					failed := awaitRequest(t, server, id, store.Failed)
					return failed.GetString("channelId") == "c-"+id && failed.GetString("expires") == "" && failed.GetString("error") == cancelledSent
				})
				server.mustPost(t, completed("c-"+id, "Late", ""))
				if answered := awaitRequest(t, server, id, store.Answered); answered.GetString("error") != "" {
					t.Errorf("got %v, want it healed", answered)
				}
				seenOnlyBy(t, server, "c-"+id, token, otherToken)
				cancelAnswered(t, server, root, id)
				if n := len(river.all()); n != 1 {
					t.Errorf("sent %d times, want once", n)
				}
			})
		}
	}
}

// cancelAnswered cancels a request that was answered when nobody had seen that yet.
func cancelAnswered(t *testing.T, server *testServer, root, id string) {
	t.Helper()
	server.edit(t, root, id, `{"state":"failed"}`)
	if request := awaitRequest(t, server, id, store.Answered); request.GetString("record") == "" || request.GetString("error") != "" {
		t.Errorf("got %v, want it answered still", request)
	}
}

// What is cancelled while it is sent, and not taken, is not sent again.
func TestCancelledIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 422, 502} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			answer, began, let := held(t)
			server, river := newAskServer(t, answer)
			_, token := newUser(t, server, "asker@example.com")
			id := server.mustAsk(t, token)
			<-began
			server.edit(t, superuserToken(t, server), id, `{"state":"failed","error":"Too long."}`)
			let <- answerStatus(status)
			awaitAttempts(t, server)
			failed := awaitRequest(t, server, id, store.Failed)
			if failed.GetString("error") != "Too long." || (failed.GetString("expires") != "") != (status == 502) || len(river.all()) != 1 {
				t.Errorf("got %v, sent %d times", failed, len(river.all()))
			}
		})
	}
}

// A request that is cancelled at the moment in which it is claimed is sent or not, and its
// user reads which.
func TestCancelBesideTheClaim(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	var ids []string
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		for _, cancel := range waysToCancel {
			for range 2 {
				wg.Go(func() {
					id := server.mustAsk(t, token)
					request, err := server.FindRecordById(store.Requests, id)
					mu.Lock()
					ids = append(ids, id)
					mu.Unlock()
					if err == nil && request.GetString("state") != store.Failed {
						cancel(t, server, root, id)
					}
				})
			}
		}
	}
	wg.Wait()
	awaitAttempts(t, server)
	sent := map[string]int{}
	for _, request := range river.all() {
		for _, id := range ids {
			sent[id] += strings.Count(request.body, `"request_id":"`+id+`"`)
		}
	}
	for _, id := range ids {
		failed := awaitRequest(t, server, id, store.Failed)
		want, channel, times := cancelledUnsent, "", 0
		if sent[id] > 0 {
			want, channel, times = cancelledSent, "c-"+id, 2 // in the body and its metadata
		}
		if failed.GetString("error") != want || failed.GetString("channelId") != channel || sent[id] != times || failed.GetString("expires") != "" {
			t.Errorf("sent %d times: got %v", sent[id]/2, failed)
		}
	}
}

// PocketBase's form saves all fields as it had loaded them, however long ago. What became of
// the request since is neither undone nor paid twice.
func TestOldFormSendsNothingAgain(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, river := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	old := make(chan string, 1)
	server.OnRecordAfterCreateSuccess(store.Requests).BindFunc(func(e *core.RecordEvent) error {
		form, err := e.Record.MarshalJSON()
		old <- strings.Replace(string(form), `"workflow":"story"`, `"workflow":"poem"`, 1)
		if err != nil {
			return err
		}
		return e.Next()
	})
	id := server.mustAsk(t, token)
	form := <-old
	<-began
	same := func(when string) {
		before, err := server.FindRecordById(store.Requests, id)
		if err != nil {
			t.Fatal(err)
		}
		server.edit(t, root, id, `{"workflow":"story"}`)
		for _, fields := range []string{form, `{"nextAttempt":"2026-01-01 00:00:00.000Z","attempts":0,"state":"queued"}`} {
			server.edit(t, root, id, fields)
			after, err := server.FindRecordById(store.Requests, id)
			if err != nil || after.GetString("workflow") != "poem" {
				t.Fatalf("%s: got %v, %v, want the new workflow", when, after, err)
			}
			for _, field := range []string{"state", "attempts", "nextAttempt", "expires", "channelId", "record", "error"} {
				if got, want := after.GetString(field), before.GetString(field); got != want {
					t.Errorf("%s: %s: got %q, want %q as before", when, field, got, want)
				}
			}
		}
	}
	same("while it is sent")
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c-"+id) }
	awaitRequest(t, server, id, store.Sent)
	same("sent")
	server.mustPost(t, completed("c-"+id, "The lighthouse", ""))
	awaitRequest(t, server, id, store.Answered)
	same("answered")

	river.setAnswer(answerStatus(502))
	id = server.mustAsk(t, token)
	form = <-old
	awaitRequest(t, server, id, store.Failed)
	same("failed")
	if n := len(river.all()); n != 2 {
		t.Errorf("sent %d requests, want each once", n)
	}
}

// PocketBase writes all fields of a record, also those that the claim changes: it has to wait
// until they are written.
func TestEditHoldsOffTheClaim(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, nil)
	river.setAnswer(func(w http.ResponseWriter, r *http.Request) {
		if len(river.all()) == 1 {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(503)
			return
		}
		answerChannels(w, r)
	})
	_, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	eventually(t, "it waits", func() bool {
		request, err := server.FindRecordById(store.Requests, id)
		return err == nil && request.GetInt("attempts") >= 1 && request.GetString("nextAttempt") != ""
	})
	server.OnModelUpdateExecute(store.Requests).BindFunc(func(e *core.ModelEvent) error {
		if record, ok := e.Model.(*core.Record); ok && record.GetString("workflow") == "poem" && record.Original().GetString("workflow") == "story" {
			due := record.GetDateTime("nextAttempt").Time()
			eventually(t, "it is due", func() bool { return server.plugin.outbox.Now().After(due.Add(300 * time.Millisecond)) })
		}
		return e.Next()
	})
	server.edit(t, root, id, `{"workflow":"poem"}`)
	sent := awaitRequest(t, server, id, store.Sent)
	server.mustAsk(t, token)
	all := river.await(t, 3)
	if sent.GetInt("attempts") != 2 || len(all) != 3 || !strings.Contains(all[1].body, `"workflow":"poem"`) {
		t.Errorf("got %v, sent %v, want the first one twice, with the edit", sent, all)
	}
}

// An app's own transaction of auxiliary.db around an edit of a request is none that keeps the
// request from being claimed meanwhile.
func TestEditWithinAuxiliaryTransaction(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerStatus(400))
	_, token := newUser(t, server, "asker@example.com")
	request := awaitRequest(t, server, server.mustAsk(t, token), store.Failed)
	var saved, alone atomic.Bool
	server.OnModelUpdateExecute(store.Requests).BindFunc(func(e *core.ModelEvent) error {
		if _, inTransaction := e.App.NonconcurrentDB().(*dbx.Tx); !inTransaction {
			alone.Store(true)
		}
		saved.Store(true)
		return e.Next()
	})
	err := server.AuxRunInTransaction(func(aux core.App) error {
		request.Set("error", "My own words")
		return aux.Save(request)
	})
	if err != nil || !saved.Load() {
		t.Fatal(err)
	}
	if alone.Load() {
		t.Error("the request was read and written in no transaction")
	}
}

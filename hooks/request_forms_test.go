package hooks

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// formOf is what PocketBase's form of a request saves: all fields, as it had loaded them.
func formOf(t *testing.T, app core.App, id string) string {
	t.Helper()
	r, err := app.FindRecordById(store.Requests, id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A form that was loaded while a request was sent makes none wait for ever.
func TestOldFormKeepsTheNextAttempt(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, river := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	<-began
	form := formOf(t, server, id)
	river.setAnswer(answerChannels)
	let <- answerStatus(429)
	eventually(t, "waits", func() bool {
		r, err := server.FindRecordById(store.Requests, id)
		return err == nil && r.GetString("nextAttempt") != ""
	})
	server.edit(t, root, id, form)
	awaitRequest(t, server, id, store.Sent)
}

// An answer belongs to its user though an old form is saved meanwhile.
func TestOldFormKeepsTheChannel(t *testing.T) {
	t.Parallel()
	for _, stale := range []string{"answered", "sent"} {
		t.Run(stale, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			server, _ := newAskServer(t, func(w http.ResponseWriter, r *http.Request) {
				answerChannel(w, fmt.Sprint("c", n.Add(1)))
			})
			_, token := newUser(t, server, "asker@example.com")
			_, other := newUser(t, server, "other@example.com")
			root := superuserToken(t, server)
			id := server.mustAsk(t, token)
			awaitRequest(t, server, id, store.Sent)
			if stale == "answered" {
				server.mustPost(t, completed("c1", "First", ""))
				awaitRequest(t, server, id, store.Answered)
			}
			form := formOf(t, server, id)
			server.edit(t, root, id, `{"state":"queued"}`)
			eventually(t, "sent again", func() bool {
				r, err := server.FindRecordById(store.Requests, id)
				return err == nil && r.GetString("channelId") == "c2"
			})
			server.edit(t, root, id, form)
			server.mustPost(t, completed("c2", "Secret", ""))
			seenOnlyBy(t, server, "c2", token, other)
		})
	}
}

// The same, of one that was cancelled while it was sent.
func TestOldFormOfACancelledRequest(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	<-began
	server.edit(t, root, id, `{"state":"failed"}`)
	form := formOf(t, server, id)
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c1") }
	eventually(t, "known", func() bool {
		r, err := server.FindRecordById(store.Requests, id)
		return err == nil && r.GetString("channelId") == "c1"
	})
	server.edit(t, root, id, form)
	server.mustPost(t, completed("c1", "Late", ""))
	seenOnlyBy(t, server, "c1", token)
}

// The same, while nobody knows whether ModelRiver took the request.
func TestOldFormKeepsWhatIsUnknown(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerStatus(422))
	_, token := newUser(t, server, "asker@example.com")
	_, other := newUser(t, server, "other@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Failed)
	form := formOf(t, server, id)
	river.setAnswer(answerStatus(502))
	server.edit(t, root, id, `{"state":"queued"}`)
	eventually(t, "unknown", func() bool {
		r, err := server.FindRecordById(store.Requests, id)
		return err == nil && r.GetString("state") == store.Failed && r.GetString("expires") != ""
	})
	server.edit(t, root, id, form)
	server.mustPost(t, completed("c1", "Secret", ""))
	seenOnlyBy(t, server, "c1", "", other)
}

// Of two attempts, the second's refusal says nothing of the first, whose outcome is unknown.
func TestRefusalOfTheSecondAttempt(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	_, other := newUser(t, server, "other@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	<-began
	let <- answerStatus(502)
	awaitRequest(t, server, id, store.Failed)
	server.edit(t, root, id, `{"state":"queued"}`)
	<-began
	server.edit(t, root, id, `{"state":"failed"}`)
	if status, body := server.call(t, token, http.MethodDelete, requestsPath+"/"+id, ""); status != 204 { // its user
		t.Fatal(status, body)
	}
	let <- answerStatus(422)
	awaitAttempts(t, server)
	server.mustPost(t, completed("c1", "Secret", ""))
	seenOnlyBy(t, server, "c1", "", other)
}

// Of two attempts, each has a channel of its own, though the request is gone.
func TestChannelsOfTwoAttempts(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	_, other := newUser(t, server, "other@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	<-began
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c1") }
	awaitRequest(t, server, id, store.Sent)
	server.edit(t, root, id, `{"state":"queued"}`)
	<-began
	server.edit(t, root, id, `{"state":"failed"}`)
	if status, body := server.call(t, token, http.MethodDelete, requestsPath+"/"+id, ""); status != 204 {
		t.Fatal(status, body)
	}
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c2") }
	awaitAttempts(t, server)
	server.mustPost(t, completed("c1", "First", ""))
	server.mustPost(t, completed("c2", "Second", ""))
	server.mustPost(t, completed("public", "Public", ""))
	seenOnlyBy(t, server, "c1", token, other)
	seenOnlyBy(t, server, "c2", token, other)
	if owner := contentOf(t, server, "public").GetString("userId"); owner != "" {
		t.Errorf("public content belongs to %q", owner)
	}
}

// limitTwice is the quota of the recipes.
func limitTwice(e *core.RecordRequestEvent) error {
	app := e.App
	defer func() { e.App = app }()
	return app.RunInTransaction(func(tx core.App) error {
		e.App = tx
		since := store.DateTime(time.Now().Add(-24 * time.Hour))
		asked := int64(0)
		for collection, created := range map[string]string{"aiRequests": "created", "modelriverChannels": "asked"} {
			count, err := tx.CountRecords(collection, dbx.NewExp("userId = {:user} AND "+created+" > {:since}", dbx.Params{"user": e.Auth.Id, "since": since}))
			if err != nil {
				return err
			}
			asked += count
		}
		if asked >= 2 {
			return e.TooManyRequestsError("You have asked twice today. Come back tomorrow.", nil)
		}
		return e.Next()
	})
}

// What is deleted, by its user or by the retention, counts by when it was asked.
func TestQuotaCountsWhenWasAsked(t *testing.T) {
	t.Parallel()
	for name, age := range map[string]time.Duration{"retention": 46 * 24 * time.Hour, "by its user": 48 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, _ := newAskServer(t, answerChannels)
			server.OnRecordCreateRequest(store.Requests).BindFunc(limitTwice)
			_, token := newUser(t, server, "asker@example.com")
			var ids []string
			for range 2 {
				id := server.mustAsk(t, token)
				awaitRequest(t, server, id, store.Sent)
				server.mustPost(t, completed("c-"+id, "A", ""))
				awaitRequest(t, server, id, store.Answered)
				ids = append(ids, id)
			}
			_, err := server.NonconcurrentDB().NewQuery("UPDATE aiRequests SET created = {:c}, updated = {:c}").Bind(dbx.Params{"c": store.DateTime(time.Now().Add(-age))}).Execute()
			if err != nil {
				t.Fatal(err)
			}
			if name == "retention" {
				for _, job := range server.Cron().Jobs() {
					if job.Id() == "modelriverRetention" {
						job.Run()
					}
				}
			} else {
				for _, id := range ids {
					server.call(t, token, http.MethodDelete, requestsPath+"/"+id, "")
				}
			}
			if n := len(records(t, server, store.Requests)); n != 0 {
				t.Fatalf("%d left", n)
			}
			status, body := server.call(t, token, http.MethodPost, requestsPath, `{"workflow":"story","input":{}}`)
			if status != 200 {
				t.Errorf("asked nothing for two days: got %d %s", status, body)
			}
		})
	}
}

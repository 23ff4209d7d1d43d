package hooks

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// From the question to the answer, as its asker sees it live.
func TestAsk(t *testing.T) {
	t.Parallel()
	var server *testServer
	claimed := make(chan string, 1)
	server, river := newAskServer(t, func(w http.ResponseWriter, r *http.Request) {
		id := requestID(r)
		request, err := server.FindRecordById(store.Requests, id)
		if err == nil {
			claimed <- fmt.Sprint(request.GetString("state"), request.GetInt("attempts"), request.GetString("nextAttempt"))
		}
		answerChannel(w, "c-"+id)
	})
	asker, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	mine := server.Subscribe(t, token, "aiRequests/*", "aiContent/*")
	asked := server.Subscribe(t, token, leaving("aiRequests/*", `state != "answered"`)) // as the page lists what is asked
	others := server.Subscribe(t, otherToken, "aiRequests/*", "aiContent/*")
	guests := server.Subscribe(t, "", "aiRequests/*", "aiContent/*")

	id := server.mustAsk(t, token)
	if got := <-claimed; got != "queued1" {
		t.Errorf("while it is sent: got %q, want the claim committed", got)
	}
	sent := awaitRequest(t, server, id, store.Sent)
	if left := time.Until(sent.GetDateTime("expires").Time()); sent.GetString("channelId") != "c-"+id || left < 3*time.Hour || left > 5*time.Hour {
		t.Errorf("sent: got %v", sent)
	}
	request := river.await(t, 1)[0]
	want := fmt.Sprintf(`{"messages":[{"content":"A lighthouse","role":"user"}],"request_id":%q,"user_id":%q,"metadata":{"request_id":%q,"user_id":%q},"workflow":"story"}`, id, asker.Id, id, asker.Id)
	if request.body != want || request.path != "/v1/ai/async" || request.header.Get("Authorization") != "Bearer "+testKey {
		t.Errorf("sent: got %+v\nwant %s", request, want)
	}

	server.mustPost(t, completed("c-"+id, "The lighthouse", ""))
	content := only(t, server, store.Content)
	answered := awaitRequest(t, server, id, store.Answered)
	if answered.GetString("record") != content.Id || content.GetString("userId") != asker.Id || answered.GetString("expires") != "" {
		t.Errorf("answered: got %v by %v", answered, content)
	}
	_, view := server.get(t, requestsPath+"/"+id+"?expand=record", token)
	if expanded, _ := view["expand"].(map[string]any); expanded == nil || expanded["record"].(map[string]any)["title"] != "The lighthouse" {
		t.Errorf("expand: got %v", view)
	}

	var seen string
	eventually(t, "the asker sees each state live", func() bool {
		seen += strings.Join(mine.Take(), "\n")
		return strings.Contains(seen, `"state":"queued"`) && strings.Contains(seen, `"state":"sent"`) &&
			strings.Contains(seen, `"state":"answered"`) && strings.Contains(seen, "The lighthouse")
	})
	var told string
	eventually(t, "the answered one leaves what is asked", func() bool {
		told += strings.Join(asked.Take(), "\n")
		return strings.Contains(told, `"state":"sent"`) && strings.Contains(told, `"action":"leave"`)
	})
	server.mustPost(t, `{"type":"task.completed","channel_id":"public","data":{"title":"Public"}}`)
	for name, stream := range map[string]func() []string{"another user": others.Take, "a guest": guests.Take} {
		var seen string
		eventually(t, "the public record is seen", func() bool {
			seen += strings.Join(stream(), "\n")
			return strings.Contains(seen, "Public")
		})
		if strings.Contains(seen, id) || strings.Contains(seen, "lighthouse") {
			t.Errorf("%s sees what is another's: %s", name, seen)
		}
	}
	noSocketToken(t, server)
}

// noSocketToken fails if the token of the answer's socket is in the database or the log.
func noSocketToken(t *testing.T, server *testServer) {
	t.Helper()
	if strings.Contains(logRows(t, server), "secret-socket-token") {
		t.Error("the log has the token")
	}
	files, err := filepath.Glob(filepath.Join(server.DataDir(), "*.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got files %v, %v", files, err)
	}
	for _, file := range files {
		if raw, err := os.ReadFile(file); err != nil || strings.Contains(string(raw), "secret-socket-token") || strings.Contains(string(raw), testKey) {
			t.Errorf("%s has token or key (%v)", file, err)
		}
	}
}

// A request of a batch that is undone is never sent, and one of a batch that is not, after
// it.
func TestBatchIsSentAfterItsCommit(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	ask := func(workflow string) string {
		return fmt.Sprintf(`{"method":"POST","url":%q,"body":{"workflow":%q,"input":{}}}`, requestsPath, workflow)
	}
	status, answer := server.call(t, token, http.MethodPost, "/api/batch", `{"requests":[`+ask("undone")+`,`+ask("")+`]}`)
	if status != 400 {
		t.Fatalf("got %d %s, want 400", status, answer)
	}
	status, answer = server.call(t, token, http.MethodPost, "/api/batch", `{"requests":[`+ask("one")+`,`+ask("two")+`]}`)
	if status != 200 {
		t.Fatalf("got %d %s, want 200", status, answer)
	}
	for _, request := range river.await(t, 2) {
		if strings.Contains(request.body, "undone") {
			t.Errorf("sent: %s", request.body)
		}
	}
	for _, request := range records(t, server, store.Requests) {
		awaitRequest(t, server, request.Id, store.Sent)
	}
	if n := len(river.all()); n != 2 {
		t.Errorf("sent %d, want 2", n)
	}
}

// The outcomes of an attempt, end to end; the judge's test has them all.
func TestOutcomesOfAsking(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		reason string
		logged string
		open   bool
	}{
		{"refused", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(422)
			_, _ = io.WriteString(w, `{"error":{"message":"messages are missing"}}`)
		}, "messages are missing", "422", false},
		{"the key is not accepted", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			_, _ = io.WriteString(w, `{"error":{"message":"invalid API key"}}`)
		}, "Asking is not set up on this server. Its operator finds the cause in the log.", "set MODELRIVER_API_KEY", false},
		{"answered with an error", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"data":null,"error":{"message":"all providers failed"}}`)
		}, "all providers failed", "all providers failed", false},
		{"unknown", answerStatus(502), "It is not known whether ModelRiver took the request, so it is not sent again by itself. If an answer comes, it is shown.", "502", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server, river := newAskServer(t, row.answer)
			_, token := newUser(t, server, "asker@example.com")
			failed := awaitRequest(t, server, server.mustAsk(t, token), store.Failed)
			if failed.GetString("error") != row.reason || failed.GetDateTime("expires").IsZero() == row.open {
				t.Errorf("got %v, want %q, open %t", failed, row.reason, row.open)
			}
			if log := logRows(t, server); !strings.Contains(log, row.logged) || strings.Contains(log, "lighthouse") {
				t.Errorf("log: want %q in it, and no input: %s", row.logged, log)
			}
			time.Sleep(50 * time.Millisecond)
			if n := len(river.all()); n != 1 {
				t.Errorf("sent %d times, want once", n)
			}
		})
	}
}

func TestAskIsTriedAgain(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, nil)
	river.setAnswer(func(w http.ResponseWriter, r *http.Request) {
		if len(river.all()) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			return
		}
		answerChannels(w, r)
	})
	_, token := newUser(t, server, "asker@example.com")
	sent := awaitRequest(t, server, server.mustAsk(t, token), store.Sent)
	if sent.GetInt("attempts") != 2 || len(river.all()) != 2 {
		t.Errorf("got %d attempts, %d sent, want 2", sent.GetInt("attempts"), len(river.all()))
	}
}

func TestAskWithoutKey(t *testing.T) {
	t.Parallel()
	river := newReceiver(t, answerChannels)
	config := askConfig(river)
	config.APIKey = ""
	server := newTestServer(t, config)
	openRequests(t, server)
	_, token := newUser(t, server, "asker@example.com")
	failed := awaitRequest(t, server, server.mustAsk(t, token), store.Failed)
	if reason := failed.GetString("error"); strings.Contains(reason, "KEY") || !strings.Contains(reason, "not set up") {
		t.Errorf("the asker is told %q", reason)
	}
	if log := logRows(t, server); !strings.Contains(log, "set MODELRIVER_API_KEY") || len(river.all()) != 0 {
		t.Errorf("log: want the remedy: %s", log)
	}
}

// At a start, what was never claimed is sent, and what was claimed is not: nobody knows what
// became of it. If its answer comes after all, it is healed.
func TestAskAfterACrash(t *testing.T) {
	t.Parallel()
	river := newReceiver(t, answerChannels)
	app, p := newTestApp(t, askConfig(river))
	user, _ := newUser(t, app, "asker@example.com")
	insert := func(id string, set dbx.Params) {
		request := core.NewRecord(mustFindCollection(t, app, store.Requests))
		request.Load(map[string]any{"id": id, "workflow": "story", "input": map[string]any{}, "userId": user.Id})
		if err := app.Save(request); err != nil {
			t.Fatal(err)
		}
		if _, err := app.NonconcurrentDB().Update(store.Requests, set, dbx.HashExp{"id": id}).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	insert("neverclaimed000", dbx.Params{"expires": store.DateTime(time.Now().Add(-time.Hour))})
	insert("claimedandcut00", dbx.Params{"attempts": 1, "nextAttempt": ""})
	server := serve(t, app, p)
	awaitRequest(t, server, "neverclaimed000", store.Sent)
	unknown := awaitRequest(t, server, "claimedandcut00", store.Failed)
	if !strings.HasPrefix(unknown.GetString("error"), "It is not known whether") {
		t.Errorf("got %v", unknown)
	}
	if sent := river.all(); len(sent) != 1 || !strings.Contains(sent[0].body, "neverclaimed000") {
		t.Errorf("sent: got %v, want only what was never claimed", sent)
	}
	server.mustPost(t, completed("late", "Late", `{"metadata.request_id":"claimedandcut00"}`))
	healed := awaitRequest(t, server, "claimedandcut00", store.Answered)
	if healed.GetString("error") != "" || healed.GetString("channelId") != "late" || contentOf(t, server, "late").GetString("userId") != user.Id {
		t.Errorf("got %v, want it healed", healed)
	}
}

func mustFindCollection(t testing.TB, app core.App, name string) *core.Collection {
	t.Helper()
	collection, err := app.FindCollectionByNameOrId(name)
	if err != nil {
		t.Fatal(err)
	}
	return collection
}

// An answer that is not there after all of ModelRiver's attempts is not waited for, and is
// shown if it comes all the same.
func TestAskThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	river := newReceiver(t, answerChannels)
	app, p := newTestApp(t, askConfig(river))
	openRequests(t, app)
	_, token := newUser(t, app, "asker@example.com")
	server := serve(t, app, p)
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	p.outbox.Stop()
	past := dbx.Params{"expires": store.DateTime(time.Now().Add(-time.Minute))}
	if _, err := app.NonconcurrentDB().Update(store.Requests, past, dbx.HashExp{"id": id}).Execute(); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(2 * time.Minute)
	p.outbox.Now = func() time.Time { return later }
	p.outbox.Start()
	if failed := awaitRequest(t, server, id, store.Failed); !strings.Contains(failed.GetString("error"), "No answer came") {
		t.Errorf("got %v", failed)
	}
	server.mustPost(t, completed("c-"+id, "Late", ""))
	awaitRequest(t, server, id, store.Answered)
}

// Set back to queued, by the retry command or in the dashboard, a request is asked again; set to
// failed before it is sent, it is not.
func TestRequestIsEditedByHand(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerStatus(502))
	user, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Failed)
	river.setAnswer(answerChannels)
	edit := func(id, state string) {
		if status, answer := server.call(t, root, http.MethodPatch, requestsPath+"/"+id, fmt.Sprintf(`{"state":%q}`, state)); status != 200 {
			t.Fatalf("got %d %s", status, answer)
		}
	}
	_, err := runCommand(server.plugin, "retry", id)
	wantError(t, err, "give --ask-again")
	out := mustRun(t, server.plugin, "retry", "--ask-again", id)
	wantLines(t, out, `^1 request to be sent again`)
	_, err = runCommand(server.plugin, "retry", "--ask-again", "norequesthasit0")
	wantError(t, err, "there is no such request")
	if sent := awaitRequest(t, server, id, store.Sent); sent.GetString("error") != "" {
		t.Errorf("got %v", sent)
	}
	// The answer to the attempt of which nobody knew is still this user's.
	server.mustPost(t, completed("first", "First", fmt.Sprintf(`{"request_id":%q}`, id)))
	if owner := contentOf(t, server, "first").GetString("userId"); owner != user.Id {
		t.Errorf("the answer to the first attempt is of user %q", owner)
	}

	river.setAnswer(answerStatus(503))
	id = server.mustAsk(t, token)
	eventually(t, "it waits", func() bool {
		request, err := server.FindRecordById(store.Requests, id)
		return err == nil && request.GetInt("attempts") == 1 && request.GetString("nextAttempt") != ""
	})
	edit(id, store.Failed)
	before := len(river.all())
	time.Sleep(1500 * time.Millisecond)
	if after := len(river.all()); after != before {
		t.Errorf("a request that was cancelled was sent %d times more", after-before)
	}
}

// Whoever saves a request again that was loaded or created before it was sent, as a hook may,
// has nothing sent again.
func TestSavingAnOldRequestSendsNothingAgain(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	old := make(chan *core.Record, 1)
	server.OnRecordAfterCreateSuccess(store.Requests).BindFunc(func(e *core.RecordEvent) error {
		err := e.Next()
		old <- e.Record
		return err
	})
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	sent := awaitRequest(t, server, id, store.Sent)
	if err := server.Save(<-old); err != nil {
		t.Fatal(err)
	}
	now, err := server.FindRecordById(store.Requests, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"state", "attempts", "nextAttempt", "channelId", "expires"} {
		if got, want := now.GetString(field), sent.GetString(field); got != want {
			t.Errorf("%s: got %s, want %s as before", field, got, want)
		}
	}
	second := server.mustAsk(t, token) // comes after whatever the save has had sent
	awaitRequest(t, server, second, store.Sent)
	if all := river.await(t, 2); len(all) != 2 {
		t.Errorf("got %d requests, want one for each", len(all))
	}

	stale, err := server.FindRecordById(store.Requests, second)
	if err != nil {
		t.Fatal(err)
	}
	server.mustPost(t, completed(stale.GetString("channelId"), "The lighthouse", ""))
	awaitRequest(t, server, second, store.Answered)
	if err := server.Save(stale); err != nil {
		t.Fatal(err)
	}
	awaitRequest(t, server, second, store.Answered)
}

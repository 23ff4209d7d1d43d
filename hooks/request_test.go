package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Of a request a client decides the workflow and the input, however it creates it.
func TestClientDecidesWorkflowAndInput(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	asker, token := newUser(t, server, "asker@example.com")
	other, _ := newUser(t, server, "other@example.com")
	server.mustPost(t, completed("c1", "Another's", fmt.Sprintf(`{"user_id":%q}`, other.Id)))
	content := only(t, server, store.Content)

	body := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"workflow":"story","input":{"n":1},"userId":%q,"state":"answered","channelId":"c1","record":%q,
			"error":"mine","attempts":7,"nextAttempt":"2040-01-01 00:00:00.000Z","expires":"2040-01-01 00:00:00.000Z","created":"2001-01-01 00:00:00.000Z"}`,
			id, other.Id, content.Id)
	}
	batch := func(method, id string) string {
		return fmt.Sprintf(`{"requests":[{"method":%q,"url":%q,"body":%s}]}`, method, requestsPath, body(id))
	}
	for name, send := range map[string]func() (int, string){
		"single": func() (int, string) {
			return server.call(t, token, http.MethodPost, requestsPath, body("idofmychoice001"))
		},
		"batch": func() (int, string) {
			return server.call(t, token, http.MethodPost, "/api/batch", batch("POST", "idofmychoice002"))
		},
		"batch upsert": func() (int, string) {
			return server.call(t, token, http.MethodPost, "/api/batch", batch("PUT", "idofmychoice003"))
		},
	} {
		if status, answer := send(); status != 200 || !strings.Contains(answer, `"state":"queued"`) || strings.Contains(answer, "idofmychoice") {
			t.Errorf("%s: got %d %s, want it queued under another id", name, status, answer)
		}
	}
	river.await(t, 3)
	for _, request := range records(t, server, store.Requests) {
		sent := awaitRequest(t, server, request.Id, store.Sent)
		if sent.GetString("userId") != asker.Id || sent.GetString("channelId") != "c-"+sent.Id || sent.GetString("record") != "" ||
			sent.GetInt("attempts") != 1 || sent.GetString("error") != "" || sent.GetDateTime("created").Time().Year() < 2026 {
			t.Errorf("got %v, want only workflow and input as the client set them", sent)
		}
	}
	if n := len(records(t, server, store.Requests)); n != 3 {
		t.Errorf("got %d requests, want 3", n)
	}
}

func TestInputIsChecked(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	root := superuserToken(t, server)
	inputs := map[string]string{
		`"text"`: "object", `[1]`: "object", `1`: "object", `null`: "object",
		`{"metadata":[]}`: "Its metadata must be", `{"metadata":"x"}`: "Its metadata must be",
		`{"metadata":{"request_id":"x"}}`: "sets metadata.request_id:", `{"metadata":{"user_id":null}}`: "sets metadata.user_id:",
		`{"metadata.user_id":"x"}`:                              "metadata.user_id",
		`{"x":"` + strings.Repeat("y", 256<<10) + `"}`:          "262144 bytes",
		`{"messages":[],"webhook_url":"https://evil.example/"}`: "sets webhook_url:",
	}
	for _, name := range serversNames {
		inputs[fmt.Sprintf(`{%q:null}`, name)] = "sets " + name + ":"
	}
	for input, want := range inputs {
		body := `{"workflow":"story","input":` + input + `}`
		single, answer := server.call(t, token, http.MethodPost, requestsPath, body)
		if single != 400 || !strings.Contains(answer, want) || !strings.Contains(answer, `"input":{"code":"validation_`) {
			t.Errorf("%.60s: got %d %s, want 400 with %q", input, single, answer, want)
		}
		inBatch, answer := server.call(t, token, http.MethodPost, "/api/batch", fmt.Sprintf(`{"requests":[{"method":"POST","url":%q,"body":%s}]}`, requestsPath, body))
		if inBatch != 400 {
			t.Errorf("%.60s in a batch: got %d %s, want 400", input, inBatch, answer)
		}
	}
	if status, answer := server.call(t, token, http.MethodPost, requestsPath, `{"input":{}}`); status != 400 {
		t.Errorf("no workflow: got %d %s, want 400", status, answer)
	}
	for _, input := range []string{`"text"`, `{"metadata":1}`} {
		if status, _ := server.call(t, root, http.MethodPost, requestsPath, `{"workflow":"story","input":`+input+`}`); status != 400 {
			t.Errorf("%s as a superuser: got %d, want 400", input, status)
		}
	}
	if n := len(records(t, server, store.Requests)) + len(river.all()); n != 0 {
		t.Errorf("got %d requests stored or sent, want none", n)
	}
}

// Who may create, change, delete and see requests.
func TestRequestRules(t *testing.T) {
	t.Parallel()
	river := newReceiver(t, answerChannels)
	server := newTestServer(t, askConfig(river))
	_, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	root := superuserToken(t, server)
	const body = `{"workflow":"story","input":{}}`
	for name, who := range map[string]string{"a guest": "", "a user": token} {
		if status, answer := server.call(t, who, http.MethodPost, requestsPath, body); status != 403 {
			t.Errorf("%s asks before the operator opened that: got %d %s, want 403", name, status, answer)
		}
	}
	openRequests(t, server)
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	if status, answer := server.call(t, root, http.MethodPost, requestsPath, body); status != 200 {
		t.Fatalf("a superuser asks: got %d %s", status, answer)
	}
	for who, want := range map[string]int{"": 0, token: 1, otherToken: 0, root: 2} {
		_, list := server.get(t, requestsPath, who)
		if got := len(list["items"].([]any)); got != want {
			t.Errorf("lists %d requests, want %d", got, want)
		}
	}
	for _, who := range []string{"", token, otherToken} {
		if status, _ := server.call(t, who, http.MethodPatch, requestsPath+"/"+id, `{"state":"queued"}`); status != 403 {
			t.Errorf("an update: got %d, want 403", status)
		}
		if status, _ := server.call(t, who, http.MethodDelete, requestsPath+"/"+id, ""); status != 404 {
			t.Errorf("delete of what is not one's own or not ended: got %d, want 404", status)
		}
	}
	server.mustPost(t, completed("c-"+id, "T", ""))
	awaitRequest(t, server, id, store.Answered)
	for _, who := range []string{"", otherToken} {
		if status, _ := server.call(t, who, http.MethodDelete, requestsPath+"/"+id, ""); status != 404 {
			t.Errorf("delete of another's: got %d, want 404", status)
		}
	}
	if status, answer := server.call(t, token, http.MethodDelete, requestsPath+"/"+id, ""); status != 204 {
		t.Errorf("delete of one's own that ended: got %d %s, want 204", status, answer)
	}
	if status, _ := server.get(t, "/api/collections/modelriverChannels/records", token); status != 403 {
		t.Errorf("a user lists channels: got %d, want 403", status)
	}
}

// A superuser asks for a user, who sees request and answer.
func TestSuperuserAsksForUser(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	user, token := newUser(t, server, "user@example.com")
	status, answer := server.call(t, superuserToken(t, server), http.MethodPost, requestsPath,
		fmt.Sprintf(`{"workflow":"story","input":{"model":"my own"},"userId":%q}`, user.Id))
	if status != 200 {
		t.Fatalf("got %d %s", status, answer)
	}
	id := only(t, server, store.Requests).Id
	awaitRequest(t, server, id, store.Sent)
	var body struct {
		Model     string
		UserID    string `json:"user_id"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(river.await(t, 1)[0].body), &body); err != nil || body.UserID != user.Id || body.RequestID != id || body.Model != "my own" {
		t.Errorf("sent: got %+v %v", body, err)
	}
	server.mustPost(t, completed("c-"+id, "T", ""))
	if status, _ := server.get(t, "/api/collections/aiContent/records/"+contentOf(t, server, "c-"+id).Id, token); status != 200 {
		t.Errorf("the user reads the answer: got %d, want 200", status)
	}
}

// A host's hooks run after the forcing: they may refuse, add to the input, and count in the
// transaction.
func TestHostsHooksDecideAfterTheForcing(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	server.OnRecordCreateRequest(store.Requests).BindFunc(func(e *core.RecordRequestEvent) error {
		if e.Record.GetString("workflow") != "story" {
			return e.ForbiddenError("This workflow is not yours to ask.", nil)
		}
		if e.Record.GetString("state") != "" || e.Record.GetString("userId") != e.Auth.Id {
			t.Errorf("the hook sees %v, want it forced already", e.Record)
		}
		e.Record.Set("input", map[string]any{"context": "of the server", "events": []string{"new_content"}})
		return e.Next()
	})
	if status, _ := server.call(t, token, http.MethodPost, requestsPath, `{"workflow":"other","input":{}}`); status != 403 {
		t.Errorf("a workflow that is not allowed: got %d, want 403", status)
	}
	if status, answer := server.call(t, token, http.MethodPost, requestsPath, `{"workflow":"story","input":{},"state":"sent"}`); status != 200 {
		t.Fatalf("got %d %s", status, answer)
	}
	if body := river.await(t, 1)[0].body; !strings.Contains(body, `"context":"of the server"`) || !strings.Contains(body, `"events":["new_content"]`) {
		t.Errorf("sent: got %s, want what the hook added", body)
	}
}

// A quota that is counted in the transaction of the create is not passed by requests that
// come at the same time.
func TestQuotaHoldsForParallelCreates(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	const quota = 3
	server.OnRecordCreateRequest(store.Requests).BindFunc(func(e *core.RecordRequestEvent) error {
		app := e.App
		defer func() { e.App = app }()
		return app.RunInTransaction(func(tx core.App) error {
			e.App = tx
			asked, err := tx.FindRecordsByFilter(store.Requests, `userId = {:user} && created > @todayStart`, "", 0, 0, map[string]any{"user": e.Auth.Id})
			if err != nil {
				return err
			}
			if len(asked) >= quota {
				return e.TooManyRequestsError("You have asked enough today.", nil)
			}
			return e.Next()
		})
	})
	statuses := make(chan int, 20)
	for range cap(statuses) {
		go func() {
			status, _ := server.call(t, token, http.MethodPost, requestsPath, `{"workflow":"story","input":{}}`)
			statuses <- status
		}()
	}
	got := map[int]int{}
	for range cap(statuses) {
		got[<-statuses]++
	}
	if got[200] != quota || got[429] != cap(statuses)-quota {
		t.Errorf("answers: got %v, want %d of 200 and the others 429", got, quota)
	}
	river.await(t, quota)
	if n := len(records(t, server, store.Requests)); n != quota || len(river.all()) != quota {
		t.Errorf("got %d requests, %d sent, want %d", n, len(river.all()), quota)
	}
}

package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// seenOnlyBy fails unless the content of the channel is listed to the owner and to nobody
// else.
func seenOnlyBy(t *testing.T, server *testServer, channel, owner string, others ...string) {
	t.Helper()
	path := "/api/collections/aiContent/records?filter=channelId=%22" + channel + "%22"
	seen := func(token string) bool {
		_, list := server.get(t, path, token)
		return len(list["items"].([]any)) > 0
	}
	if owner != "" && !seen(owner) {
		t.Errorf("the owner does not see the content of %s", channel)
	}
	for _, other := range append(others, "") {
		if seen(other) {
			t.Errorf("the content of %s is seen by another", channel)
		}
	}
}

// held makes the receiver answer when the test says so.
func held(t *testing.T) (answer http.HandlerFunc, began chan string, let chan http.HandlerFunc) {
	began, let = make(chan string, 10), make(chan http.HandlerFunc)
	return func(w http.ResponseWriter, r *http.Request) {
		id := requestID(r)
		began <- id
		select {
		case answer := <-let:
			answer(w, r)
		case <-t.Context().Done():
		}
	}, began, let
}

// An answer that overtakes the channel id by which it is known is not stored until then: it
// would be everybody's.
func TestAnswerThatOvertakes(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	server.mustPost(t, completed("before", "Public", "")) // nothing is being sent
	id := server.mustAsk(t, token)
	<-began

	for range 2 {
		request := completed("overtaking", "Secret", "")
		header := http.Header{}
		status, body := server.post(t, request, nil)
		if status != 503 || !strings.Contains(body, "may be its answer") {
			t.Fatalf("got %d %s %v, want 503", status, body, header)
		}
	}
	server.mustPost(t, completed("before", "Public", "")) // a duplicate is none of its business
	server.mustPost(t, completed("named", "Named", `{"user_id":"someoneelse0000"}`))
	if n := len(records(t, server, store.Content)); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "overtaking") }
	awaitRequest(t, server, id, store.Sent)
	server.mustPost(t, completed("overtaking", "Secret", ""))
	awaitRequest(t, server, id, store.Answered)
	seenOnlyBy(t, server, "overtaking", token, otherToken)
	server.mustPost(t, completed("after", "Public", ""))
	if owner := contentOf(t, server, "after").GetString("userId"); owner != "" {
		t.Errorf("content that nobody asked for belongs to %q", owner)
	}
}

// With an echoed id an overtaking answer is known at once, and its channel when it comes.
func TestAnswerThatOvertakesWithItsId(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	for _, echo := range []string{"request_id", "metadata.request_id"} {
		id := server.mustAsk(t, token)
		<-began
		server.mustPost(t, completed("c-"+id, "Secret", fmt.Sprintf(`{%q:%q}`, echo, id)))
		awaitRequest(t, server, id, store.Answered)
		let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c-"+id) }
		awaitAttempts(t, server)
		answered := awaitRequest(t, server, id, store.Answered)
		if answered.GetString("record") != contentOf(t, server, "c-"+id).Id || answered.GetString("channelId") != "c-"+id {
			t.Errorf("got %v", answered)
		}
		seenOnlyBy(t, server, "c-"+id, token, otherToken)
	}
}

// An answer that names only its user is stored for that user, and given to its request once
// the channel is known.
func TestAnswerThatOvertakesWithItsUser(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	asker, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	id := server.mustAsk(t, token)
	<-began
	server.mustPost(t, completed("named", "Secret", fmt.Sprintf(`{"user_id":%q}`, asker.Id)))
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "named") }
	awaitRequest(t, server, id, store.Answered)
	seenOnlyBy(t, server, "named", token, otherToken)
}

// Only requests that were being sent when a webhook came first can be what it answers, so
// that it is put off for one time-out at most, however many follow.
func TestUnmatchedWebhookIsPutOffOnce(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, _ := newAskServer(t, answer)
	_, token := newUser(t, server, "asker@example.com")
	first := server.mustAsk(t, token)
	<-began
	if status, _ := server.post(t, completed("public", "Public", ""), nil); status != 503 {
		t.Fatalf("got %d, want 503", status)
	}
	second := server.mustAsk(t, token)
	<-began
	let <- answerChannels
	eventually(t, "the first is sent", func() bool {
		for _, id := range []string{first, second} {
			if request, err := server.FindRecordById(store.Requests, id); err == nil && request.GetString("state") == store.Sent {
				return true
			}
		}
		return false
	})
	eventually(t, "it is put off no longer", func() bool {
		status, _ := server.post(t, completed("public", "Public", ""), nil)
		return status == 200
	})
	if status, _ := server.post(t, completed("another", "Public", ""), nil); status != 503 {
		t.Errorf("one that came while the second was sent: got %d, want 503", status)
	}
}

// While it is not known whether ModelRiver took a request, what nobody is known to have asked
// for is for superusers only; once it is known whose it is, it is theirs.
func TestAnswerToAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerStatus(502))
	asker, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Failed)
	streams := []interface{ Take() []string }{server.Subscribe(t, "", "aiContent/*"), server.Subscribe(t, otherToken, "aiContent/*")}
	server.mustPost(t, completed("unknown", "Secret", ""))
	seenOnlyBy(t, server, "unknown", "", token, otherToken)
	if _, list := server.get(t, "/api/collections/aiContent/records", superuserToken(t, server)); len(list["items"].([]any)) != 1 {
		t.Error("a superuser does not see it")
	}
	server.mustPost(t, completed("unknown-too", "Of someone", `{"user_id":"someoneelse0000"}`))

	// Another event of the channel says whose it is.
	server.mustPost(t, fmt.Sprintf(`{"type":"task.ai_generated","event":"e","channel_id":"unknown","ai_response":{"data":{"title":"More"}},"customer_data":{"request_id":%q}}`, id))
	if healed := awaitRequest(t, server, id, store.Answered); healed.GetString("channelId") != "unknown" {
		t.Errorf("got %v", healed)
	}
	for _, record := range records(t, server, store.Content) {
		if owner := record.GetString("userId"); record.GetString("channelId") == "unknown" && owner != asker.Id {
			t.Errorf("%s belongs to %q", record.GetString("title"), owner)
		}
	}
	seenOnlyBy(t, server, "unknown", token, otherToken)
	server.mustPost(t, completed("public", "Public", ""))
	for _, stream := range streams {
		var seen string
		eventually(t, "public content is live", func() bool {
			seen += strings.Join(stream.Take(), "")
			return strings.Contains(seen, "Public")
		})
		if strings.Contains(seen, "Secret") || strings.Contains(seen, "More") {
			t.Errorf("seen by another: %s", seen)
		}
	}
}

// All events of a channel belong to the asker, also when the request is deleted, and when the
// user is: nobody gets that id again.
func TestAnswersBehindTheFirst(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	asker, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	event := func(name string) string {
		return fmt.Sprintf(`{"type":"task.ai_generated","event":%q,"channel_id":"c-%s","ai_response":{"data":{"title":%q}}}`, name, id, name)
	}
	server.mustPost(t, event("first"))
	first := only(t, server, store.Content)
	server.mustPost(t, event("second"))
	if answered := awaitRequest(t, server, id, store.Answered); answered.GetString("record") != first.Id {
		t.Errorf("got %v, want the first answer", answered)
	}
	if status, answer := server.call(t, token, http.MethodDelete, requestsPath+"/"+id, ""); status != 204 {
		t.Fatalf("got %d %s", status, answer)
	}
	deleteOld(server)
	server.mustPost(t, event("behind the request"))
	if err := server.Delete(asker); err != nil {
		t.Fatal(err)
	}
	server.mustPost(t, event("behind the user"))
	all := records(t, server, store.Content)
	for _, record := range all {
		if owner := record.GetString("userId"); owner != asker.Id {
			t.Errorf("%s belongs to %q", record.GetString("title"), owner)
		}
	}
	if len(all) != 4 {
		t.Errorf("got %d records, want 4", len(all))
	}
	seenOnlyBy(t, server, "c-"+id, "", otherToken)
}

// The id of a user who asked, and was deleted before the answer came, is nobody's to take.
func TestUserIdOfARequestIsNotTaken(t *testing.T) {
	t.Parallel()
	server := newAuthServer(t)
	openRequests(t, server)
	for name, deletesRequest := range map[string]bool{"with the request": false, "with the channel": true} {
		asker, _ := newUser(t, server, fmt.Sprintf("asker%t@example.com", deletesRequest))
		request := core.NewRecord(mustFindCollection(t, server, store.Requests))
		request.Load(map[string]any{"workflow": "story", "input": map[string]any{}, "userId": asker.Id, "state": store.Sent, "attempts": 1, "channelId": "c-" + asker.Id})
		if err := server.Save(request); err != nil {
			t.Fatal(err)
		}
		if deletesRequest {
			if err := server.Delete(request); err != nil {
				t.Fatal(err)
			}
		}
		if err := server.Delete(asker); err != nil {
			t.Fatal(err)
		}
		status, body := server.call(t, "", http.MethodPost, "/api/collections/users/records", signUp(asker.Id, "taker@example.com"))
		if status != 400 {
			t.Errorf("%s: got %d %s, want 400", name, status, body)
		}
	}
}

// Ids that are guessed, unsigned or contradict each other attach nothing to a request, and
// make nothing public.
func TestGuessedIds(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	asker, token := newUser(t, server, "asker@example.com")
	other, otherToken := newUser(t, server, "other@example.com")
	mine, others := server.mustAsk(t, token), server.mustAsk(t, otherToken)
	awaitRequest(t, server, mine, store.Sent)
	awaitRequest(t, server, others, store.Sent)
	echo := func(id string) string { return fmt.Sprintf(`{"request_id":%q}`, id) }

	server.mustPost(t, completed("another", "A", echo(mine))) // its channel is known to be another
	server.mustPost(t, completed("c-"+mine, "B", echo(others)))
	server.mustPost(t, completed("nobodys", "C", echo("norequesthasit0")))
	for channel, want := range map[string]string{"another": asker.Id, "c-" + mine: store.Unmatched, "nobodys": ""} {
		if owner := contentOf(t, server, channel).GetString("userId"); owner != want {
			t.Errorf("content of %s belongs to %q, want %q", channel, owner, want)
		}
	}
	// Only data is signed in this scheme: what stands beside it counts for nothing.
	unsigned := func(payload string) {
		t.Helper()
		header := http.Header{}
		if err := modelriver.Sign(header, "data", testSecret, server.plugin.outbox.Now(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		if status, body := server.post(t, payload, header); status != 200 {
			t.Fatalf("got %d %s", status, body)
		}
	}
	unsigned(fmt.Sprintf(`{"channel_id":"unsigned","data":{"title":"D"},"customer_data":%s}`, echo(mine)))
	unsigned(fmt.Sprintf(`{"channel_id":"c-%s","data":{"type":"task.ai_generated","event":"e","ai_response":{"data":{"title":"E"}},"callback_url":"https://x.example/v1/callback/signed"}}`, mine))
	for _, channel := range []string{"unsigned", "signed"} {
		if owner := contentOf(t, server, channel).GetString("userId"); owner != "" {
			t.Errorf("content of %s belongs to %q, want nobody", channel, owner)
		}
	}
	for _, id := range []string{mine, others} {
		if request, err := server.FindRecordById(store.Requests, id); err != nil || request.GetString("state") != store.Sent {
			t.Errorf("got %v %v, want it as it was", request, err)
		}
	}
	server.mustPost(t, completed("c-"+others, "F", fmt.Sprintf(`{"user_id":%q}`, asker.Id)))
	if owner := contentOf(t, server, "c-"+others).GetString("userId"); owner != other.Id {
		t.Errorf("the answer belongs to %q, want its asker", owner)
	}
}

// A hook that saves content again, long after it had loaded it, gives nobody what belongs to
// somebody else since, and takes it from nobody.
func TestSlowHookTakesNoOwner(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerStatus(502))
	user, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Failed)
	awaitAttempts(t, server)
	came, enriched := make(chan struct{}), make(chan error)
	learned := make(chan struct{})
	server.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") != "First" {
			return e.Next()
		}
		close(came)
		<-learned
		e.Record.Set("title", "First, enriched")
		enriched <- e.App.Save(e.Record)
		return e.Next()
	})
	server.mustPost(t, completed("c", "First", ""))
	<-came
	if got := contentOf(t, server, "c").GetString("userId"); got != store.Unmatched {
		t.Fatalf("userId: got %q, want nobody's yet", got)
	}
	again := strings.Replace(completed("c", "Second", `{"request_id":"`+id+`"}`), "task.completed", "task.ai_generated", 1)
	again = strings.Replace(again, `"data":{"title":"Second"}`, `"event":"more","ai_response":{"data":{"title":"Second"}}`, 1)
	server.mustPost(t, again)
	close(learned)
	if err := <-enriched; err != nil {
		t.Fatal(err)
	}
	for _, record := range records(t, server, store.Content) {
		if got := record.GetString("userId"); got != user.Id {
			t.Errorf("%s: userId: got %q, want %q", record.GetString("title"), got, user.Id)
		}
	}
}

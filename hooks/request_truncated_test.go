package hooks

import (
	"net/http"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// When all requests are deleted at once ("Truncate" in the dashboard), whose the answers are is
// remembered as when each is deleted alone: none becomes everybody's.
func TestTruncatedRequestsKeepTheirAnswersPrivate(t *testing.T) {
	t.Parallel()
	answer, began, let := held(t)
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	root := superuserToken(t, server)

	sent := server.mustAsk(t, token)
	awaitRequest(t, server, sent, store.Sent)
	answered := server.mustAsk(t, token)
	awaitRequest(t, server, answered, store.Sent)
	server.mustPost(t, completed("c-"+answered, "First", ""))
	awaitRequest(t, server, answered, store.Answered)
	river.setAnswer(answerStatus(502))
	unknown := server.mustAsk(t, token)
	awaitRequest(t, server, unknown, store.Failed)
	river.setAnswer(answer)
	sending := server.mustAsk(t, token)
	<-began

	if status, body := server.call(t, root, http.MethodDelete, "/api/collections/aiRequests/truncate", ""); status != 204 {
		t.Fatalf("truncate: got %d %s", status, body)
	}
	if n := len(records(t, server, store.Requests)); n != 0 {
		t.Fatalf("got %d requests, want none", n)
	}
	let <- func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c-"+sending) }
	awaitAttempts(t, server)

	server.mustPost(t, completed("c-"+sent, "Late", ""))
	server.mustPost(t, generated("c-"+answered, `{"title":"Second"}`, ""))
	server.mustPost(t, completed("c-"+sending, "Late", ""))
	for _, id := range []string{sent, answered, sending} {
		seenOnlyBy(t, server, "c-"+id, token, otherToken)
	}
	server.mustPost(t, completed("nobodys", "Unmatched", "")) // may be the answer to the unknown one
	seenOnlyBy(t, server, "nobodys", "", token, otherToken)
	server.mustPost(t, completed("echoed", "Late", `{"request_id":"`+unknown+`"}`))
	seenOnlyBy(t, server, "echoed", token, otherToken)
}

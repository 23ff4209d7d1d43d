package hooks

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// What somebody asked is not found out by way of other collections, either: not by filter,
// sort or expand, not where the answer is everybody's.
func TestOthersLearnNothingOfARequest(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	_, other := newUser(t, server, "other@example.com")
	mine := server.mustAsk(t, token)
	if status, answer := server.call(t, superuserToken(t, server), http.MethodPost, requestsPath, `{"workflow":"story","input":{"q":"lighthouse"}}`); status != 200 {
		t.Fatalf("got %d %s", status, answer)
	}
	for _, request := range records(t, server, store.Requests) {
		awaitRequest(t, server, request.Id, store.Sent)
		server.mustPost(t, completed("c-"+request.Id, "T", ""))
		awaitRequest(t, server, request.Id, store.Answered)
	}
	for _, viewer := range []string{"", other} {
		for _, query := range []string{
			"aiContent/records?filter=" + url.QueryEscape(`aiRequests_via_record.input ~ "lighthouse"`),
			"aiContent/records?filter=" + url.QueryEscape(`aiRequests_via_record.workflow ?= "story"`),
			"aiContent/records?filter=" + url.QueryEscape(`@collection.aiRequests.workflow ?= "story"`),
			"users/records?filter=" + url.QueryEscape(`@collection.aiRequests.userId ?!= ""`),
			"aiRequests/records?filter=" + url.QueryEscape(`userId = ""`),
			"modelriverChannels/records", "modelriverAttempts/records",
		} {
			if status, list := server.get(t, "/api/collections/"+query, viewer); status == 200 && len(list["items"].([]any)) > 0 {
				t.Errorf("%s: got %v, want nothing", query, list)
			}
		}
		_, list := server.call(t, viewer, http.MethodGet, "/api/collections/aiContent/records?expand=aiRequests_via_record&sort=-aiRequests_via_record.input", "")
		if strings.Contains(list, "lighthouse") || strings.Contains(list, mine) {
			t.Errorf("expand: got %s", list)
		}
		batch := fmt.Sprintf(`{"requests":[{"method":"PUT","url":%q,"body":{"id":%q,"workflow":"other","input":{}}}]}`, requestsPath, mine)
		if status, answer := server.call(t, viewer, http.MethodPost, "/api/batch", batch); status == 200 {
			t.Errorf("an upsert of another's: got %s", answer)
		}
	}
}

// An answer that is deleted stays deleted, and its request answered.
func TestDeletedAnswer(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	server.mustPost(t, completed("c-"+id, "T", ""))
	awaitRequest(t, server, id, store.Answered)
	if err := server.Delete(contentOf(t, server, "c-"+id)); err != nil {
		t.Fatal(err)
	}
	server.mustPost(t, completed("c-"+id, "T", ""))
	answered := awaitRequest(t, server, id, store.Answered)
	if n := len(records(t, server, store.Content)); n != 0 || answered.GetString("record") != "" {
		t.Errorf("got %d records and %v, want it deleted", n, answered)
	}
}

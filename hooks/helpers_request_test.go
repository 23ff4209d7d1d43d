package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const requestsPath = "/api/collections/aiRequests/records"

// newAskServer returns a server that asks the receiver in ModelRiver's place, and lets
// whoever signed in ask. Batches are allowed.
func newAskServer(t testing.TB, answer http.HandlerFunc) (*testServer, *receiver) {
	t.Helper()
	river := newReceiver(t, answer)
	app, p := newTestApp(t, askConfig(river))
	openRequests(t, app)
	return serve(t, app, p), river
}

func askConfig(river *receiver) Config {
	config := testConfig()
	config.APIURL = river.URL
	return config
}

func openRequests(t testing.TB, app core.App) {
	t.Helper()
	requests, err := app.FindCollectionByNameOrId(store.Requests)
	if err != nil {
		t.Fatal(err)
	}
	requests.CreateRule = types.Pointer(`@request.auth.id != ""`)
	if err := app.Save(requests); err != nil {
		t.Fatal(err)
	}
	app.Settings().Batch.Enabled = true
	app.Settings().Batch.MaxRequests = 100
	app.Settings().Batch.Timeout = 60
	app.Settings().Logs.MaxDays = 5 // the test app keeps none
	if err := app.Save(app.Settings()); err != nil {
		t.Fatal(err)
	}
}

// answerChannels answers as ModelRiver does, with the channel "c-" and the request's id.
func answerChannels(w http.ResponseWriter, request *http.Request) {
	answerChannel(w, "c-"+requestID(request))
}

func requestID(request *http.Request) string {
	var body struct {
		RequestID string `json:"request_id"`
	}
	_ = json.NewDecoder(request.Body).Decode(&body)
	return body.RequestID
}

func answerChannel(w http.ResponseWriter, channel string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"message":"success","status":"pending","channel_id":%q,"ws_token":"secret-socket-token","websocket_url":"wss://x"}`, channel)
}

// mustAsk creates a request and returns its id.
func (s *testServer) mustAsk(t testing.TB, token string) string {
	t.Helper()
	status, body := s.call(t, token, http.MethodPost, requestsPath, `{"workflow":"story","input":{"messages":[{"role":"user","content":"A lighthouse"}]}}`)
	if status != 200 {
		t.Fatalf("ask: got %d %s", status, body)
	}
	var created struct{ Id, State string }
	if err := json.Unmarshal([]byte(body), &created); err != nil || created.State != store.Queued {
		t.Fatalf("ask: got %s, want it queued", body)
	}
	return created.Id
}

func awaitRequest(t testing.TB, app core.App, id, state string) *core.Record {
	t.Helper()
	eventually(t, "the request is "+state, func() bool {
		request, err := app.FindRecordById(store.Requests, id)
		return err == nil && request.GetString("state") == state
	})
	request, err := app.FindRecordById(store.Requests, id)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// completed returns the answer to a request; customer may be empty.
func completed(channel, title, customer string) string {
	if customer != "" {
		customer = `,"customer_data":` + customer
	}
	return fmt.Sprintf(`{"type":"task.completed","channel_id":%q,"data":{"title":%q}%s}`, channel, title, customer)
}

// contentOf returns the record of a channel.
func contentOf(t testing.TB, app core.App, channel string) *core.Record {
	t.Helper()
	record, err := app.FindFirstRecordByData(store.Content, "channelId", channel)
	if err != nil {
		t.Fatalf("content of channel %s: %v", channel, err)
	}
	return record
}

// awaitAttempts returns when no request is being sent.
func awaitAttempts(t testing.TB, server *testServer) {
	t.Helper()
	eventually(t, "every attempt has ended", func() bool { undecided, err := server.plugin.outbox.Undecided("x"); return err == nil && !undecided })
}

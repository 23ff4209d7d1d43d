package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// ModelRiver's own client in the browser connects with what the answer to a request holds,
// whose fields it needs and joins as they are. The simulator has them as ModelRiver does.
func TestSimulatorHasWhatModelRiversClientConnectsWith(t *testing.T) {
	t.Parallel()
	sim := startSimulator(t, "http://127.0.0.1:1", nil)
	answer := sim.request(t, `{"workflow":"story","messages":[{"role":"user","content":"Why?"}]}`)
	uuid := `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
	for field, want := range map[string]string{
		"message":           `^success$`,
		"status":            `^pending$`,
		"channel_id":        `^` + uuid + `$`,
		"ws_token":          `^\S+$`,
		"websocket_url":     `^wss?://[^/]+/socket$`, // it adds /socket to any other
		"websocket_channel": `^ai_response:` + uuid + `:` + uuid + `$`,
		"project_id":        `^` + uuid + `$`,
	} {
		if got, _ := answer[field].(string); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: got %v, want %s", field, answer[field], want)
		}
	}
	if want := fmt.Sprintf("ai_response:%s:%s", answer["project_id"], answer["channel_id"]); answer["websocket_channel"] != want {
		t.Errorf("websocket_channel: got %v, want %s", answer["websocket_channel"], want)
	}
}

// What ModelRiver tells its client once a workflow has completed are data, task_id and
// metadata of the callback: all of the AI's answer to what was asked here, as it was answered,
// and the record, which whoever asked may view.
func TestCallbackHasWhatModelRiversClientReads(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	answerTo := func(channel, data string) {
		server.mustPost(t, fmt.Sprintf(`{"type":"task.ai_generated","event":"e","channel_id":%q,"ai_response":{"data":%s},"callback_url":%q,"callback_required":true}`,
			channel, data, river.callbackURL(channel)))
	}
	answerTo("c-"+id, `{"title":"The lighthouse","score":1.50,"id":"the AI's","tags":["sea"]}`)
	awaitRequest(t, server, id, store.Answered)

	callback := river.await(t, 2)[1] // the first is the request
	var told struct {
		Data     map[string]json.RawMessage
		TaskID   string `json:"task_id"`
		Metadata struct {
			Database, Table string
			RecordID        string `json:"record_id"`
		}
		Error *json.RawMessage
	}
	if err := json.Unmarshal([]byte(callback.body), &told); err != nil {
		t.Fatalf("%v in %s", err, callback.body)
	}
	if callback.path != "/v1/callback/c-"+id || told.Error != nil {
		t.Errorf("got %s %s", callback.path, callback.body)
	}
	record := contentOf(t, server, "c-"+id)
	for field, want := range map[string]string{
		"title": `"The lighthouse"`, "score": `1.50`, "tags": `["sea"]`, "id": `"` + record.Id + `"`,
	} {
		if got := string(told.Data[field]); got != want {
			t.Errorf("data.%s: got %s, want %s", field, got, want)
		}
	}
	var savedAt time.Time
	if err := json.Unmarshal(told.Data["saved_at"], &savedAt); err != nil || time.Since(savedAt) > time.Minute {
		t.Errorf("saved_at: got %s, %v", told.Data["saved_at"], err)
	}
	if told.TaskID != "pocketbase_"+record.Id || told.Metadata.Database != "pocketbase" || told.Metadata.Table != store.Content || told.Metadata.RecordID != record.Id {
		t.Errorf("got task_id %s and metadata %+v", told.TaskID, told.Metadata)
	}
	if status, view := server.get(t, "/api/collections/"+told.Metadata.Table+"/records/"+told.Metadata.RecordID, token); status != http.StatusOK || view["title"] != "The lighthouse" {
		t.Errorf("the record that it names: got %d %v", status, view)
	}
}

// Of an answer that is refused the client reads a message.
func TestErrorCallbackHasWhatModelRiversClientReads(t *testing.T) {
	t.Parallel()
	server, river := newAskServer(t, answerChannels)
	server.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("no room") })
	_, token := newUser(t, server, "asker@example.com")
	id := server.mustAsk(t, token)
	awaitRequest(t, server, id, store.Sent)
	server.mustPost(t, fmt.Sprintf(`{"type":"task.ai_generated","event":"e","channel_id":"c-%s","ai_response":{"data":{"title":"T"}},"callback_url":%q}`, id, river.callbackURL("c-"+id)))
	awaitRequest(t, server, id, store.Failed)
	var told struct{ Error, Message string }
	callback := river.await(t, 2)[1]
	if err := json.Unmarshal([]byte(callback.body), &told); err != nil || told.Error != "processing_failed" || !strings.Contains(told.Message, "no room") {
		t.Errorf("got %s, %v", callback.body, err)
	}
}

package hooks

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	valid := generated("answers", `{"title":"T"}`, "")
	signedBy := func(scheme, secret, payload string) http.Header {
		header := http.Header{}
		if err := modelriver.Sign(header, scheme, secret, time.Now(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		return header
	}
	signed := func(payload string) http.Header { return signedBy("body", testSecret, payload) }
	with := func(header http.Header, name, value string) http.Header {
		header.Set(name, value)
		return header
	}
	huge := generated("huge", `"`+strings.Repeat("x", 5<<20)+`"`, "")

	for _, row := range []struct {
		name    string
		payload string
		header  http.Header
		status  int
		body    string
		stored  int
	}{
		{"no signature", valid, http.Header{}, 401, `{"error":"Invalid signature"}`, 0},
		{"empty signature", valid, http.Header{"Mr-Signature": {""}}, 401, `{"error":"Invalid signature"}`, 0},
		{"malformed signature", valid, http.Header{"Mr-Signature": {"zz"}}, 401, `{"error":"Invalid signature"}`, 0},
		{"wrong secret", valid, signedBy("body", "another", valid), 401, `{"error":"Invalid signature"}`, 0},
		{"another payload's signature", valid + " ", signed(valid), 401, `{"error":"Invalid signature"}`, 0},
		{"empty body, unsigned", "", http.Header{}, 401, `{"error":"Invalid signature"}`, 0},
		{"signed, but not JSON", "hello", signed("hello"), 400, `{"error":"Invalid JSON"}`, 0},
		{"signed, but empty", "", signed(""), 400, `{"error":"Invalid JSON"}`, 0},
		{"signed, but an array", "[]", signed("[]"), 400, `{"error":"Invalid JSON"}`, 0},
		{"signed, but null", "null", signed("null"), 400, `{"error":"Invalid JSON"}`, 0},
		{"signed, but cut off", valid[:40], signed(valid[:40]), 400, `{"error":"Invalid JSON"}`, 0},
		{"signed, with something behind it", valid + "{}", signed(valid + "{}"), 400, `{"error":"Invalid JSON"}`, 0},
		{"over the limit", huge, signed(huge), 413, `{"error":"Payload too large"}`, 0},
		{"compressed", valid, with(signed(valid), "Content-Encoding", "gzip"), 415, `{"error":"Unsupported Content-Encoding"}`, 0},
		{"unknown type", `{"type":"task.started","data":{}}`, signed(`{"type":"task.started","data":{}}`), 200, `{"received":true}`, 0},
		{"no AI data", `{"type":"task.ai_generated"}`, signed(`{"type":"task.ai_generated"}`), 200, `{"received":true}`, 0},
		{"an empty object", `{}`, signed(`{}`), 200, `{"received":true}`, 0},
		{"identity encoding", valid, with(signed(valid), "Content-Encoding", "identity"), 200, `{"received":true}`, 1},
		{"signed in another scheme", valid, signedBy("timestamped-body", testSecret, valid), 200, `{"received":true}`, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := webhookServer(t)
			status, body := server.post(t, row.payload, row.header)
			if status != row.status || body != row.body {
				t.Errorf("got %d %s, want %d %s", status, body, row.status, row.body)
			}
			if got := len(records(t, server, store.Content)); got != row.stored {
				t.Errorf("records: got %d, want %d", got, row.stored)
			}
			if got := len(records(t, server, store.Callbacks)); got != 0 {
				t.Errorf("callback rows: got %d, want 0", got)
			}
			if logs := logRows(t, server); strings.Contains(logs, testSecret) || strings.Contains(logs, testKey) {
				t.Errorf("a secret is in the logs:\n%s", logs)
			}
			server.mustPost(t, valid) // healthy all the same
			server.mustPost(t, valid)
			if got := len(records(t, server, store.Content)); got != 1 {
				t.Errorf("records after two valid webhooks: got %d, want 1", got)
			}
		})
	}
}

func webhookServer(t *testing.T) *testServer {
	server := newTestServer(t, testConfig())
	server.Settings().Logs.MaxDays = 5 // the test app keeps none
	return server
}

func TestWebhookWritesNoLogRowForJunkOrSuccess(t *testing.T) {
	t.Parallel()
	server := webhookServer(t)
	server.plugin.rejected.every = time.Hour
	for i := range 50 {
		server.post(t, "junk", http.Header{})
		server.mustPost(t, generated(fmt.Sprint("quiet-", i), `{}`, ""))
	}
	logs := logRows(t, server)
	if strings.Contains(logs, "/webhooks/modelriver") {
		t.Errorf("activity log has rows of webhooks:\n%s", logs)
	}
	if got := strings.Count(logs, store.RejectedMessage); got != 1 {
		t.Errorf("rows about rejected webhooks: got %d, want 1:\n%s", got, logs)
	}
}

func TestWebhookMethods(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
		request, err := http.NewRequest(method, server.url+"/webhooks/modelriver", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "POST" {
			t.Errorf("%s: got %d, Allow %q, want 405, Allow POST", method, response.StatusCode, response.Header.Get("Allow"))
		}
	}
}

func TestWebhookLimitHoldsForChunkedBodies(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.MaxBodySize = 1000
	server := newTestServer(t, config)
	for _, row := range []struct {
		name   string
		size   int
		status int
	}{
		{"just at the limit", 1000, 200},
		{"one byte over", 1001, 413},
		{"far over", 100_000, 413},
	} {
		payload := generated("chunked-"+row.name, `"`, "")
		payload = strings.Replace(payload, `"data":"`, `"data":"`+strings.Repeat("x", row.size-len(payload)-1)+`"`, 1)
		request, err := http.NewRequest(http.MethodPost, server.url+"/webhooks/modelriver", io.MultiReader(strings.NewReader(payload)))
		if err != nil {
			t.Fatal(err)
		}
		if err := modelriver.Sign(request.Header, "body", testSecret, time.Now(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if len(payload) != row.size || response.StatusCode != row.status {
			t.Errorf("%s (%d bytes): got %d, want %d", row.name, len(payload), response.StatusCode, row.status)
		}
	}
}

func TestWebhookWithoutSecretVerifiesNothing(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.WebhookSecrets = nil
	server := newTestServer(t, config)

	payload := generated("no-secret", `{}`, "")
	header := http.Header{}
	if err := modelriver.Sign(header, "body", "", time.Now(), []byte(payload)); err != nil {
		t.Fatal(err)
	}
	request, _ := http.NewRequest(http.MethodPost, server.url+"/webhooks/modelriver", strings.NewReader(payload))
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("got %d, Retry-After %q, want 503 and a time", response.StatusCode, response.Header.Get("Retry-After"))
	}
	if got := len(records(t, server, store.Content)); got != 0 {
		t.Errorf("records: got %d, want 0", got)
	}
}

func TestWebhookSchemes(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	for _, scheme := range modelriver.Schemes() {
		channel := "scheme-" + scheme
		payload := fmt.Sprintf(`{"channel_id":%q,"timestamp":"1767616496","data":%s}`, channel, generated(channel, `{"n":1.0}`, ""))
		header := http.Header{}
		if err := modelriver.Sign(header, scheme, testSecret, time.Now(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		if status, body := server.post(t, payload, header); status != 200 {
			t.Errorf("%s: got %d %s, want 200", scheme, status, body)
		}
		record, err := server.FindFirstRecordByData(store.Content, "channelId", channel)
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		if got, want := record.GetString("data"), `{"n":1.0}`; got != want {
			t.Errorf("%s: data: got %s, want %s", scheme, got, want)
		}
	}
}

// The record must be at a subscriber at once, and the answer must not say so earlier
// than a reader of the database would.
func TestWebhookReachesSubscriber(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		server := newTestServer(t, testConfig())
		server.Client = client
		stream := server.Subscribe(t, "", "aiContent/*")
		server.mustPost(t, generated("live", `{"title":"Live"}`, ""))
		event := <-stream.Events
		if !strings.Contains(event, `"title":"Live"`) || !strings.Contains(event, `"action":"create"`) {
			t.Errorf("event: got %s", event)
		}
	})
}

package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
	"github.com/pocketbase/pocketbase/tools/logger"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const (
	testSecret = "mr_whsec_test_0123456789"
	testKey    = "mr_live_test_key_0123456789"
)

// testConfig is a configuration whose callbacks may go to this machine.
func testConfig() Config {
	return Config{
		WebhookSecrets: []string{testSecret},
		APIKey:         testKey,
		CallbackHosts:  []string{"127.0.0.1"},
		fromEnv:        true,
	}
}

func TestMain(m *testing.M) { apptest.Main(m) }

// A testServer is a PocketBase app with the plugin behind a real HTTP server.
type testServer struct {
	*apptest.Server
	plugin *plugin
	url    string
}

// newTestApp returns an app on an empty data directory with the plugin, not serving.
func newTestApp(t testing.TB, config Config) (*tests.TestApp, *plugin) {
	t.Helper()
	app := apptest.NewApp(t)
	p, err := newPlugin(app, config)
	if err != nil {
		t.Fatal(err)
	}
	p.bind()
	return app, p
}

func newTestServer(t testing.TB, config Config) *testServer {
	t.Helper()
	app, p := newTestApp(t, config)
	return serve(t, app, p)
}

func serve(t testing.TB, app *tests.TestApp, p *plugin) *testServer {
	t.Helper()
	t.Cleanup(func() { // after the server
		p.outbox.Stop()
		p.rejected.stop(app)
	})
	server := apptest.Serve(t, app)
	return &testServer{Server: server, plugin: p, url: server.URL}
}

// post sends payload as a webhook, signed in the documented scheme unless the header
// says otherwise, and returns the status and body of the answer.
func (s *testServer) post(t testing.TB, payload string, header http.Header) (int, string) {
	t.Helper()
	status, body, err := s.tryPost(payload, header)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func (s *testServer) tryPost(payload string, header http.Header) (int, string, error) {
	request, err := http.NewRequest(http.MethodPost, s.url+s.plugin.config.Path, strings.NewReader(payload))
	if err != nil {
		return 0, "", err
	}
	if header == nil {
		header = http.Header{}
		if err := modelriver.Sign(header, "body", testSecret, time.Now(), []byte(payload)); err != nil {
			return 0, "", err
		}
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// mustPost is post for a webhook that has to be taken.
func (s *testServer) mustPost(t testing.TB, payload string) {
	t.Helper()
	if status, body := s.post(t, payload, nil); status != http.StatusOK || body != `{"received":true}` {
		t.Fatalf("answer: got %d %s, want 200 {\"received\":true}", status, body)
	}
}

// refuseSome has a hook of the app's own refuse content with the title "Refused".
func refuseSome(app core.App) {
	app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "Refused" {
			return errors.New("not this one")
		}
		return e.Next()
	})
}

// generated returns an event-driven payload; callbackURL may be empty.
func generated(channel, data, callbackURL string) string {
	callback := ""
	if callbackURL != "" {
		callback = fmt.Sprintf(`,"callback_url":%q,"callback_required":true`, callbackURL)
	}
	return fmt.Sprintf(`{"type":"task.ai_generated","event":"new_content","channel_id":%q,"ai_response":{"data":%s}%s}`, channel, data, callback)
}

// records returns all rows of a collection, oldest first.
func records(t testing.TB, app core.App, collection string) []*core.Record {
	t.Helper()
	var rows []*core.Record
	if err := app.RecordQuery(collection).OrderBy("created", "id").All(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// only returns the only row of a collection.
func only(t testing.TB, app core.App, collection string) *core.Record {
	t.Helper()
	rows := records(t, app, collection)
	if len(rows) != 1 {
		t.Fatalf("rows in %s: got %d, want 1", collection, len(rows))
	}
	return rows[0]
}

var eventually = apptest.Eventually

// logRows returns the activity and application logs as text.
func logRows(t testing.TB, app core.App) string {
	t.Helper()
	if handler, ok := app.Logger().Handler().(*logger.BatchHandler); ok {
		if err := handler.WriteAll(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	var rows []struct {
		Message string `db:"message"`
		Data    string `db:"data"`
	}
	if err := app.AuxDB().NewQuery("SELECT message, data FROM _logs").All(&rows); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintln(&b, row.Message, row.Data)
	}
	return b.String()
}

var (
	newUser        = apptest.NewUser
	superuserToken = apptest.SuperuserToken
)

// get returns the status and JSON of a GET to PocketBase's API.
func (s *testServer) get(t testing.TB, path, token string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func compact(t testing.TB, raw string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(raw)); err != nil {
		t.Fatalf("not JSON: %v: %s", err, raw)
	}
	return b.String()
}

// call sends a request to PocketBase's API and returns the status and body of the
// answer.
func (s *testServer) call(t testing.TB, token, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

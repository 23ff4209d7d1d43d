package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/simulator"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A testSimulator runs in the background until the test ends.
type testSimulator struct {
	base   string
	output *apptest.Buffer
	ended  chan error
}

// startSimulator starts a simulator that posts to target and has no delay.
func startSimulator(t testing.TB, target string, change func(o *simulator.Options)) *testSimulator {
	t.Helper()
	options := simulator.Options{
		Listen: apptest.FreeAddress(t), Target: target, Scheme: "body", Event: "new_content", Speed: 1000,
		CacheFields: []string{"user_id", "category", "metadata.user_id"},
	}
	if change != nil {
		change(&options)
	}
	if err := options.Validate(); err != nil {
		t.Fatal(err)
	}
	s := &testSimulator{base: "http://" + options.Listen, output: &apptest.Buffer{}, ended: make(chan error, 1)}
	go func() {
		s.ended <- simulator.Run(t.Context(), s.output, simulator.Settings{Secret: testSecret, APIKey: testKey}, options)
	}()
	eventually(t, "the simulator listens", func() bool { return strings.Contains(s.output.String(), "stand-in") })
	return s
}

// request makes one and returns the answer.
func (s *testSimulator) request(t testing.TB, body string) map[string]any {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.base+"/v1/ai/async", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != 200 {
		t.Fatalf("got %d %v, %v", response.StatusCode, answer, err)
	}
	return answer
}

func (s *testSimulator) await(t testing.TB, pattern string) {
	t.Helper()
	expression := regexp.MustCompile(`(?m)` + pattern)
	eventually(t, "a line with "+pattern, func() bool { return expression.MatchString(s.output.String()) })
}

func TestSimulatorAndServerInEachScheme(t *testing.T) {
	t.Parallel()
	const someRequests = 12
	for _, scheme := range modelriver.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, testConfig())
			sim := startSimulator(t, s.url+s.plugin.config.Path, func(o *simulator.Options) {
				o.Scheme = scheme
				o.Every, o.Count = time.Millisecond, someRequests
			})
			if err := <-sim.ended; err != nil {
				t.Fatalf("%v\n%s", err, sim.output)
			}
			wantLines(t, sim.output.String(), fmt.Sprintf(`^%d requests, %[1]d completed$`, someRequests))
			rows := records(t, s, store.Content)
			if len(rows) != someRequests {
				t.Fatalf("stored: got %d, want %d", len(rows), someRequests)
			}
			for _, row := range rows {
				if row.GetString("body") == "" || row.GetString("category") == "general" || row.GetString("channelId") == "" {
					t.Errorf("a record lacks its content: %v", row.FieldsData())
				}
				var metadata map[string]any
				if err := row.UnmarshalJSONField("metadata", &metadata); err != nil || metadata["ai_model"] == nil {
					t.Errorf("metadata: got %v (%v), want the AI model in it", metadata, err)
				}
			}
		})
	}
}

func TestSimulatedStandardWebhook(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	sim := startSimulator(t, s.url+s.plugin.config.Path, func(o *simulator.Options) {
		o.Event = ""
		o.Every, o.Count = time.Millisecond, 1
	})
	if err := <-sim.ended; err != nil {
		t.Fatal(err)
	}
	if got := only(t, s, store.Content).GetString("title"); got != "The night ferry gets its lights back" {
		t.Errorf("title: got %q", got)
	}
	if rows := records(t, s, store.Callbacks); len(rows) != 0 {
		t.Errorf("callbacks: got %d, want none", len(rows))
	}
}

func TestSimulatedRequest(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	sim := startSimulator(t, "http://127.0.0.1:1/", nil)
	answer := sim.request(t, `{
		"workflow": "poem", "messages": [], "events": ["poem_written"], "webhook_url": "`+s.url+s.plugin.config.Path+`",
		"user_id": "u1", "category": "poetry", "metadata": {"user_id": 7, "other": 1}}`)
	if answer["status"] != "pending" || answer["message"] != "success" || answer["ws_token"] == "" ||
		!strings.HasPrefix(fmt.Sprint(answer["websocket_url"]), "ws://") || !strings.HasPrefix(fmt.Sprint(answer["websocket_channel"]), "ai_response:") {
		t.Fatalf("answer: got %v", answer)
	}
	sim.await(t, ` completed$`)
	row := only(t, s, store.Content)
	for field, want := range map[string]string{
		"channelId": fmt.Sprint(answer["channel_id"]), "eventName": "poem_written", "userId": "u1", "category": "poetry",
	} {
		if got := row.GetString(field); got != want {
			t.Errorf("%s: got %q, want %q", field, got, want)
		}
	}
	if got := row.GetString("metadata"); !strings.Contains(got, `"metadata.user_id":7`) || strings.Contains(got, "other") {
		t.Errorf("metadata: got %s, want the cache fields by their literal paths", got)
	}
}

// The way to see a callback fail and to retry it.
func TestSimulatorRefusesCallbacks(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	sim := startSimulator(t, s.url+s.plugin.config.Path, func(o *simulator.Options) { o.Refuse = 1 })
	sim.request(t, `{"workflow":"w"}`)
	sim.await(t, ` error +the callback says`)
	awaitState(t, s, store.Failed)
	mustRun(t, s.plugin, "retry", "--all-failed")
	awaitState(t, s, store.Delivered)
	sim.await(t, ` completed +after the error$`)
}

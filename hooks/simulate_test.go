package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A testSimulator runs in the background until the test ends.
type testSimulator struct {
	*simulator
	output *safeBuffer
	stop   context.CancelFunc
	ended  chan error
}

// startSimulator starts a simulator that posts to target and has no delay.
func startSimulator(t testing.TB, target string, change func(s *simulator)) *testSimulator {
	t.Helper()
	listen := freeAddress(t)
	options := simulateOptions{
		listen: listen, target: target, scheme: "body", event: "new_content", speed: 1000,
		cacheFields: []string{"user_id", "category", "metadata.user_id"},
	}
	output := &safeBuffer{}
	s := &testSimulator{
		simulator: newSimulator(Config{WebhookSecrets: []string{testSecret}, APIKey: testKey}, options, output),
		output:    output, ended: make(chan error, 1),
	}
	if change != nil {
		change(s.simulator)
	}
	if err := s.options.validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.ended <- s.run(ctx) }()
	t.Cleanup(cancel)
	eventually(t, "the simulator listens", func() bool { return strings.Contains(output.String(), "stand-in") })
	return s
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// safeBuffer may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// call posts a body with the key and returns the answer.
func (s *testSimulator) call(t testing.TB, path, key, body string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

// await waits until the simulator's log has a line with the pattern.
func (s *testSimulator) await(t testing.TB, pattern string) {
	t.Helper()
	expression := regexp.MustCompile(`(?m)` + pattern)
	for deadline := time.Now().Add(time.Minute); !expression.MatchString(s.output.String()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: a line with %q in\n%s", pattern, s.output)
		}
	}
}

func TestSimulatorAndServerInEachScheme(t *testing.T) {
	t.Parallel()
	for _, scheme := range modelriver.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, testConfig())
			sim := startSimulator(t, s.url+s.plugin.config.Path, func(s *simulator) {
				s.options.scheme = scheme
				s.options.every, s.options.count = time.Millisecond, len(contents())
			})
			if err := <-sim.ended; err != nil {
				t.Fatalf("%v\n%s", err, sim.output)
			}
			wantLines(t, sim.output.String(), fmt.Sprintf(`^%d requests, %[1]d completed$`, len(contents())))
			rows := records(t, s, store.Content)
			if len(rows) != len(contents()) {
				t.Fatalf("stored: got %d, want %d", len(rows), len(contents()))
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
	sim := startSimulator(t, s.url+s.plugin.config.Path, func(s *simulator) {
		s.options.event = ""
		s.options.every, s.options.count = time.Millisecond, 1
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
	status, answer := sim.call(t, "/v1/ai/async", testKey, `{
		"workflow": "poem", "messages": [], "events": ["poem_written"], "webhook_url": "`+s.url+s.plugin.config.Path+`",
		"user_id": "u1", "category": "poetry", "metadata": {"user_id": 7, "other": 1}}`)
	if status != 200 || answer["status"] != "pending" || answer["message"] != "success" || answer["ws_token"] == "" ||
		!strings.HasPrefix(fmt.Sprint(answer["websocket_url"]), "ws://") || !strings.HasPrefix(fmt.Sprint(answer["websocket_channel"]), "ai_response:") {
		t.Fatalf("answer: got %d %v", status, answer)
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

func TestSimulatedRequestErrors(t *testing.T) {
	t.Parallel()
	sim := startSimulator(t, "http://127.0.0.1:1/", nil)
	for _, row := range []struct {
		name, path, key, body string
		status                int
		message               string
	}{
		{"no key", "/v1/ai/async", "", `{"workflow":"w"}`, 401, "API key"},
		{"another key", "/v1/ai/async", "nope", `{"workflow":"w"}`, 401, "API key"},
		{"no workflow", "/v1/ai/async", testKey, `{}`, 400, "workflow is required"},
		{"no JSON", "/v1/ai/async", testKey, `{`, 400, "not a JSON object"},
		{"webhook to another machine", "/v1/ai/async", testKey, `{"workflow":"w","webhook_url":"https://example.com/"}`, 400, "this machine only"},
		{"callback for nothing", "/v1/callback/none", testKey, `{"data":{}}`, 404, "no request with this channel"},
		{"callback without a key", "/v1/callback/none", "", `{"data":{}}`, 401, "API key"},
		{"elsewhere", "/v1/other", testKey, `{}`, 404, "The simulator has"},
	} {
		status, answer := sim.call(t, row.path, row.key, row.body)
		if status != row.status || !strings.Contains(fmt.Sprint(answer["error"]), row.message) {
			t.Errorf("%s: got %d %v, want %d with %q", row.name, status, answer, row.status, row.message)
		}
	}
}

// The callback endpoint keeps ModelRiver's rules: an object as data, in time.
func TestSimulatedCallback(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, change func(s *simulator)) (*testSimulator, string) {
		target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(target.Close)
		sim := startSimulator(t, target.URL, change)
		_, answer := sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
		return sim, "/v1/callback/" + fmt.Sprint(answer["channel_id"])
	}

	for _, row := range []struct {
		name string
		body string
		want int
		end  string
	}{
		{"an object", `{"data":{"id":"r"},"task_id":"pocketbase_r"}`, 200, ` callback +success after .*: pocketbase_r$`},
		{"an error", `{"error":"processing_failed","message":"full"}`, 200, ` error +the callback says`},
		{"an array", `{"data":[]}`, 422, ` callback +422: data must be a JSON object$`},
		{"null", `{"data":null}`, 422, ` callback +422`},
		{"a flat body", `{"id":"r"}`, 422, ` callback +422`},
		{"no JSON", `data`, 422, ` callback +422`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			sim, path := begin(t, nil)
			sim.await(t, ` webhook +attempt 1 of 8: 200`)
			if status, answer := sim.call(t, path, testKey, row.body); status != row.want {
				t.Errorf("got %d %v, want %d", status, answer, row.want)
			}
			sim.await(t, row.end)
		})
	}
	t.Run("before the webhook", func(t *testing.T) {
		t.Parallel()
		sim, path := begin(t, func(s *simulator) { s.options.delay = time.Hour })
		if status, _ := sim.call(t, path, testKey, `{"data":{}}`); status != 409 {
			t.Errorf("got %d, want 409", status)
		}
	})
	t.Run("after its window", func(t *testing.T) {
		t.Parallel()
		sim, path := begin(t, func(s *simulator) { s.window = time.Millisecond })
		sim.await(t, ` timeout +no callback within 1ms$`)
		if status, _ := sim.call(t, path, testKey, `{"data":{}}`); status != 410 {
			t.Errorf("got %d, want 410", status)
		}
	})
	t.Run("again, and after an error", func(t *testing.T) {
		t.Parallel()
		sim, path := begin(t, nil)
		sim.await(t, ` webhook +attempt 1 of 8: 200`)
		for _, body := range []string{`{"error":"e"}`, `{"data":{}}`, `{"data":{}}`} {
			if status, _ := sim.call(t, path, testKey, body); status != 200 {
				t.Errorf("%s: got %d, want 200", body, status)
			}
		}
		sim.await(t, ` completed +after the error$`)
		sim.stop()
		if err := <-sim.ended; err != nil {
			t.Error(err)
		}
		wantLines(t, sim.output.String(), `^1 request, 1 completed$`)
	})
}

// A webhook that is not taken comes again by ModelRiver's schedule, eight times in all.
func TestSimulatedRetries(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies []string
	taken := 3
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(body))
		if len(bodies) != taken {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer target.Close()
	sim := startSimulator(t, target.URL, func(s *simulator) {
		s.options.speed = 1e6
		s.options.event = ""
	})
	sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
	sim.await(t, ` completed `)
	wantLines(t, sim.output.String(), ` attempt 1 of 8: 503`, ` retry +in 5µs$`, ` attempt 2 of 8: 503`, ` retry +in 30µs$`, ` attempt 3 of 8: 200`)

	mu.Lock()
	bodies, taken = nil, 0
	mu.Unlock()
	sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
	sim.await(t, ` undelivered `)
	if len(bodies) != 8 {
		t.Errorf("attempts: got %d, want 8", len(bodies))
	}
	var total time.Duration
	for _, delay := range webhookDelays {
		total += delay
	}
	if want := 3*time.Hour + 42*time.Minute + 35*time.Second; total != want {
		t.Errorf("the schedule takes %s, ModelRiver's %s", total, want)
	}
}

// The way to see a callback fail and to retry it.
func TestSimulatorRefusesCallbacks(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	sim := startSimulator(t, s.url+s.plugin.config.Path, func(s *simulator) { s.refuse = 1 })
	sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
	sim.await(t, ` error +the callback says`)
	awaitState(t, s, store.Failed)
	mustRun(t, s.plugin, "retry", "--all-failed")
	awaitState(t, s, store.Delivered)
	sim.await(t, ` completed +after the error$`)
}

func TestSimulateOptions(t *testing.T) {
	t.Parallel()
	_, p := newTestApp(t, testConfig())
	for _, row := range []struct{ flag, value, problem string }{
		{"--listen", "0.0.0.0:8787", "loopback address"},
		{"--listen", "8787", "loopback address"},
		{"--target", "localhost:8090", "--target"},
		{"--scheme", "x", "use one of"},
		{"--speed", "0", "above 0"},
		{"--delay", "-1s", "negative"},
		{"--count", "3", "--every"},
	} {
		_, err := runCommand(p, "simulate", row.flag, row.value)
		wantError(t, err, row.problem)
	}
}

// Ctrl-C ends the command with a summary before PocketBase ends the process.
func TestSimulateEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	address := freeAddress(t)
	type result struct {
		out string
		err error
	}
	ended := make(chan result, 1)
	go func() {
		out, err := runCommand(p, "simulate", "--listen", address, "--target", "http://127.0.0.1:1/", "--delay", "0s")
		ended <- result{out, err}
	}()
	eventually(t, "the simulator takes a request", func() bool {
		request, err := http.NewRequest(http.MethodPost, "http://"+address+"/v1/ai/async", strings.NewReader(`{"workflow":"w"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+testKey)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == 200
	})
	err := app.OnTerminate().Trigger(&core.TerminateEvent{App: app}, func(e *core.TerminateEvent) error {
		select {
		case r := <-ended:
			ended <- r
		case <-time.After(time.Minute):
			t.Error("the process goes on to end before the command has")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := <-ended
	if r.err != nil {
		t.Error(r.err)
	}
	wantLines(t, r.out, `^1 request$`)
}

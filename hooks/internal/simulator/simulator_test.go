package simulator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

const (
	testSecret = "mr_whsec_test_0123456789"
	testKey    = "mr_live_test_key_0123456789"
)

// A testSimulator runs in the background until the test ends.
type testSimulator struct {
	*simulator
	output *apptest.Buffer
	stop   context.CancelFunc
	ended  chan error
}

// startSimulator starts a simulator that posts to target and has no delay.
func startSimulator(t testing.TB, target string, change func(s *simulator)) *testSimulator {
	t.Helper()
	listen := apptest.FreeAddress(t)
	options := Options{
		Listen: listen, Target: target, Scheme: "body", Event: "new_content", Speed: 1000,
		CacheFields: []string{"user_id", "category", "metadata.user_id"},
	}
	output := &apptest.Buffer{}
	s := &testSimulator{
		simulator: newSimulator(output, Settings{Secret: testSecret, APIKey: testKey}, options),
		output:    output, ended: make(chan error, 1),
	}
	if change != nil {
		change(s.simulator)
	}
	if err := s.options.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.ended <- s.run(ctx) }()
	t.Cleanup(cancel)
	apptest.Eventually(t, "the simulator listens", func() bool { return strings.Contains(output.String(), "stand-in") })
	return s
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
		sim, path := begin(t, func(s *simulator) { s.options.Delay = time.Hour })
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
		sim.await(t, `^1 request, 1 completed$`)
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
		s.options.Speed = 1e6
		s.options.Event = ""
	})
	sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
	sim.await(t, ` completed `)
	for _, line := range []string{` attempt 1 of 8: 503`, ` retry +in 5µs$`, ` attempt 2 of 8: 503`, ` retry +in 30µs$`, ` attempt 3 of 8: 200`} {
		sim.await(t, line)
	}

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

package simulator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A takenWebhook is one that a testTarget got.
type takenWebhook struct {
	*modelriver.Event
	payload []byte
}

// A testTarget takes webhooks, if they are signed, and answers all with one status.
type testTarget struct {
	*httptest.Server
	mu       sync.Mutex
	webhooks []takenWebhook
}

func startTarget(t testing.TB, status int) *testTarget {
	t.Helper()
	verifier, err := modelriver.NewVerifier(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	target := &testTarget{}
	target.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, _ := io.ReadAll(r.Body)
		event, err := modelriver.ParseEvent(r.Header, payload)
		if err == nil {
			err = verifier.Verify(r.Header, payload)
		}
		if err != nil {
			t.Errorf("a webhook: %v in %s", err, payload)
			return
		}
		target.mu.Lock()
		target.webhooks = append(target.webhooks, takenWebhook{event, payload})
		target.mu.Unlock()
		w.WriteHeader(status)
	}))
	t.Cleanup(target.Close)
	return target
}

func (target *testTarget) taken() []takenWebhook {
	target.mu.Lock()
	defer target.mu.Unlock()
	return append([]takenWebhook(nil), target.webhooks...)
}

// request is one that asks for nothing.
func (s *testSimulator) request(t testing.TB) *http.Request {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.base+"/v1/ai/async", strings.NewReader(`{"workflow":"w"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testKey)
	return request
}

// post posts it.
func (s *testSimulator) post(t testing.TB) *http.Response {
	t.Helper()
	response, err := http.DefaultClient.Do(s.request(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func decode(t testing.TB, response *http.Response) map[string]any {
	t.Helper()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// wantStatus compares what GET /status counts; what want lacks is zero.
func (s *testSimulator) wantStatus(t testing.TB, want map[string]any) {
	t.Helper()
	response, err := http.Get(s.base + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for name, got := range decode(t, response) {
		if wanted, some := want[name]; some && got != wanted || !some && got != 0.0 {
			t.Errorf("status: got %v %s, want %v", got, name, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("status: there is no %s", name)
	}
}

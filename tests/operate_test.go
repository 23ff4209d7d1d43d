package tests

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// What an operator does when a callback has failed, in another process than the server.
func TestOperateBesideTheServer(t *testing.T) {
	t.Parallel()
	var accepts atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !accepts.Load() {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer receiver.Close()
	s := startServer(t, "")
	if out, ok := s.runCommand("modelriver", "status"); !ok || !strings.Contains(out, "received   0") {
		t.Fatalf("status before anything came: got %t\n%s", ok, out)
	}
	payload := `{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":{"title":"T"}},"callback_url":"` + receiver.URL + `/v1/callback/c1"}`
	if status := s.Send([]byte(payload)); status != 200 {
		t.Fatalf("webhook: got %d", status)
	}

	var report struct {
		Stored, Failed int
		LastError      struct{ Id, LastError string }
	}
	readStatus := func() bool {
		out, ok := s.runCommand("modelriver", "status", "--json")
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("status --json: %v in %q", err, out)
		}
		if ok != (report.Failed == 0) {
			t.Fatalf("status: ended with success %t and %d failed", ok, report.Failed)
		}
		return ok
	}
	await(t, "the callback has failed", func() bool { return !readStatus() })
	if report.Stored != 1 || !strings.Contains(report.LastError.LastError, "401 Unauthorized") {
		t.Errorf("status: got %+v", report)
	}
	out, ok := s.runCommand("modelriver", "callbacks", "--state", "failed")
	if !ok || strings.Count(out, "\n") != 2 || !strings.Contains(out, "\n"+report.LastError.Id+"\t") {
		t.Errorf("callbacks: got %t\n%s", ok, out)
	}

	accepts.Store(true)
	if out, ok := s.runCommand("modelriver", "retry", report.LastError.Id); !ok {
		t.Fatalf("retry: %s", out)
	}
	await(t, "the running server has sent it again", func() bool {
		out, _ := s.runCommand("modelriver", "callbacks", "--state", "delivered")
		return strings.Contains(out, report.LastError.Id)
	})
	if !readStatus() {
		t.Errorf("status after the retry: got %+v", report)
	}
	if out, ok := s.runCommand("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver"); ok || // the API cannot be reached from here, all else is well
		strings.Count(out, "problem") != 1 || !strings.Contains(out, "problem  API") || !strings.Contains(out, "ok       durability") {
		t.Errorf("doctor:\n%s", out)
	}
}

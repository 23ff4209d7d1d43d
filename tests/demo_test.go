package tests

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// make demo ends where another program has its port, and sends that one nothing.
func TestDemoOnATakenPort(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer other.Close()
	cmd := inRepository("make", "-s", "demo", "-o", "pocketriver", "BINARY="+buildBinary(t),
		"DEMO_ADDRESS="+other.Listener.Addr().String(), "DEMO_API="+freeAddress(t), "DEMO_EVERY=100ms")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make demo DEMO_ADDRESS=") || strings.Contains(string(out), "Dashboard:") || requests.Load() > 0 {
		t.Errorf("make demo: %v, %d requests to the other program\n%s", err, requests.Load(), out)
	}
}

// make demo, and what Ctrl-C leaves of it: nothing.
func TestDemo(t *testing.T) {
	t.Parallel()
	address, api := freeAddress(t), freeAddress(t)
	log, interrupt := startMake(t, "demo", "BINARY="+buildBinary(t), "DEMO_ADDRESS="+address, "DEMO_API="+api, "DEMO_EVERY=100ms")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output:\n%.4000s", log)
		}
	})
	await(t, "requests complete", func() bool { return strings.Count(log.String(), "  completed") >= 2 })
	checkDemo(t, "http://"+address, log.String())

	interrupt()
	for _, listened := range []string{address, api} {
		await(t, "nobody listens on "+listened, func() bool {
			connection, err := net.Dial("tcp", listened)
			if err == nil {
				connection.Close()
			}
			return err != nil
		})
	}
	if strings.Contains(log.String(), "database is locked") {
		t.Errorf("output:\n%s", log)
	}
}

// checkDemo looks that the demo has records, and that the login it prints is one.
func checkDemo(t *testing.T, url, log string) {
	t.Helper()
	response, err := http.Get(url + "/api/collections/aiContent/records")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []struct{ Title string } }
	err = json.NewDecoder(response.Body).Decode(&list)
	response.Body.Close()
	if err != nil || len(list.Items) < 2 {
		t.Errorf("records: got %+v (%v), want at least 2", list, err)
	}
	s := &server{t: t, URL: url}
	s.signInAsPrinted("_superusers", log, `sign in as (\S+) with (\S+)`)
	asker := s.signInAsPrinted("users", log, `sign in to ask: (\S+) with (\S+)`)
	var request struct{ ID string }
	s.API(asker, http.MethodPost, "/api/collections/aiRequests/records", map[string]any{
		"workflow": "story", "input": map[string]any{"messages": []map[string]string{{"role": "user", "content": "A lighthouse"}}},
	}, &request)
	await(t, "the question is answered", func() bool {
		var asked struct {
			State  string
			Expand struct{ Record struct{ Body string } }
		}
		s.API(asker, http.MethodGet, "/api/collections/aiRequests/records/"+request.ID+"?expand=record", nil, &asked)
		return asked.State == "answered" && strings.Contains(asked.Expand.Record.Body, "A lighthouse")
	})
}

// signInAsPrinted returns the token of who the log says may sign in.
func (s *server) signInAsPrinted(collection, log, pattern string) string {
	s.t.Helper()
	login := regexp.MustCompile(pattern).FindStringSubmatch(log)
	if login == nil {
		s.t.Fatalf("the demo says nothing that matches %q:\n%s", pattern, log)
	}
	token := s.SignIn(collection, login[1], login[2])
	if token == "" {
		s.t.Fatalf("%s of %s is not signed in", login[1], collection)
	}
	return token
}

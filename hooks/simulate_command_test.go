package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/simulator"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/spf13/cobra"
)

// startSimulateCommand runs the command until the test ends, and returns its output.
func startSimulateCommand(t testing.TB, target string, args ...string) *testSimulator {
	t.Helper()
	app, p := newTestApp(t, testConfig())
	sim := &testSimulator{base: "http://" + apptest.FreeAddress(t), output: &apptest.Buffer{}, ended: make(chan error, 1)}
	root := &cobra.Command{Use: "app", SilenceErrors: true}
	p.addCommands(root)
	root.SetArgs(append([]string{"modelriver", "simulate", "--listen", strings.TrimPrefix(sim.base, "http://"), "--target", target, "--delay", "0s"}, args...))
	root.SetOut(sim.output)
	root.SetErr(sim.output)
	go func() { sim.ended <- root.Execute() }()
	t.Cleanup(func() {
		terminate := &core.TerminateEvent{App: app}
		if err := app.OnTerminate().Trigger(terminate, func(*core.TerminateEvent) error { return nil }); err != nil {
			t.Error(err)
		}
		if err := <-sim.ended; err != nil {
			t.Errorf("%v\n%s", err, sim.output)
		}
	})
	eventually(t, "the simulator listens", func() bool { return strings.Contains(sim.output.String(), "stand-in") })
	return sim
}

const question = `{"workflow": "story", "request_id": "r1", "user_id": "u1", "metadata": {"request_id": "r1", "user_id": "u1"},
	"messages": [{"role": "user", "content": "A lighthouse"}]}`

// Who asks the simulator sees an answer to the question, and can tell it from others.
func TestSimulatedAnswer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args              []string
		requestID, userID string
	}{
		{nil, "r1", "u1"},
		{[]string{"--cache-fields", ""}, "", ""},
		{[]string{"--cache-fields", "category,request_id"}, "r1", ""},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, testConfig())
			sim := startSimulateCommand(t, s.url+s.plugin.config.Path, row.args...)
			sim.request(t, question)
			sim.await(t, ` webhook +attempt 1 of 8: 200`)
			content := only(t, s, store.Content)
			if title, body := content.GetString("title"), content.GetString("body"); title != "A lighthouse" || !strings.Contains(body, "> A lighthouse\n\n") {
				t.Errorf("got %q: %q, want an answer to the question", title, body)
			}
			var metadata map[string]any
			if err := content.UnmarshalJSONField("metadata", &metadata); err != nil {
				t.Fatal(err)
			}
			requestID, _ := metadata["request_id"].(string)
			if userID := content.GetString("userId"); requestID != row.requestID || userID != row.userID {
				t.Errorf("got request %q of user %q, want %q of %q", requestID, userID, row.requestID, row.userID)
			}
		})
	}
}

// The flags reach the simulator, each its own part of it.
func TestSimulateFailAndAnswer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	sim := startSimulateCommand(t, s.url+s.plugin.config.Path, "--event", "", "--fail", "503:first=1,cut:every=2", "--answer", "twice:every=2")
	for i, want := range []string{"503", "EOF", "200"} {
		if got := sim.outcome(t); got != want {
			t.Errorf("request %d: got %s, want %s", i+1, got, want)
		}
	}
	sim.await(t, ` completed (.*\n)+.* completed `)
	if rows := records(t, s, store.Content); len(rows) != 3 {
		t.Errorf("stored: got %d, want one event of a request, two of another, and nothing twice", len(rows))
	}
}

// outcome makes a request and returns the status or the error that it ends with.
func (s *testSimulator) outcome(t testing.TB) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.base+"/v1/ai/async", strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return simulator.WithoutURL(err).Error()
	}
	response.Body.Close()
	return fmt.Sprint(response.StatusCode)
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
		{"--fail", "404", "use one of 401, 402, 429, 500, 503, error, cut"},
		{"--fail", "429:2", "429:first=2"},
		{"--answer", "late", "use one of early, twice, never, error"},
		{"--answer", "early,never:every=0", `"never:every=0"`},
	} {
		_, err := runCommand(p, "simulate", row.flag, row.value)
		wantError(t, err, row.problem)
	}
}

// Ctrl-C ends the command with a summary before PocketBase ends the process.
func TestSimulateEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	address := apptest.FreeAddress(t)
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

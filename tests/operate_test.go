package tests

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// run runs a command of the binary on the server's data, beside it, and returns its
// standard output and whether it ended with status 0.
func (s *server) run(args ...string) (string, bool) {
	s.t.Helper()
	cmd := exec.Command(s.binary, append([]string{"--dev=false", "--dir", s.Dir}, args...)...)
	cmd.Env = s.env
	out, err := cmd.Output()
	return string(out), err == nil
}

// waitFor waits until the condition holds.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

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
	if out, ok := s.run("modelriver", "status"); !ok || !strings.Contains(out, "received   0") {
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
		out, ok := s.run("modelriver", "status", "--json")
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("status --json: %v in %q", err, out)
		}
		if ok != (report.Failed == 0) {
			t.Fatalf("status: ended with success %t and %d failed", ok, report.Failed)
		}
		return ok
	}
	waitFor(t, "the callback has failed", func() bool { return !readStatus() })
	if report.Stored != 1 || !strings.Contains(report.LastError.LastError, "401 Unauthorized") {
		t.Errorf("status: got %+v", report)
	}
	out, ok := s.run("modelriver", "callbacks", "--state", "failed")
	if !ok || strings.Count(out, "\n") != 2 || !strings.Contains(out, "\n"+report.LastError.Id+"\t") {
		t.Errorf("callbacks: got %t\n%s", ok, out)
	}

	accepts.Store(true)
	if out, ok := s.run("modelriver", "retry", report.LastError.Id); !ok {
		t.Fatalf("retry: %s", out)
	}
	waitFor(t, "the running server has sent it again", func() bool {
		out, _ := s.run("modelriver", "callbacks", "--state", "delivered")
		return strings.Contains(out, report.LastError.Id)
	})
	if !readStatus() {
		t.Errorf("status after the retry: got %+v", report)
	}
	if out, ok := s.run("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver"); ok || // the API cannot be reached from here, all else is well
		strings.Count(out, "problem") != 1 || !strings.Contains(out, "problem  API") || !strings.Contains(out, "ok       durability") {
		t.Errorf("doctor:\n%s", out)
	}
}

// The commands need no server, no secrets and no webhook before them.
func TestCommandsOnAFreshDataDirectory(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args   []string
		failed bool
		output string
	}{
		{[]string{"status"}, false, "received   0"},
		{[]string{"callbacks"}, false, "ID\tSTATE"},
		{[]string{"retry", "--all-failed"}, false, "No callback has failed."},
		{[]string{"retry"}, true, "name the callbacks to retry"},
		{[]string{"doctor", "--url", "http://127.0.0.1:1/webhooks/modelriver"}, true, "problem  secret       none is set"},
		{[]string{"simulate"}, true, "set MODELRIVER_WEBHOOK_SECRET"},
		{[]string{"bogus"}, true, "unknown command"},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "pb_data")
			if out, err := exec.Command(buildBinary(t), "--dev=false", "--dir", dir, "migrate", "up").CombinedOutput(); err != nil {
				t.Fatalf("migrate: %v\n%s", err, out)
			}
			cmd := exec.Command(buildBinary(t), append([]string{"--dev=false", "--dir", dir, "modelriver"}, row.args...)...)
			cmd.Env = append(os.Environ(), "MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY=", "MODELRIVER_API_URL=http://127.0.0.1:1")
			output, err := cmd.CombinedOutput()
			if failed := err != nil; failed != row.failed || !strings.Contains(string(output), row.output) {
				t.Errorf("failed: got %t, want %t with %q in:\n%s", failed, row.failed, row.output, output)
			}
		})
	}
}

// make demo ends where another program has its port, and sends that one nothing.
func TestDemoOnATakenPort(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer other.Close()
	cmd := exec.Command("make", "-s", "demo", "-o", "pocketriver", "BINARY="+buildBinary(t),
		"DEMO_ADDRESS="+other.Listener.Addr().String(), "DEMO_API="+freeAddress(t), "DEMO_EVERY=100ms")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make demo DEMO_ADDRESS=") || strings.Contains(string(out), "Dashboard:") || requests.Load() > 0 {
		t.Errorf("make demo: %v, %d requests to the other program\n%s", err, requests.Load(), out)
	}
}

// make demo, and what Ctrl-C leaves of it: nothing.
func TestDemo(t *testing.T) {
	t.Parallel()
	binary := buildBinary(t)
	address, api := freeAddress(t), freeAddress(t)
	cmd := exec.Command("make", "-s", "demo", "-o", "pocketriver", "BINARY="+binary, "DEMO_ADDRESS="+address, "DEMO_API="+api, "DEMO_EVERY=100ms")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal sends Ctrl-C to the group
	log := &output{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })

	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output:\n%.4000s", log)
		}
	})
	waitFor(t, "requests complete", func() bool {
		select {
		case <-ended:
			t.Fatalf("the demo ended by itself:\n%s", log)
		default:
		}
		return strings.Count(log.String(), "  completed") >= 2
	})
	response, err := http.Get("http://" + address + "/api/collections/aiContent/records")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []struct{ Title string } }
	err = json.NewDecoder(response.Body).Decode(&list)
	response.Body.Close()
	if err != nil || len(list.Items) < 2 {
		t.Errorf("records: got %+v (%v), want at least 2", list, err)
	}
	login := regexp.MustCompile(`sign in as (\S+) with (\S+)`).FindStringSubmatch(log.String())
	if login == nil {
		t.Fatalf("the demo says no dashboard login:\n%s", log)
	}
	s := &server{t: t, URL: "http://" + address}
	if s.SignIn("_superusers", login[1], login[2]) == "" {
		t.Error("the demo's dashboard login gives no token")
	}

	syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the demo goes on after Ctrl-C:\n%s", log)
	}
	for _, listened := range []string{address, api} {
		waitFor(t, "nobody listens on "+listened, func() bool {
			connection, err := net.Dial("tcp", listened)
			if err == nil {
				connection.Close()
			}
			return err != nil
		})
	}
	if !strings.Contains(log.String(), " completed") || strings.Contains(log.String(), "database is locked") {
		t.Errorf("output:\n%s", log)
	}
}

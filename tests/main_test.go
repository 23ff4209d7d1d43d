package tests

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		args   []string
		env    string
		failed bool
		output string
	}{
		{"help", []string{"--help"}, "", false, "modelriver"},
		{"version", []string{"--version"}, "", false, "PocketBase v0."},
		{"migrate without secrets", []string{"migrate", "up"}, "MODELRIVER_WEBHOOK_SECRET=", false, "Applied"},
		{"unknown command", []string{"bogus"}, "", true, "unknown command"},
		{"unknown subcommand flag", []string{"serve", "--bogus"}, "", true, "unknown flag"},
		{"a command that fails", []string{"superuser", "create", "nobody"}, "", true, "missing email"},
		{"too many arguments", []string{"modelriver", "send", "a", "b"}, "", true, "accepts at most 1"},
		{"serve on a taken port", []string{"serve", "--http", "TAKEN"}, "", true, "address already in use"},
		{"send without a secret", []string{"modelriver", "send"}, "MODELRIVER_WEBHOOK_SECRET=", true, "set MODELRIVER_WEBHOOK_SECRET"},
		{"blank secret", []string{"serve", "--http", "TAKEN"}, "MODELRIVER_WEBHOOK_SECRET=a,,b", true, "secret 2 of 3 is blank"},
		{"host that is none", []string{"serve", "--http", "TAKEN"}, "MODELRIVER_CALLBACK_HOSTS=https://x", true, "use host or host:port"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			taken := httptest.NewServer(http.NotFoundHandler())
			defer taken.Close()
			args := append([]string{"--dir", filepath.Join(t.TempDir(), "pb_data")}, row.args...)
			for i := range args {
				args[i] = strings.Replace(args[i], "TAKEN", taken.Listener.Addr().String(), 1)
			}
			cmd := exec.Command(buildBinary(t), args...)
			cmd.Env = append(os.Environ(), row.env)
			output, err := cmd.CombinedOutput()
			if failed := err != nil; failed != row.failed || !strings.Contains(string(output), row.output) {
				t.Errorf("failed: got %t (%v), want %t with %q in:\n%s", failed, err, row.failed, row.output, output)
			}
		})
	}
}

// A process that dies after the 200 and before the callback leaves both to be done by
// the next one.
func TestKillBetweenAnswerAndCallback(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies []string
	arrived, hang := make(chan struct{}, 10), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		bodies = append(bodies, string(body))
		first := len(bodies) == 1
		mu.Unlock()
		arrived <- struct{}{}
		if first {
			<-hang
		}
	}))
	defer receiver.Close()
	defer close(hang)

	s := startServer(t, "")
	token := s.Superuser()
	payload := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":{"title":"Survives"}},"callback_url":"%s/v1/callback/c1"}`, receiver.URL)
	if status := s.Send([]byte(payload)); status != 200 {
		t.Fatalf("webhook: got %d", status)
	}
	<-arrived // and never answered
	s.Restart()
	<-arrived

	deadline := time.Now().Add(20 * time.Second)
	for {
		var list struct{ Items []struct{ State string } }
		s.API(token, http.MethodGet, "/api/collections/modelriverCallbacks/records", nil, &list)
		if len(list.Items) == 1 && list.Items[0].State == "delivered" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("callbacks: got %+v, want one that is delivered", list.Items)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(bodies) != 2 || bodies[0] != bodies[1] || !strings.Contains(bodies[0], `"title":"Survives"`) {
		t.Errorf("callbacks: got %q, want the same twice", bodies)
	}
}

// What a Go host does with hooks, a pb_hooks file does too.
func TestJavaScriptHooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hooks := filepath.Join(dir, "pb_hooks")
	if err := os.MkdirAll(hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	alarms := make(chan string, 10)
	alarm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		alarms <- string(body)
	}))
	defer alarm.Close()
	script := `
onRecordCreate((e) => {
  const data = JSON.parse(toString(e.record.get("data")));
  if (data.title === "Forbidden") {
    throw new BadRequestError("Not here.");
  }
  data.slug = data.title.toLowerCase();
  e.record.set("data", data);
  e.next();
}, "aiContent");

onRecordAfterUpdateSuccess((e) => {
  if (e.record.get("state") === "failed") {
    $http.send({ url: "` + alarm.URL + `", method: "POST", body: e.record.get("lastError") });
  }
  e.next();
}, "modelriverCallbacks");
`
	if err := os.WriteFile(filepath.Join(hooks, "main.pb.js"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}

	callbacks := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		callbacks <- string(body)
	}))
	defer receiver.Close()

	s := startServer(t, filepath.Join(dir, "pb_data"))
	for _, row := range []struct{ title, callback string }{
		{"Welcome", `"slug":"welcome"`},
		{"Forbidden", `{"error":"processing_failed","message":"refused: Not here."}`},
	} {
		payload := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":%q,"ai_response":{"data":{"title":%[1]q}},"callback_url":"%s/v1/callback/%[1]s"}`, row.title, receiver.URL)
		if status := s.Send([]byte(payload)); status != 200 {
			t.Fatalf("%s: got %d", row.title, status)
		}
		select {
		case got := <-callbacks:
			if !strings.Contains(got, row.callback) {
				t.Errorf("%s: callback: got %s, want %s in it", row.title, got, row.callback)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no callback", row.title)
		}
	}
	select {
	case got := <-alarms:
		if got != "refused: Not here." {
			t.Errorf("alarm: got %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("no alarm")
	}
}

func TestServeWithoutTerminalPrintsNoToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Stop()
	if output := s.output.String(); strings.Contains(output, "pbinstall") || strings.Contains(output, "eyJ") {
		t.Errorf("output shows an installer link:\n%s", output)
	}
}

func TestPublicDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, publicDir, has string
		policy               bool // a page of one's own may need what ours forbids
	}{
		{"the embedded page", "", "<title>PocketRiver", true},
		{"a folder instead", dir, "mine", false},
	} {
		s := startServer(t, "")
		if row.publicDir != "" {
			s.Kill()
			s.args = append(s.args, "--publicDir", row.publicDir)
			s.Start()
		}
		response, err := http.Get(s.URL + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if !strings.Contains(string(body), row.has) {
			t.Errorf("%s: got %.200s", row.name, body)
		}
		if got := response.Header.Get("Content-Security-Policy"); (got != "") != row.policy {
			t.Errorf("%s: content policy: got %q, want one: %t", row.name, got, row.policy)
		}
	}
}

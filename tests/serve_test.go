package tests

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBinaryServesAndRestartsOnTheSameData(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	if status := s.Send([]byte(`{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":{"title":"Kept"}}}`)); status != 200 {
		t.Fatalf("webhook: got %d, want 200", status)
	}
	for _, end := range []func(){s.Kill, s.Stop} {
		end()
		s.Start()
		var list struct{ Items []struct{ Title string } }
		s.API(token, http.MethodGet, "/api/collections/aiContent/records", nil, &list)
		if len(list.Items) != 1 || list.Items[0].Title != "Kept" {
			t.Fatalf("after a restart: got %+v, want the one record", list.Items)
		}
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
	dir := filepath.Join(t.TempDir(), "pb_data")
	alarm, alarms := receivePosts(t, 200)
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
    $http.send({ url: "` + alarm + `", method: "POST", body: e.record.get("lastError") });
  }
  e.next();
}, "modelriverCallbacks");
`
	writeBeside(t, dir, "pb_hooks/main.pb.js", script)

	receiver, callbacks := receivePosts(t, 200)
	s := startServer(t, dir)
	for _, row := range []struct{ title, callback string }{
		{"Welcome", `"slug":"welcome"`},
		{"Forbidden", `{"error":"processing_failed","message":"refused: Not here."}`},
	} {
		payload := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":%q,"ai_response":{"data":{"title":%[1]q}},"callback_url":"%s/v1/callback/%[1]s"}`, row.title, receiver)
		s.mustSend([]byte(payload))
		wantBody(t, callbacks, row.callback)
	}
	if got := nextBody(t, alarms); got != "refused: Not here." {
		t.Errorf("alarm: got %q", got)
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

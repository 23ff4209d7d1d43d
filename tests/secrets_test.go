package tests

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/tools/archive"
)

// Neither the key nor the secret is anywhere but in the environment and in the
// Authorization header of callbacks.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	const secret, key, metrics = "mr_whsec_5d1c0f6e2b", "mr_live_93ab41c7d2", "metrics_71f0a9d3c4"
	m := newModelRiver(t, "", 1)
	echo := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(400)
		fmt.Fprintf(w, "bad header %q", r.Header.Get("Authorization"))
	})
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET="+secret, "MODELRIVER_API_KEY="+key, "MODELRIVER_METRICS_TOKEN="+metrics)
	token := s.Superuser()
	for i, to := range []string{echo.url, closedPort(t), "https://evil.example"} {
		body := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"leak-%d","callback_url":%q,"ai_response":{"data":{}}}`, i, to+"/x")
		if status, _ := postWebhook(t, s, http.Header{"Mr-Signature": {sign(secret, body)}}, body); status != 200 {
			t.Fatalf("webhook: got %d", status)
		}
		postWebhook(t, s, http.Header{"Mr-Signature": {sign("wrong", body)}}, body)
	}
	db := openDatabase(t, s.Dir)
	await(t, "the callbacks fail", func() bool { return countRows(t, db, "modelriverCallbacks WHERE state = 'failed'") >= 2 })

	seen := map[string]string{}
	readAnswers(s, token, seen)
	if !strings.Contains(seen[callbackRecords], "[API key]") {
		t.Errorf("the echoed key was not replaced: %s", seen[callbackRecords])
	}
	s.API(token, http.MethodPost, "/api/backups", map[string]string{"name": "leak.zip"}, nil)
	time.Sleep(3500 * time.Millisecond) // logs are written every 3 s
	s.Stop()
	seen["what the process prints"] = s.output.String()
	readCommands(s, seen)
	unpacked := t.TempDir()
	if err := archive.Extract(filepath.Join(s.Dir, "backups", "leak.zip"), unpacked); err != nil {
		t.Fatal(err)
	}
	readFiles(t, s.Dir, seen)
	readFiles(t, unpacked, seen)
	for where, text := range seen {
		if strings.Contains(text, key) || strings.Contains(text, secret) || strings.Contains(text, metrics) {
			t.Errorf("a secret is in %s", where)
		}
	}
}

// readAnswers adds what the server tells a superuser to what was seen, headers included.
func readAnswers(s *server, token string, seen map[string]string) {
	s.t.Helper()
	for _, path := range []string{
		"/", "/_/", "/_/extensions.js", "/api/health", "/api/settings", "/api/collections", "/api/crons", "/api/logs?perPage=500",
		contentRecords, callbackRecords, "/webhooks/modelriver", "/api/collections/modelriverRejections/records",
		"/api/modelriver/stats", "/api/modelriver/rejections", "/api/modelriver/chart", "/api/modelriver/doctor", "/api/modelriver/metrics",
	} {
		request, _ := http.NewRequest(http.MethodGet, s.URL+path, nil)
		request.Header.Set("Authorization", token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			s.t.Fatal(err)
		}
		b, _ := io.ReadAll(response.Body)
		response.Body.Close()
		seen[path] = fmt.Sprint(response.Header, string(b))
	}
}

// readCommands adds what commands print, those that fail included.
func readCommands(s *server, seen map[string]string) {
	for _, args := range [][]string{{"--help"}, {"modelriver", "--help"}, {"modelriver", "send", "--url", s.URL}, {"serve", "--http", "256.0.0.1:1"}} {
		command := exec.Command(s.binary, append(args, "--dir", s.Dir)...)
		command.Env = s.env
		out, _ := command.CombinedOutput()
		seen[fmt.Sprint(args)] = string(out)
	}
}

// readFiles adds every file of a folder.
func readFiles(t *testing.T, dir string, seen map[string]string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		seen[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

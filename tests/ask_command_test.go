package tests

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runAsk runs the command on the server's data, which may be running, with an input that it
// may read, and returns what it wrote, both streams apart, and its exit status.
func (s *server) runAsk(stdin string, args ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, append([]string{"modelriver", "ask", "--dev=false", "--dir", s.Dir}, args...)...)
	var out, errors strings.Builder
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.env, strings.NewReader(stdin), &out, &errors
	_ = cmd.Run() // the status tells
	return out.String(), errors.String(), cmd.ProcessState.ExitCode()
}

// The command asks beside a running server, waits, and shows the answer.
func TestAskCommand(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t, "--delay", "600ms")
	root := s.Superuser()
	s.user(root, "ann@example.com")
	var users struct{ Items []struct{ Id string } }
	s.API(root, http.MethodGet, "/api/collections/users/records", nil, &users)

	stdout, stderr, status := s.runAsk("", "--workflow", "story", "--message", "Why is the sky blue?", "--user", users.Items[0].Id)
	if status != 0 || !strings.Contains(stdout, "\nWhy is the sky blue?\n\n> Why is the sky blue?") || !strings.Contains(stdout, "\nrecord ") {
		t.Errorf("as text: status %d\n%s", status, stdout)
	}
	if !strings.HasPrefix(stderr, "request ") || strings.Count(stderr, "\nsent after ") != 1 || strings.Count(stderr, "\nanswered after ") != 1 {
		t.Errorf("progress: got %q", stderr)
	}
	if got := s.titles(s.SignIn("users", "ann@example.com", testPassword)); got != "Why is the sky blue?" {
		t.Errorf("the user sees %q", got)
	}
	if got := s.titles(""); got != "" {
		t.Errorf("a guest sees %q, want nothing", got)
	}

	const input = `{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"From a file"}]}`
	file := filepath.Join(t.TempDir(), "input.json")
	if err := os.WriteFile(file, []byte(input), 0o600); err != nil {
		t.Fatal(err)
	}
	for source, title := range map[string]string{file: "From a file", "-": "From standard input"} {
		stdout, stderr, status := s.runAsk(strings.Replace(input, "a file", "standard input", 1), "--workflow", "story", "--input", source, "--json")
		var answer struct{ Id, Title, UserId, CollectionName string }
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil || status != 0 || answer.Title != title ||
			answer.Id == "" || answer.UserId != "" || answer.CollectionName != "aiContent" {
			t.Errorf("--input %s --json: status %d, got %+v (%v) of\n%s%s", source, status, answer, err, stdout, stderr)
		}
	}
}

// What fails ends with status 1, and says why once, on standard error; the request that was
// not answered in time goes on.
func TestAskCommandFails(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t, "--fail", "error:first=1", "--delay", "8s")
	wrong := filepath.Join(t.TempDir(), "input.json")
	if err := os.WriteFile(wrong, []byte(`["no object"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.json")
	for _, row := range []struct {
		name   string
		args   []string
		error  string // the last line
		asks   bool
		answer string // that comes later
	}{
		{"a user who does not exist", []string{"--message", "Why?", "--user", "nobody"}, "--user nobody: there is no such user: take the id from the collection users in the dashboard", false, ""},
		{"ModelRiver fails", []string{"--message", "Why?"}, "the request failed: All providers of the workflow failed. The simulator says so because it was asked to; nothing is broken.", true, ""},
		{"no answer in time", []string{"--message", "Late?", "--wait", "6s"}, " is still sent: its answer is stored when it comes", true, "Late?"},
		{"a file that is not there", []string{"--input", missing}, missing + ": no such file or directory", false, ""},
		{"a file that holds no object", []string{"--input", wrong}, "--input " + wrong + ": it is not a JSON object", false, ""},
		{"nothing to ask", nil, "say what to ask: either --message TEXT or --input FILE", false, ""},
		{"two things to ask", []string{"--message", "Why?", "--input", wrong}, "say what to ask: either --message TEXT or --input FILE", false, ""},
		{"no workflow", []string{"--workflow", "", "--message", "Why?"}, "name the workflow with --workflow", false, ""},
		{"standard input that is empty", []string{"--input", "-"}, "--input -: it is not a JSON object", false, ""},
	} {
		stdout, stderr, status := s.runAsk("", append([]string{"--workflow", "story"}, row.args...)...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		last := lines[len(lines)-1]
		if status != 1 || stdout != "" || !strings.HasPrefix(last, "Error: ") || !strings.HasSuffix(last, row.error) ||
			strings.Count(stderr, row.error) != 1 || strings.HasPrefix(stderr, "request ") != row.asks {
			t.Errorf("%s: status %d, output %q, error %q", row.name, status, stdout, stderr)
		}
		if row.answer != "" {
			await(t, "the answer is stored", func() bool { return s.titles("") == row.answer })
		}
	}
	var list struct{ TotalItems int }
	s.API(s.Superuser(), http.MethodGet, requestsPath, nil, &list)
	if list.TotalItems != 2 {
		t.Errorf("got %d requests, want those two that could be asked", list.TotalItems)
	}
}

// Without a server the command says so, and the request is sent once there is one.
func TestAskCommandWithoutServer(t *testing.T) {
	t.Parallel()
	river := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	t.Cleanup(river.Close)
	s := startServer(t, "", "MODELRIVER_API_URL="+river.URL)
	s.Stop()
	stdout, stderr, status := s.runAsk("", "--workflow", "story", "--message", "Is anybody there?", "--wait", "17s")
	if status != 1 || stdout != "" || strings.Count(stderr, "No server has taken it yet: is one running on "+s.Dir+"?\n") != 1 ||
		!strings.HasSuffix(stderr, " is still queued: its answer is stored when it comes\n") {
		t.Errorf("status %d, output %q, error %q", status, stdout, stderr)
	}
	s.Start()
	root := s.Superuser()
	await(t, "the request is sent", func() bool {
		var list struct {
			Items []struct{ State, Error string }
		}
		s.API(root, http.MethodGet, requestsPath, nil, &list)
		return len(list.Items) == 1 && list.Items[0].State == "failed" && list.Items[0].Error == "ModelRiver refused the request: 400 Bad Request"
	})

	if _, stderr, status := s.runAsk("", "--workflow", "story", "--message", "Why?", "--dir", filepath.Join(t.TempDir(), "pb_dta")); status != 1 || !strings.Contains(stderr, "no data was found in") {
		t.Errorf("a directory with a typo: status %d, error %q", status, stderr)
	}
}

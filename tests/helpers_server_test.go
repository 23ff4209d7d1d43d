package tests

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// What startServer sets in the environment, unless it is given another value.
const (
	testSecret   = "test-secret"
	testKey      = "test-key"
	testEmail    = "root@example.com" // of the superuser, see server.superuser
	testPassword = "correct horse"
)

// A server is the real binary, run with serve on a port of its own.
type server struct {
	t      testing.TB
	binary string
	URL    string // without a slash at the end
	Dir    string // the data directory
	env    []string
	args   []string // more of serve, from the next Start on

	cmd    *exec.Cmd
	output *output
	exited chan struct{} // closed when the process has ended
}

// startServer builds the binary and starts it on a free port with the data directory
// dir, a temporary one if empty, and the given "NAME=value" on top of a secret, a key
// and callbacks to loopback. It returns once the server answers; the process is killed
// when the test ends.
func startServer(t testing.TB, dir string, env ...string) *server {
	t.Helper()
	return startServerBinary(t, buildBinary(t), dir, env...)
}

// startServerBinary is startServer for another build of the binary.
func startServerBinary(t testing.TB, binary, dir string, env ...string) *server {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	s := newServer(t, binary, dir, env...)
	s.Start()
	return s
}

// newServer is startServerBinary without the start.
func newServer(t testing.TB, binary, dir string, env ...string) *server {
	t.Helper()
	s := &server{t: t, binary: binary, URL: "http://" + freeAddress(t), Dir: dir, output: &output{}}
	s.env = append(os.Environ(),
		"MODELRIVER_WEBHOOK_SECRET="+testSecret, "MODELRIVER_API_KEY="+testKey, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1")
	s.env = append(s.env, env...)
	t.Cleanup(s.Kill)
	return s
}

// Start starts the process again after Kill or Stop, on the same port and data, and
// returns once it answers.
func (s *server) Start() {
	s.t.Helper()
	s.launch()
	s.awaitStarted()
}

// awaitStarted returns once a process that was launched answers.
func (s *server) awaitStarted() {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if response, err := http.Get(s.URL + "/api/health"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.exited:
			s.t.Fatalf("the server ended: %s\n%s", s.cmd.ProcessState, s.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.t.Fatalf("the server does not answer\n%s", s.output)
}

// launch starts the process.
func (s *server) launch() {
	s.t.Helper()
	// PocketBase takes a binary in the temporary directory for one of `go run`, and then
	// prints every query.
	s.cmd = exec.Command(s.binary, append([]string{"serve", "--dev=false", "--dir", s.Dir, "--http", strings.TrimPrefix(s.URL, "http://")}, s.args...)...)
	s.cmd.Env = s.env
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	go func() {
		cmd.Wait()
		close(exited)
	}()
}

// Kill ends the process as kill -9 does. It does nothing if it has ended.
func (s *server) Kill() {
	if s.exited != nil {
		s.cmd.Process.Kill()
		<-s.exited
	}
}

// Stop ends the process as an operator does, and waits for it.
func (s *server) Stop() {
	s.t.Helper()
	s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the server does not stop\n%s", s.output)
	}
}

// Restart is Kill, then Start.
func (s *server) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// runOn runs the binary on a data directory in an environment and returns what it wrote,
// both streams apart, and whether it ended with status 0.
func runOn(t testing.TB, binary, dir string, env []string, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--dev=false", "--dir", dir}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out, errors strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errors
	err := cmd.Run()
	return out.String(), errors.String(), err == nil
}

// runCommand runs a command of the binary on the server's data, beside it, and returns its
// standard output and whether it ended with status 0.
func (s *server) runCommand(args ...string) (string, bool) {
	s.t.Helper()
	cmd := exec.Command(s.binary, append([]string{"--dev=false", "--dir", s.Dir}, args...)...)
	cmd.Env = s.env
	out, err := cmd.Output()
	return string(out), err == nil
}

// newDataDir returns a data directory that does not exist yet, with refusingHook beside it.
func newDataDir(t testing.TB, base string) string {
	t.Helper()
	dir := filepath.Join(base, "pb_data")
	writeBeside(t, dir, "pb_hooks/refuse.pb.js", refusingHook)
	return dir
}

// writeBeside writes a file of the folder that a data directory is in.
func writeBeside(t testing.TB, dataDir, name, text string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(dataDir), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// residentMemory returns how many bytes of memory the process has.
func residentMemory(t testing.TB, s *server) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	kb, _ := strconv.Atoi(string(match[1]))
	return kb << 10
}

// openDatabase opens the data of a server for reading, which may be running.
func openDatabase(t testing.TB, dir string) *dbx.DB {
	t.Helper()
	db, err := core.DefaultDBConnect(filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// countRows counts the rows of a table, which a condition may follow.
func countRows(t testing.TB, db *dbx.DB, from string) (n int) {
	t.Helper()
	if err := db.NewQuery("SELECT COUNT(*) FROM " + from).Row(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

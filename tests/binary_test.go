package tests

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What startServer sets in the environment, unless it is given another value.
const (
	testSecret   = "test-secret"
	testKey      = "test-key"
	testEmail    = "root@example.com" // of the superuser, see server.superuser
	testPassword = "correct horse"
)

var buildDir string // holds the built binary, for all tests of this process

func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil { // where a user stands
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "pocketriver"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The tests wait for processes far more than they compute.
	flag.Parse()
	flag.VisitAll(func(f *flag.Flag) {
		if f.Name == "test.parallel" && f.Value.String() == f.DefValue {
			f.Value.Set("8")
		}
	})
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

var buildOnce = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "pocketriver")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, err
})

// buildBinary builds the binary once and returns its path.
func buildBinary(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

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

// lastPort is the last port that freeAddress gave.
var lastPort atomic.Int32

func init() { lastPort.Store(int32(15000 + os.Getpid()%8000)) }

// freeAddress returns an address that nothing listens on. It is given once, and it lies
// below the ports that the system hands out, so that nobody takes it meanwhile.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", lastPort.Add(1))
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// startServerBinary is startServer for another build of the binary.
func startServerBinary(t testing.TB, binary, dir string, env ...string) *server {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	s := &server{t: t, binary: binary, URL: "http://" + freeAddress(t), Dir: dir, output: &output{}}
	s.env = append(os.Environ(),
		"MODELRIVER_WEBHOOK_SECRET="+testSecret, "MODELRIVER_API_KEY="+testKey, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1")
	s.env = append(s.env, env...)
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// Start starts the process again after Kill or Stop, on the same port and data, and
// returns once it answers.
func (s *server) Start() {
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

	deadline := time.Now().Add(60 * time.Second)
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

// Send posts payload as a signed webhook and returns the status of the answer, or 0 if
// there was none.
func (s *server) Send(payload []byte) int {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.URL+"/webhooks/modelriver", bytes.NewReader(payload))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := modelriver.Sign(request.Header, "body", testSecret, time.Now(), payload); err != nil {
		s.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.StatusCode
}

// API calls PocketBase's API and decodes the answer into result, unless that is nil.
// It fails the test if the status is not 2xx.
func (s *server) API(token, method, path string, body, result any) {
	s.t.Helper()
	payload, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := http.NewRequest(method, s.URL+path, bytes.NewReader(payload))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s %s", method, path, response.Status, answer)
	}
	if result != nil {
		if err := json.Unmarshal(answer, result); err != nil {
			s.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
}

// Superuser creates the superuser testEmail and returns a token of theirs.
func (s *server) Superuser() string {
	s.t.Helper()
	out, err := exec.Command(s.binary, "superuser", "upsert", testEmail, testPassword, "--dir", s.Dir).CombinedOutput()
	if err != nil {
		s.t.Fatalf("superuser upsert: %v\n%s", err, out)
	}
	return s.SignIn("_superusers", testEmail, testPassword)
}

// SignIn returns a token of a record of an auth collection.
func (s *server) SignIn(collection, identity, password string) string {
	s.t.Helper()
	var auth struct{ Token string }
	s.API("", http.MethodPost, "/api/collections/"+collection+"/auth-with-password",
		map[string]string{"identity": identity, "password": password}, &auth)
	return auth.Token
}

// output collects what the processes write; it may be read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

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

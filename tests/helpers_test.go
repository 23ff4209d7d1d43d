// Package tests attacks the built binary from outside, as its users and their enemies do:
// over HTTP, in a browser, on its command line, and through make.
package tests

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// repository is the root of the repository, whose files the tests read.
var repository, _ = filepath.Abs("..")

// inRepository returns a command that runs at the root of the repository.
func inRepository(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = repository
	return cmd
}

// repositoryFile returns the text of a file of the repository.
func repositoryFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// snippet returns the code that a page has under a heading.
func snippet(t testing.TB, page, heading string) string {
	t.Helper()
	_, section, ok := strings.Cut(repositoryFile(t, page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s: has no heading %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	code := regexp.MustCompile("(?s)\n```[a-z]+\n(.*?)\n```").FindStringSubmatch(section)
	if code == nil {
		t.Fatalf("%s: no code under %q", page, heading)
	}
	return code[1]
}

var buildDir string // holds the built binary, for all tests of this process

func TestMain(m *testing.M) {
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
	out, err := inRepository("go", "build", "-o", path, ".").CombinedOutput()
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

// patience is how long anything may take to come about. It decides nothing but when a
// test that fails ends.
const patience = 3 * time.Minute

// await waits until the condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// ports are those that freeAddress gives. The first of so many in a row is listened at as long as this process runs, so that no
// other one gives them meanwhile.
var ports struct {
	sync.Mutex
	first net.Listener
	next  int
}

const portsInARow = 3000 // more than all tests take

// freeAddress returns an address that nothing listens on. It is not given again before all others, and it lies
// below the ports that the system hands out, so that nobody takes it meanwhile.
func freeAddress(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for first := 12000; ports.first == nil; first += portsInARow {
		if first == 24000 { // where those of another package's tests begin
			t.Fatal("no free ports")
		}
		ports.first, _ = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first))
	}
	first := ports.first.Addr().(*net.TCPAddr).Port
	for range portsInARow {
		ports.next = ports.next%(portsInARow-1) + 1
		address := fmt.Sprintf("127.0.0.1:%d", first+ports.next)
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// closedPort returns the URL of a port that refuses connections.
func closedPort(t testing.TB) string { return "http://" + freeAddress(t) }

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

func jsonText(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return string(raw)
}

package hooks

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A host is the app of testdata/embed, which takes the plugin with one line.
type host struct {
	t             *testing.T
	with, without string // the binaries
	dir           string
	url           string
}

func (h *host) command(without bool, args ...string) *exec.Cmd {
	hooksDir, err := filepath.Abs("testdata/embed/pb_hooks")
	if err != nil {
		h.t.Fatal(err)
	}
	binary := h.with
	if without {
		binary = h.without
	}
	cmd := exec.Command(binary, append([]string{"--dev=false", "--dir", h.dir}, args...)...)
	cmd.Env = append(os.Environ(), "HOST_SECRET="+testSecret, "HOST_KEY="+testKey, "HOST_HOOKS="+hooksDir)
	return cmd
}

// serve runs do while the host serves, with the plugin or without.
func (h *host) serve(without bool, do func()) {
	h.t.Helper()
	address := apptest.FreeAddress(h.t)
	h.url = "http://" + address
	cmd := h.command(without, "serve", "--http", address)
	var log apptest.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("the host ended: %v\n%s", err, &log)
		}
	}()
	eventually(h.t, "the host serves", func() bool {
		response, err := http.Get(h.url + "/api/health")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	do()
}

func (h *host) send(path, payload string) int {
	h.t.Helper()
	request, err := http.NewRequest(http.MethodPost, h.url+path, strings.NewReader(payload))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := modelriver.Sign(request.Header, "body", testSecret, time.Now(), []byte(payload)); err != nil {
		h.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// rows reads a column beside the host.
func (h *host) rows(query string) []string {
	h.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(h.dir, "data.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	found, err := db.Query(query)
	if err != nil {
		h.t.Fatal(err)
	}
	defer found.Close()
	var values []string
	for found.Next() {
		var value string
		if err := found.Scan(&value); err != nil {
			h.t.Fatal(err)
		}
		values = append(values, value)
	}
	if err := found.Err(); err != nil {
		h.t.Fatal(err)
	}
	return values
}

func (h *host) want(query string, want ...string) {
	h.t.Helper()
	if got := h.rows(query); fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.Errorf("%s: got %q, want %q", query, got, want)
	}
}

// A host with collections, migrations and pb_hooks of its own takes the plugin, loses
// it, and takes it again.
func TestEmbedding(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	bin := t.TempDir()
	h := &host{t: t, with: filepath.Join(bin, "with"), without: filepath.Join(bin, "without"), dir: filepath.Join(t.TempDir(), "pb_data")}
	for _, name := range []string{"go.mod", "go.sum"} { // which may lag behind those of this module
		text, err := os.ReadFile(filepath.Join("testdata/embed", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for tags, binary := range map[string]string{"": h.with, "without": h.without} {
		build := exec.Command("go", "build", "-mod=mod", "-modfile="+filepath.Join(bin, "go.mod"), "-tags="+tags, "-o", binary, ".")
		build.Dir = "testdata/embed"
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", build, err, out)
		}
	}
	const titles, notes = "SELECT title FROM aiContent ORDER BY title", "SELECT text FROM notes ORDER BY text"

	// Without the plugin first: the app exists before it.
	h.serve(true, func() { h.want(notes) })

	h.serve(false, func() {
		if status := h.send("/webhooks/modelriver", generated("c1", `{"title":"A"}`, "")); status != 404 {
			t.Errorf("the default path: got %d, want 404", status)
		}
		if status := h.send("/in/ai", generated("c1", `{"title":"A","long":"`+strings.Repeat("x", 2048)+`"}`, "")); status != 413 {
			t.Errorf("over the limit: got %d, want 413", status)
		}
		if status := h.send("/in/ai", generated("c1", `{"title":"A"}`, r.callbackURL("c1"))); status != 200 {
			t.Errorf("webhook: got %d, want 200", status)
		}
		r.await(t, 1)
		eventually(t, "the host's hook has run", func() bool { return len(h.rows(notes)) == 1 })
		h.want(titles, "A")
		h.want(notes, "stored A")
		out, err := h.command(false, "modelriver", "status").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "stored     1") {
			t.Errorf("status: %v\n%s", err, out)
		}
		testHostCommands(h)
	})

	// Removed, and its migration forgotten.
	if out, err := h.command(true, "migrate", "history-sync").CombinedOutput(); err != nil {
		t.Fatalf("history-sync: %v\n%s", err, out)
	}
	h.want("SELECT file FROM _migrations WHERE file LIKE '%modelriver%'")
	h.serve(true, func() {
		if status := h.send("/in/ai", generated("c2", `{"title":"B"}`, "")); status != 404 {
			t.Errorf("without the plugin: got %d, want 404", status)
		}
		h.want(titles, "A")
	})

	// Added again: what was stored is known, and more is.
	h.serve(false, func() {
		for _, payload := range []string{generated("c1", `{"title":"A"}`, r.callbackURL("c1")), generated("c2", `{"title":"B"}`, r.callbackURL("c2"))} {
			if status := h.send("/in/ai", payload); status != 200 {
				t.Errorf("added again: got %d, want 200", status)
			}
		}
		r.await(t, 2)
		eventually(t, "the host's hook has run", func() bool { return len(h.rows(notes)) == 2 })
		h.want(titles, "A", "B")
	})

	// The host's newest migration may be the plugin's: reverting it keeps the data.
	down := h.command(false, "migrate", "down", "1")
	down.Stdin = strings.NewReader("y\n")
	if out, err := down.CombinedOutput(); err != nil {
		t.Fatalf("migrate down: %v\n%s", err, out)
	}
	h.serve(false, func() { h.want(titles, "A", "B") })
}

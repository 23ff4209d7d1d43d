package tests

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// holdRestore has a store hold up whoever reads a file of the replica as a whole, as a restore does, halfway.
// held is closed once somebody does; letGo has them go on.
func holdRestore(store *replicaStore) (held chan struct{}, letGo func()) {
	held, going := make(chan struct{}), make(chan struct{})
	var first sync.Once
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, ".ltx") || r.Header.Get("Range") != "" {
			s3.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		s3.ServeHTTP(answer, r)
		content := answer.Body.Bytes()
		maps.Copy(w.Header(), answer.Header())
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.WriteHeader(answer.Code)
		w.Write(content[:len(content)/2])
		w.(http.Flusher).Flush()
		first.Do(func() { close(held) })
		select {
		case <-going:
			w.Write(content[len(content)/2:])
		case <-r.Context().Done():
		}
	})
	return held, sync.OnceFunc(func() { close(going) })
}

// A server that starts while the replica is verified disturbs that in nothing, and what a verify leaves that
// is killed goes with the next.
func TestRestoreVerifiesWhileAServerStarts(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "First")
	s.Stop()
	left := filepath.Join(s.Dir, ".replica-verify")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "data.db"), []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, letGo := holdRestore(store)
	defer letGo()
	ended := make(chan struct{})
	var out, errs string
	var ok bool
	go func() {
		defer close(ended)
		out, errs, ok = runOn(t, s.binary, s.Dir, s.env, "restore", "--verify")
	}()
	<-held
	if _, errs, ok := runOn(t, s.binary, s.Dir, s.env, "restore", "--verify"); ok || !strings.Contains(errs, "restore --verify runs on "+s.Dir+" already") {
		t.Errorf("a second one beside it: %s", errs)
	}
	s.Start()
	letGo()
	<-ended
	if !ok {
		t.Errorf("--verify: %s%s", out, errs)
	}
	wantText(t, out, "aiContent 1", "The replica is whole")
	if status, _ := s.runCommand("modelriver", "status"); !strings.Contains(status, "; verified ") {
		t.Errorf("status: %s", status)
	}
	if _, err := os.Stat(left); err == nil {
		t.Errorf("%s is left", left)
	}
}

// A server without REPLICA_URL does not start while the database is restored beneath it.
func TestRestoreKeepsAServerWithoutReplicaAway(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "First")
	s.Stop()
	held, letGo := holdRestore(store)
	defer letGo()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if out, errs, ok := runOn(t, s.binary, s.Dir, s.env, "restore"); !ok {
			t.Errorf("restore: %s%s", out, errs)
		}
	}()
	<-held
	other := s.another(s.Dir)
	other.env = append(other.env, "REPLICA_URL=")
	other.launch()
	await(t, "it serves or ends", func() bool {
		select {
		case <-other.exited:
			return true
		default:
			return other.serves()
		}
	})
	if other.serves() {
		t.Error("it serves what is about to be replaced")
	}
	letGo()
	<-ended
	other.Kill()
	wantText(t, other.output.String(), "a server runs on "+s.Dir+", or a restore")
	other.Start()
	other.wantTitles([]string{"First"})
	beside := other.another(s.Dir) // which nothing kept from it before
	beside.Start()
}

package tests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What the refusal of a start advises, "to ship the one that is here, set REPLICA_URL to an empty
// place", ships all of it, also when the server is older than five minutes and the first local files
// are gone.
func TestReplicaInAnEmptyPlaceAfterFiveMinutes(t *testing.T) {
	t.Parallel()
	s := startServer(t, newDataDir(t, t.TempDir()), append(newFolderStore(t).env, "REPLICA_ACK=wait")...)
	s.sendTitled(numbered("Before", 5)...)
	s.Stop()
	// What keeper.forgetSeconds leaves: the newest only.
	files, err := filepath.Glob(filepath.Join(s.Dir, ".replica/ltx/0/*.ltx"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files[:len(files)-1] {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s.env = append(s.env, newFolderStore(t).env...)
	s.Start()
	status := 0
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && status != 200; time.Sleep(time.Second) {
		status = s.Send(payload("channel-after", "After", ""))
	}
	if status != 200 {
		state, _ := os.ReadFile(filepath.Join(s.Dir, ".replica/state.json"))
		t.Errorf("webhook: got %d for 20 seconds: %s", status, state)
	}
}

// Where the store fails when a server begins in another place, that is begun when it answers: it is not
// taken for one that was emptied.
func TestReplicaInAnotherPlaceThatFails(t *testing.T) {
	t.Parallel()
	s, _ := startShipping(t, newFolderStore(t), "First")
	s.Stop()
	store := newBucketStore(t)
	var refused atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/epochs/") && !s.serves() {
			refused.Store(true)
			storeFails(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
	})
	s.env = append(s.env, store.env...)
	s.Start()
	s.awaitShipped(s.SignIn("_superusers", testEmail, testPassword))
	if !refused.Load() {
		t.Error("the store did not fail")
	}
}

// Nor is it taken for another's where the store's answer to that is lost, and it cannot be asked what it has.
func TestReplicaInAnEmptyPlaceThatLosesAnAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t, newDataDir(t, t.TempDir()))
	token := s.Superuser()
	s.sendTitled("First")
	s.Stop()
	store := newBucketStore(t)
	var begun atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/epochs/0000000001.json") && r.Method == http.MethodPut && !begun.Swap(true):
			storeLosesAnswers(w, r, s3)
		case strings.HasSuffix(r.URL.Path, "/epochs/0000000001.json") && r.Method == http.MethodGet && !s.serves():
			storeFails(w, r, s3)
		default:
			s3.ServeHTTP(w, r)
		}
	})
	s.env = append(s.env, store.env...)
	s.Start()
	s.awaitShipped(token)
	wantText(t, s.output.String(), "what is here is served meanwhile")
}

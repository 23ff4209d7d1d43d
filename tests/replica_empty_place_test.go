package tests

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
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

// beginsNowhere has the store refuse that an epoch is begun.
func beginsNowhere(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/epochs/") {
		storeFails(w, r, s3)
		return
	}
	s3.ServeHTTP(w, r)
}

// A server that could not begin in a place, where another database is shipped to since, does not put its own
// aside for that.
func TestReplicaInAPlaceThatAnotherDatabaseBegan(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()))
	s.sendTitled("First")
	s.Stop()
	store.set(beginsNowhere)
	s.env = append(s.env, store.env...)
	s.Start()
	s.Kill()
	store.set(storeIsWell)
	other, _ := startShipping(t, store, "Other")
	other.Stop()
	text, code := s.runToEnd()
	if code == 0 || len(s.asideDirs()) > 0 {
		t.Errorf("it served, or put its database aside: %s", text)
	}
	wantText(t, text, "holds a database already")
}

// Of two that begin in an empty place at once, one writes there, however many epochs each had elsewhere.
func TestReplicaIsBegunOnceThoughAnotherComesFromElsewhere(t *testing.T) {
	t.Parallel()
	s, _ := startShipping(t, newFolderStore(t), "First")
	s.Stop()
	store := newBucketStore(t)
	var begins atomic.Bool
	otherBegan := make(chan struct{})
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/epochs/") && begins.CompareAndSwap(false, true) {
			<-otherBegan
		}
		s3.ServeHTTP(w, r)
	})
	s.env = append(s.env, store.env...)
	s.launch()
	await(t, "it begins", begins.Load)
	other := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
	other.sendTitled("Other")
	close(otherBegan)
	select {
	case <-s.exited:
		wantText(t, s.output.String(), "holds a database already")
	case <-time.After(patience):
		t.Errorf("both write there: %s", s.output)
	}
	other.sendTitled("Another")
	other.args = []string{"--takeover"}
	other.loseMachine()
	other.Start()
	other.wantTitles([]string{"Other", "Another"}, "First")
}

// Nor has it left the place where it did before.
func TestReplicaGoesBackFromAPlaceThatFails(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	store.set(beginsNowhere)
	s, token := startShipping(t, newFolderStore(t), "First")
	s.Stop()
	env := s.env
	s.env = append(slices.Clone(env), store.env...)
	s.Start()
	s.sendTitled("Second")
	s.Stop()
	s.env = env
	s.Start()
	s.awaitShipped(token)
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"First", "Second"})
}

// Where a server had begun an epoch that it never shipped anything in, and was shipped elsewhere since, it does
// not put what it has aside.
func TestReplicaGoesBackToAnEpochThatIsEmpty(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, token := startShipping(t, store, "First")
	s.Stop()
	s.serveUnshipped()
	s.beginEmptyEpoch(store)
	s.Kill()
	env := s.env
	s.env = append(slices.Clone(env), newFolderStore(t).env...)
	s.Start()
	s.sendTitled("Second")
	s.awaitShipped(token)
	s.Stop()
	store.set(storeIsWell)
	s.env = env
	s.args = []string{"--takeover"}
	s.launch()
	await(t, "it has started, or not", func() bool { return s.serves() || strings.Contains(s.output.String(), "holds a database already") })
	if len(s.asideDirs()) > 0 {
		t.Errorf("its database was put aside: %s", s.output)
	}
}

// Where the place before has as many epochs by then as the one that lost an answer, what is here is not taken for
// what was shipped to that.
func TestReplicaInAPlaceThatLosesAnAnswerTwice(t *testing.T) {
	t.Parallel()
	s, token := startShipping(t, newFolderStore(t), "First")
	s.Stop()
	env := s.env
	store := newBucketStore(t)
	var begun atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if strings.Contains(r.URL.Path, "/epochs/") && r.Method == http.MethodPut {
			begun.Store(true)
			storeLosesAnswers(w, r, s3)
			return
		}
		if begun.Load() {
			storeCuts(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
	})
	s.env = append(slices.Clone(env), store.env...)
	s.Start()
	await(t, "an epoch is begun", begun.Load)
	s.Kill()
	for _, url := range []string{"REPLICA_URL=", env[len(env)-1]} {
		s.env = append(slices.Clone(env), url)
		s.Start()
		if url != "REPLICA_URL=" {
			s.awaitShipped(token)
		}
		s.Stop()
	}
	store.set(storeIsWell)
	s.env = append(slices.Clone(env), store.env...)
	s.Start()
	s.awaitShipped(token)
	s.Stop()
	s.Start()
	s.awaitShipped(token)
	s.args = []string{"--takeover"}
	s.loseMachine()
	s.Start()
	s.wantTitles([]string{"First"})
}

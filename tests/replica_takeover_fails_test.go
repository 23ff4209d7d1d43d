package tests

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An old machine that served without REPLICA_URL, and comes back after its successor, goes on from
// what that wrote, though the store fails in the middle of that.
func TestReplicaTakeoverFailsHalfway(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	old, _ := startShipping(t, store, "Before")
	old.Stop()
	old.serveUnshipped("Only here")

	next := old.another(newDataDir(t, t.TempDir()))
	next.env = append(slices.Clone(old.env), "REPLICA_ACK=wait")
	next.Start()
	next.sendTitled("After")
	next.Stop()

	var begun atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if begun.Load() && strings.Contains(r.URL.String(), "0000000002") && !strings.Contains(old.output.String(), "trying again") {
			storeFails(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/epochs/0000000003.json") {
			begun.Store(true)
		}
	})
	old.env = next.env
	old.Start()
	wantText(t, old.output.String(), "trying again", "records that only it has: aiContent 1")
	old.wantTitles([]string{"Before", "After"}, "Only here")
}

// A machine that comes back after its successor, and cannot restore what that wrote since the store goes
// away in the middle of it, serves nothing until it can.
func TestReplicaStoreGoesAwayWhileItIsTakenOver(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	old, _ := startShipping(t, store, "Before")
	store.set(storeCuts)
	old.sendTitled("Only here")
	old.Kill()
	store.set(storeIsWell)
	next := old.another(newDataDir(t, t.TempDir()))
	next.env = append(slices.Clone(old.env), "REPLICA_ACK=wait")
	next.args = []string{"--takeover"}
	next.Start()
	next.sendTitled("After")
	next.Stop()

	var begun, asked atomic.Int32
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if begun.Load() == 2 && asked.Load() < 6 && !old.serves() {
			if strings.HasSuffix(r.URL.Path, "/replica.json") {
				asked.Add(1) // with which each try begins, three times
			}
			storeFails(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/epochs/0000000003.json") {
			begun.Add(1) // and once more, to see that it is not overwritten
		}
	})
	old.env = next.env
	old.Start()
	old.sendTitled("And on")
	old.wantTitles([]string{"Before", "After", "And on"}, "Only here")
	wantText(t, old.output.String(), "nothing is served yet: the replica's cannot be restored")
	if n := strings.Count(old.output.String(), "it has changes that the database here has not"); n != 1 {
		t.Errorf("it is said %d times that what is here is behind", n)
	}
}

// A machine that cannot restore, as where its disk is full, does not read the replica all the time.
func TestReplicaCannotBeRestored(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "First")
	s.loseMachine()
	reads := make(chan time.Time, 100)
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		answer := httptest.NewRecorder()
		s3.ServeHTTP(answer, r)
		content := answer.Body.Bytes()
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "1-0000000000000001.ltx") && r.Header.Get("Range") == "" && !s.serves() {
			select {
			case reads <- time.Now():
			default:
			}
			clear(content[len(content)/2:])
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		w.Write(content)
	})
	s.args = []string{"--takeover"}
	s.launch()
	var first []time.Time
	for range 4 {
		select {
		case at := <-reads:
			first = append(first, at)
		case <-time.After(patience):
			t.Fatalf("it is restored %d times: %s", len(first), s.output)
		}
	}
	wantText(t, s.output.String(), "nothing is served yet")
	if waited := first[3].Sub(first[2]); waited < 3*time.Second {
		t.Errorf("it is restored for the fourth time %s after the third", waited)
	}
	store.set(storeIsWell)
	await(t, "it serves", s.serves)
	s.wantTitles([]string{"First"})
}

package tests

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server gives its sign of life before its first copy is in the replica, and while something large
// is on its way: another one does not start beside it.
func TestReplicaIsTakenFromAServerThatShipsItsFirstCopy(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()))
	s.sendTitled(numbered("Mine", 10)...)
	s.Stop()
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/0/") {
			time.Sleep(15 * time.Second) // a whole copy of a database of some size
		}
		s3.ServeHTTP(w, r)
	})
	s.env = append(s.env, store.env...)
	s.Start()
	s.sendTitled("Acknowledged") // async
	time.Sleep(3 * time.Second)

	next := s.another(newDataDir(t, t.TempDir())) // empty, and without --takeover
	next.launch()
	select {
	case <-next.exited:
		return // it should see the other one
	case <-s.exited:
		t.Errorf("the server that had the data was ended, without --takeover: %s", s.output)
	case <-time.After(50 * time.Second):
		t.Error("neither ended")
	}
	await(t, "the other one serves", func() bool {
		response, err := http.Get(next.URL + "/api/health")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	})
	next.wantTitles(numbered("Mine", 10))
	t.Log(next.output)
}

// Nor where its first sign was lost: nobody has ended that gave none.
func TestReplicaIsTakenFromAServerWhoseFirstSignIsLost(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()))
	s.sendTitled(numbered("Mine", 10)...)
	s.Stop()
	var looks atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && (strings.Contains(r.URL.Path, "/0/") || strings.HasSuffix(r.URL.Path, "/alive.json") && !looks.Load()) {
			storeCuts(w, r, s3)
			return
		}
		s3.ServeHTTP(w, r)
	})
	s.env = append(s.env, store.env...)
	s.Start()
	next := s.another(newDataDir(t, t.TempDir())) // empty, and without --takeover
	next.launch()
	await(t, "it looks, or serves", func() bool { return next.serves() || strings.Contains(next.output.String(), "Looking for") })
	looks.Store(true)
	select {
	case <-next.exited:
		wantText(t, next.output.String(), "another server, on ")
	case <-s.exited:
		t.Errorf("the server that had the data was ended: %s\n%s", s.output, next.output)
	case <-time.After(patience):
		t.Errorf("neither ended: %s", next.output)
	}
}

// The sign waits for the upload before it, which may take longer than another server looks.
func TestReplicaIsTakenFromAServerThatShipsSomethingLarge(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, numbered("Mine", 10)...)
	time.Sleep(time.Second)
	shipping := make(chan struct{}, 1)
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodPut && r.ContentLength > 10<<20 {
			shipping <- struct{}{}
			time.Sleep(50 * time.Second) // 15 MB at 300 kB/s; the code allows for 80 seconds
		}
		s3.ServeHTTP(w, r)
	})
	db := openDatabase(t, s.Dir)
	if _, err := db.NewQuery("CREATE TABLE large AS SELECT randomblob(15000000) AS content").Execute(); err != nil {
		t.Fatal(err)
	}
	<-shipping
	s.sendTitled("Meanwhile") // it is at work, and answers 200
	next := s.another(newDataDir(t, t.TempDir()))
	next.launch()
	select {
	case <-next.exited:
	case <-s.exited:
		t.Errorf("the server was ended, without --takeover: %s\n%s", s.output, next.output)
	case <-time.After(100 * time.Second):
		t.Error("neither ended")
	}
}

package tests

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// An epoch that is begun, and whose answer does not arrive, is not taken for another server's.
func TestReplicaALostAnswerEndsTheOnlyServer(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()))
	s.Superuser()
	s.sendTitled("First")
	s.Stop()
	var begun atomic.Bool
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if begun.Load() {
			storeCuts(w, r, s3)
			return
		}
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/epochs/") {
			begun.Store(true) // stored, and then the network fails for a moment
		}
		s3.ServeHTTP(w, r)
	})
	s.env = append(s.env, store.env...)
	s.Start()
	s.sendTitled("Second")
	if !begun.Load() {
		t.Fatal("no epoch was begun")
	}
	store.set(storeIsWell)
	s.awaitShipped(s.SignIn("_superusers", testEmail, testPassword)) // it would have ended
}

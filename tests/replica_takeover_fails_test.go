package tests

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// An old machine that served without REPLICA_URL, and comes back after its successor, goes on from
// what that wrote, though the store fails in the middle of that.
func TestReplicaTakeoverFailsHalfway(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	old, _ := startShipping(t, store, "Before")
	old.Stop()
	env := old.env
	old.env = append(slices.Clone(env), "REPLICA_URL=")
	old.Start()
	old.sendTitled("Only here")
	old.Stop()

	next := old.another(newDataDir(t, t.TempDir()))
	next.env = append(env, "REPLICA_ACK=wait")
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

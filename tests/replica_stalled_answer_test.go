package tests

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// An answer of the store that stalls in its middle holds up shipping for a while only.
func TestReplicaOneStalledAnswerEndsShipping(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
	s.sendTitled("First")
	stalled := make(chan struct{}, 100)
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		switch {
		case r.Method == http.MethodPut:
			storeFails(w, r, s3)
		case r.URL.Query().Get("list-type") == "2":
			w.Header().Set("Content-Length", "10000")
			fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>`)
			w.(http.Flusher).Flush()
			stalled <- struct{}{}
			select {
			case <-ended:
			case <-r.Context().Done():
			}
		default:
			s3.ServeHTTP(w, r)
		}
	})
	go s.Send(payload("c", "Second", ""))
	<-stalled
	store.set(storeIsWell) // the store is well again
	began := time.Now()
	for n := 0; time.Since(began) < 150*time.Second; n++ {
		if s.Send(payload("c", "Second", "")) == http.StatusOK {
			t.Logf("acknowledged after %s", time.Since(began))
			return
		}
	}
	t.Errorf("no webhook is acknowledged %s after the store is well again", time.Since(began).Round(time.Second))
}

package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// "restore --takeover" restores all that the other server acknowledged until it was ended.
func TestRestoreTakeoverLosesWhatIsAcknowledgedMeanwhile(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s := startServer(t, newDataDir(t, t.TempDir()), append(store.env, "REPLICA_ACK=wait")...)
	s.sendTitled(numbered("Before", 5)...)
	store.set(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/0000000001/") {
			time.Sleep(500 * time.Millisecond) // a network that takes its time to bring a file
		}
		s3.ServeHTTP(w, r)
	})
	next := s.another(newDataDir(t, t.TempDir()))
	done := make(chan string, 1)
	go func() {
		out, errs, _ := runOn(t, s.binary, next.Dir, s.env, "restore", "--takeover")
		done <- out + errs
	}()
	var acknowledged []string
	for i, over := 0, false; !over; i++ {
		select {
		case text := <-done:
			t.Log(text)
			over = true
		default:
			title := fmt.Sprint("Meanwhile ", i)
			if s.Send(payload("channel-"+title, title, "")) == http.StatusOK {
				acknowledged = append(acknowledged, title)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	store.set(storeIsWell)
	<-s.exited
	t.Logf("%d acknowledged while it was restored", len(acknowledged))
	next.args = []string{"--takeover"}
	next.Start()
	next.wantTitles(acknowledged)
}

package outbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// While a crowd of clients has requests created, what is to be sent gets less than its share,
// but some.
func TestCreatedBeforeSent(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	var posts atomic.Int64
	river := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"channel_id":"c%d"}`, posts.Add(1))
	}))
	t.Cleanup(river.Close)
	client, err := modelriver.NewClient(modelriver.ClientOptions{APIKey: "key", APIURL: river.URL, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	o := New(app, commit.New(app, store.Content), client, Options{Keyed: true})
	now := time.Now()
	o.Now = func() time.Time { return now }
	o.ctx = t.Context()
	for i := range 4 * crowdClaims {
		insertQueued(t, app, fmt.Sprintf("request%08d", i), now)
	}
	run := func(wantSent int, wantNext time.Time) {
		t.Helper()
		next, err := o.runRequests()
		o.senders.Wait()
		if got := int(posts.Load()); err != nil || got != wantSent || !next.Equal(wantNext) {
			t.Errorf("got %d sent, next at %s (%v), want %d, %s", got, next, err, wantSent, wantNext)
		}
	}
	var left []func()
	for range minCrowd + 1 {
		left = append(left, o.Creating())
	}
	run(crowdClaims, now.Add(crowdEnd))
	run(crowdClaims, now.Add(crowdEnd))
	now = now.Add(crowdPause - time.Millisecond)
	run(crowdClaims, now.Add(crowdEnd))
	now = now.Add(time.Millisecond) // it has waited long enough, whoever comes
	run(2*crowdClaims, now.Add(crowdEnd))
	for range crowdShare * crowdClaims {
		o.Creating()()
	}
	run(3*crowdClaims, now.Add(crowdEnd))
	for _, leave := range left { // they are answered together, and come again together
		leave()
	}
	run(3*crowdClaims, now.Add(crowdEnd))
	for range minCrowd {
		defer o.Creating()()
	}
	now = now.Add(crowdEnd)
	run(4*crowdClaims, time.Time{})
}

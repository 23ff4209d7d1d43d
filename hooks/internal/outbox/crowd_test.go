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

// newAsking returns an outbox whose requests are taken, and what runs its loop once, and checks
// how many were sent then, and when it is to run again.
func newAsking(t *testing.T) (o *Outbox, run func(wantSent int, wantNext time.Time)) {
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
	o = New(app, commit.New(app, store.Content), client, Options{Keyed: true})
	o.ctx = t.Context()
	return o, func(wantSent int, wantNext time.Time) {
		t.Helper()
		next, err := o.runRequests()
		o.senders.Wait()
		if got := int(posts.Load()); err != nil || got != wantSent || !next.Equal(wantNext) {
			t.Errorf("got %d sent, next at %s (%v), want %d, %s", got, next, err, wantSent, wantNext)
		}
	}
}

// While a crowd of clients has requests created, what is to be sent gets less than its share,
// but some.
func TestCreatedBeforeSent(t *testing.T) {
	t.Parallel()
	o, run := newAsking(t)
	now := o.Now()
	o.Now = func() time.Time { return now }
	for i := range 4 * crowdClaims {
		insertQueued(t, o.app, fmt.Sprintf("request%08d", i), now)
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

// A request is sent at once, but those right behind it together.
func TestSentTogether(t *testing.T) {
	t.Parallel()
	o, run := newAsking(t)
	now := o.Now()
	o.Now = func() time.Time { return now }
	insertQueued(t, o.app, "request00000000", now)
	run(1, time.Time{})
	began := now
	for i := 1; i < 4; i++ {
		now = now.Add(claimPause / 4)
		insertQueued(t, o.app, fmt.Sprintf("request%08d", i), now)
		run(1, began.Add(claimPause))
	}
	now = began.Add(claimPause)
	run(4, time.Time{})
	now = began.Add(-time.Hour) // the clock was set back
	insertQueued(t, o.app, "request00000004", now)
	run(5, time.Time{})
}

// What there was no room for is looked for again, whether or not anything that is being sent ends
// meanwhile.
func TestSentWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	o, run := newAsking(t)
	now := o.Now()
	o.Now = func() time.Time { return now }
	for i := range 10 {
		insertQueued(t, o.app, fmt.Sprintf("request%08d", i), now)
	}
	hang := func(n int) {
		for i := range n {
			o.asking.posts[fmt.Sprintf("hangs%d", i)] = now
		}
	}
	hang(maxAsking - 4)
	run(4, now.Add(claimPause))
	hang(maxAsking)
	now = now.Add(claimPause)
	run(4, now.Add(claimPause))
	clear(o.asking.posts)
	run(10, time.Time{})
}

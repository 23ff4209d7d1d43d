package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
)

func TestLiveQueryTakesABurstWithFewRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openHarness(t, s.URL)
	p.Live(`"newest", {limit: 20}`)
	p.Converges("newest")
	p.Live(`"filtered", {filter: 'category = "stories"', limit: 20}`)
	p.Converges("newest", "filtered")

	// The comparison's own requests have no page parameter.
	requests := func() int { return p.Requests("/records?page=") + p.Requests("/api/realtime") }
	calls := eval[int](p, "queries.newest.calls")
	before, started := requests(), time.Now()
	burst(t, s, 500)
	took := time.Since(started)
	until(t, "the last rows are shown", func() bool { return eval[bool](p, `equal("newest")`) && eval[bool](p, `equal("filtered")`) })
	made := requests() - before
	t.Logf("500 webhooks in %s: %d requests by a plain and a filtered query, %d calls of onChange",
		took.Round(time.Millisecond), made, eval[int](p, "queries.newest.calls")-calls)
	// One a second at most, some at first, one at last, and a minute's own poll each.
	if limit := 10 + 2*int(took/time.Second); made > limit {
		t.Errorf("requests: got %d, want at most %d", made, limit)
	}
	p.Converges("newest", "filtered")
	p.Clean(true)
}

// burst sends n webhooks, several at a time.
func burst(t testing.TB, s *server, n int) {
	t.Helper()
	var next atomic.Int64
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if status := s.Send(payload(fmt.Sprint("burst-", i), fmt.Sprint("Burst ", i), "")); status != 200 {
					t.Errorf("webhook: got %d, want 200", status)
				}
			}
		})
	}
	senders.Wait()
}

func TestLiveQuerySurvivesTheNetwork(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	for i := range 20 {
		s.create(token, fmt.Sprint("Row ", i), strings.Repeat("long ", 100), "")
	}
	c := startCuttable(t, s)
	p := openHarness(t, c.URL)

	// Every answer is cut in its middle, the first list with it.
	c.limit.Store(3000)
	c.Cut()
	p.Live(`"first", {limit: 20}`)
	p.Wait(`queries.first.result.status === "offline"`)
	if n := eval[int](p, "queries.first.result.items.length"); n != 0 {
		t.Errorf("rows of a list that was cut: got %d, want 0", n)
	}
	c.limit.Store(0)
	p.Converges("first")

	// The first connection fails: nothing is there at all.
	p.Open(c.URL + "/live-query.js")
	eval[bool](p, harness)
	p.Offline(true)
	p.Live(`"second", {limit: 5}`)
	p.Wait(`queries.second.result.status === "offline" && queries.second.result.error`)
	s.create(token, "While offline", "a", "")
	p.Offline(false)
	p.Converges("second")

	// It drops, again and again, under changes.
	for i := range 5 {
		s.create(token, fmt.Sprint("Dropped ", i), "a", "")
		c.Cut()
		s.create(token, fmt.Sprint("Dropped too ", i), "a", "")
	}
	p.Converges("second")

	// What the network takes is missed, and known to be.
	p.Offline(true)
	p.Wait(`queries.second.result.status === "offline"`)
	s.create(token, "Unheard", "a", "")
	p.Offline(false)
	p.Converges("second")
	p.Clean(false)
}

// TestLiveQueryOutlivesStreamLimits has PocketBase end its streams after a second of
// silence and after two in all, as it does after 5 and 30 minutes.
func TestLiveQueryOutlivesStreamLimits(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "pb_hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	hook := `onRealtimeConnectRequest((e) => {
		e.idleTimeout = 1e9
		e.maxTimeout = 2e9
		e.next()
	})`
	if err := os.WriteFile(filepath.Join(folder, "pb_hooks", "short.pb.js"), []byte(hook), 0o644); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, filepath.Join(folder, "pb_data"))
	token := s.Superuser()
	p := openHarness(t, s.URL)
	p.Live(`"newest", {limit: 5}`)
	streams := func() int { return p.Requests("GET /api/realtime") }
	for i := 0; streams() < 6; i++ {
		s.create(token, fmt.Sprint("Row ", i), "a", "")
		until(t, "the row is shown", func() bool {
			return eval[bool](p, fmt.Sprintf(`queries.newest.result.items[0]?.title === "Row %d"`, i))
		})
		if i%4 == 3 { // let it be silent
			n := streams()
			until(t, "another stream", func() bool { return streams() > n })
		}
	}
	p.Converges("newest")
	p.Clean(true) // nothing of this is an error
}

func TestLiveQueryOutlivesKills(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openTab(t, s.URL)
	p.Wait(`document.querySelector("#state").dataset.status === "live"`)
	h := p.Another(s.URL + "/live-query.js")
	eval[bool](h, harness)
	h.Live(`"newest", {limit: 20}`)
	h.Converges("newest")

	// ModelRiver sends a webhook again until it is answered 200.
	end := make(chan struct{})
	var sent atomic.Int64
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
			n := sent.Load()
			if s.Send(payload(fmt.Sprint("k-", n), fmt.Sprint("Webhook ", n), "")) == 200 {
				sent.Add(1)
			}
		}
	})
	for i := range 10 {
		before := sent.Load()
		s.Restart()
		until(t, fmt.Sprint("webhooks after kill ", i), func() bool { return sent.Load() > before+3 })
	}
	close(end)
	sender.Wait()
	h.Converges("newest")
	p.Wait(`document.querySelector("#state").dataset.status === "live"`)
	p.Wait(fmt.Sprintf(`document.querySelector("#feed h2").textContent === "Webhook %d"`, sent.Load()-1))
	shown := eval[[]string](p, `[...document.querySelectorAll("#feed h2")].map(h => h.textContent)`)
	want := eval[[]string](h, `queries.newest.result.items.map(row => row.title)`)
	if strings.Join(shown, "\n") != strings.Join(want, "\n") {
		t.Errorf("the page shows %q, want the server's list %q", shown, want)
	}
	t.Logf("10 kills under %d webhooks", sent.Load())
	p.Clean(false)
	h.Clean(false)
}

func TestLiveQueryWakesWithItsTab(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	p := openHarness(t, s.URL)
	p.Live(`"newest", {limit: 5}`)
	p.Converges("newest")

	call(p, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: page.SetWebLifecycleStateStateFrozen})
	s.create(token, "While asleep", "a", "")
	s.Restart() // the stream ends, and nobody is awake to notice
	s.create(token, "While asleep, too", "a", "")
	call(p, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: page.SetWebLifecycleStateStateActive})
	p.Converges("newest")
	p.Clean(false)
}

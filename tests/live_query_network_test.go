package tests

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
)

// A cuttable is a TCP proxy before the server that can fail as networks do.
type cuttable struct {
	URL  string
	mu   sync.Mutex
	live map[net.Conn]bool

	limit atomic.Int64 // bytes of an answer until its connection is cut; 0: none
	idle  atomic.Int64 // nanoseconds that a connection may be silent until it is cut; 0: for ever
}

func startCuttable(t testing.TB, s *server) *cuttable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cuttable{URL: "http://" + listener.Addr().String(), live: map[net.Conn]bool{}}
	t.Cleanup(func() {
		listener.Close()
		c.Cut()
	})
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.live[in] = true
			c.mu.Unlock()
			go func() {
				io.Copy(out, in)
				out.Close()
			}()
			go func() {
				buffer := make([]byte, 512)
				for sent := int64(0); ; {
					if idle := time.Duration(c.idle.Load()); idle > 0 {
						out.SetReadDeadline(time.Now().Add(idle))
					}
					n, err := out.Read(buffer)
					sent += int64(n)
					if limit := c.limit.Load(); err != nil || limit > 0 && sent > limit {
						break
					}
					if _, err := in.Write(buffer[:n]); err != nil {
						break
					}
				}
				c.mu.Lock()
				delete(c.live, in)
				c.mu.Unlock()
				in.Close()
				out.Close()
			}()
		}
	}()
	return c
}

// Cut ends every connection.
func (c *cuttable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for connection := range c.live {
		connection.Close()
	}
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
	p.LiveForms()

	// It drops, again and again, under changes.
	for i := range 5 {
		s.create(token, fmt.Sprint("Dropped ", i), "a", "")
		c.Cut()
		s.create(token, fmt.Sprint("Dropped too ", i), "a", "")
	}
	p.Converges(forms...)

	// What the network takes is missed, and known to be.
	p.Offline(true)
	p.Wait(`queries.second.result.status === "offline"`)
	s.create(token, "Unheard", "a", "")
	p.Offline(false)
	p.Converges(append(forms, "second")...)
	p.Clean(false)
}

// TestLiveQueryOutlivesStreamLimits has PocketBase end its streams after a second of
// silence and after two in all, as it does after 5 and 30 minutes. Each goes on where the
// one before was: the list is not fetched again.
func TestLiveQueryOutlivesStreamLimits(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pb_data")
	writeBeside(t, dir, "pb_hooks/short.pb.js", `onRealtimeConnectRequest((e) => {
		e.idleTimeout = 1e9
		e.maxTimeout = 2e9
		e.next()
	})`)
	s := startServer(t, dir)
	token := s.Superuser()
	p := openHarness(t, s.URL)
	p.LiveForms()
	lists := p.Requests("/records?page=")
	streams := func() int { return p.Requests("GET /api/realtime") }
	for i := 0; streams() < 6; i++ {
		s.create(token, fmt.Sprint("Row ", i), "a", "")
		await(t, "the row is shown", func() bool {
			return eval[bool](p, fmt.Sprintf(`queries.newest.result.items[0]?.title === "Row %d"`, i))
		})
		if i%4 == 3 { // let it be silent
			n := streams()
			await(t, "another stream", func() bool { return streams() > n })
		}
	}
	p.Converges(forms...)
	if got := p.Requests("/records?page=") - lists; got != 0 {
		t.Errorf("lists after the first: got %d, want none", got)
	}
	p.Clean(true) // nothing of this is an error
}

// A client that is told when its turn is, since all come back at once, keeps its rows
// until then and asks nothing.
func TestLiveQueryWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	eval[bool](p, `(window.turn = 0, window.connected = 0, window.EventSource = class extends EventSource {
		addEventListener(type, run) {
			super.addEventListener(type, type !== "PB_CONNECT" ? run : ({ lastEventId, data }) => {
				connected++;
				run({ lastEventId, data: JSON.stringify({ ...JSON.parse(data), wait: turn }) });
			});
		}
	}, true)`)
	p.Live(`"newest", {limit: 5}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 5}`)
	s.create(token, "Before", "a", "")
	p.Converges("newest", "filtered")

	// Its turn is in a minute, and what is due by polling comes every moment: hurry makes
	// it so, and would list at once.
	eval[int](p, "turn = 60_000")
	eval[int](p, "hurry = 1000")
	n := eval[int](p, "connected")
	s.Restart()
	p.Wait(fmt.Sprintf("connected > %d", n))
	lists, posts := p.Requests("/records?page="), p.Requests("POST /api/realtime")
	s.create(token, "Meanwhile", "a", "")
	eval[bool](p, `new Promise((resolve) => setTimeout(resolve, 1000, true))`) // many times what polls need
	if got := p.Requests("/records?page=") - lists; got != 0 {
		t.Errorf("lists before its turn: got %d, want none", got)
	}
	if got := p.Requests("POST /api/realtime") - posts; got != 0 {
		t.Errorf("subscriptions before its turn: got %d, want none", got)
	}
	if title := eval[string](p, "queries.newest.result.items[0].title"); title != "Before" {
		t.Errorf("it shows %q before its turn, want what it had", title)
	}

	eval[int](p, "turn = 500")
	n = eval[int](p, "connected")
	s.Restart()
	p.Wait(fmt.Sprintf("connected > %d", n))
	p.Converges("newest", "filtered")
	p.Clean(false)
}

func TestLiveQueryOutlivesKills(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openTab(t, s.URL)
	p.Wait(`document.querySelector("#state").dataset.status === "live"`)
	h := p.Another(s.URL + "/live-query.js")
	eval[bool](h, harness)
	h.Live(`"first", {limit: 20}`)
	h.LiveForms()

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
		await(t, fmt.Sprint("webhooks after kill ", i), func() bool { return sent.Load() > before+3 })
	}
	close(end)
	sender.Wait()
	h.Converges(append(forms, "first")...)
	p.Wait(`document.querySelector("#state").dataset.status === "live"`)
	p.Wait(fmt.Sprintf(`document.querySelector("#feed h2").textContent === "Webhook %d"`, sent.Load()-1))
	shown := eval[[]string](p, `[...document.querySelectorAll("#feed h2")].map(h => h.textContent)`)
	want := eval[[]string](h, `queries.first.result.items.map(row => row.title)`)
	if strings.Join(shown, "\n") != strings.Join(want, "\n") {
		t.Errorf("the page shows %q, want the server's list %q", shown, want)
	}
	t.Logf("10 kills under %d webhooks", sent.Load())
	p.Clean(false)
	h.Clean(false)
}

func TestLiveQueryWakesWithItsTab(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	p.LiveForms()

	callDevTools(p, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: page.SetWebLifecycleStateStateFrozen})
	s.create(token, "While asleep", "a", "")
	s.Restart() // the stream ends, and nobody is awake to notice
	s.create(token, "While asleep, too", "a", "")
	callDevTools(p, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: page.SetWebLifecycleStateStateActive})
	p.Converges(forms...)
	p.Clean(false)
}

// TestLiveQueryKeepsPaceWhenTheClockIsSet sets the clock back and forward.
func TestLiveQueryKeepsPaceWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	p.LiveForms()
	eval[bool](p, `(() => {
		const now = Date.now;
		window.hours = 0;
		Date.now = () => now() + hours * 3600_000;
		return true;
	})()`)
	for _, hours := range []int{-1, 0, 1, -24} {
		eval[int](p, fmt.Sprintf("hours = %d", hours))
		for i := range 3 {
			s.create(token, fmt.Sprint("Row ", i), "a", "")
			p.Converges(forms...)
		}
	}
	p.Clean(true)
}

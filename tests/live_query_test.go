package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
)

// harness makes live(name, query) start a live query in the tab. It keeps what the query
// tells and notes in wrong what a list may never be. equal(name) is whether the query
// shows what the server lists for whoever is signed in.
const harness = `(async () => {
	document.body.textContent = ""; // of the file that is open
	// The polling that makes up for what no event tells would hide a failure to follow
	// events: it never comes, or hurry times as fast.
	const timeout = window.setTimeout;
	window.hurry = 0;
	window.setTimeout = (run, ms, ...rest) => {
		const poll = ms > 4000 && new Error().stack.includes("loadIn");
		return poll && !hurry ? -1 : timeout(run, poll ? ms / hurry : ms, ...rest);
	};
	const { default: PocketBase } = await import("/vendor/pocketbase.es.mjs");
	const { liveQuery } = await import("/live-query.js");
	window.pb = new PocketBase(location.origin);
	window.queries = {};
	window.wrong = [];
	window.live = (name, query = {}, collection = "aiContent") => {
		const q = queries[name] = { query, collection, result: { items: [], status: "none" }, calls: 0, stopped: false };
		const stop = liveQuery(pb, collection, query, (result) => {
			const ids = result.items.map((row) => row.id);
			if (new Set(ids).size !== ids.length) wrong.push(name + ": a row twice");
			if (ids.length > (query.limit ?? 50)) wrong.push(name + ": more rows than the limit");
			if (q.stopped) wrong.push(name + ": called after stop");
			const order = result.items.map((row) => row.created + row.id);
			if (!query.sort && !query.fields && order.join() !== order.toSorted().reverse().join()) wrong.push(name + ": out of order");
			if (q.forbidden && result.items.some((row) => row.title.includes(q.forbidden))) wrong.push(name + ": shows " + q.forbidden);
			q.result = result;
			q.calls++;
		});
		q.stop = () => { q.stopped = true; stop(); };
		return true;
	};
	window.equal = async (name) => {
		await new Promise((resolve) => timeout(resolve, 100)); // what is known is told within 50 ms
		const { query: { filter, sort = "-created,-id", limit = 50, fields, expand }, collection, result } = queries[name];
		const params = new URLSearchParams(Object.entries({ filter, sort, fields, expand, perPage: limit }).filter(([, value]) => value));
		const headers = pb.authStore.token ? { Authorization: pb.authStore.token } : {};
		const response = await fetch("/api/collections/" + collection + "/records?" + params, { headers }).catch(() => null);
		if (!response?.ok) return false;
		const { items } = await response.json();
		return queries[name].result.status === "live" && JSON.stringify(items) === JSON.stringify(queries[name].result.items);
	};
	return true;
})()`

// openHarness opens a tab at the address with nothing in it but the harness.
func openHarness(t testing.TB, address string) *tab {
	t.Helper()
	p := openTab(t, address+"/live-query.js")
	eval[bool](p, harness)
	return p
}

// Live starts a live query, given as the arguments of the harness's live.
func (p *tab) Live(arguments string) {
	p.t.Helper()
	eval[bool](p, "live("+arguments+")")
}

// Converges waits until each query shows what the server lists. It fails if one has
// ever shown what it may not.
func (p *tab) Converges(names ...string) {
	p.t.Helper()
	for _, name := range names {
		for deadline := time.Now().Add(patience); !eval[bool](p, fmt.Sprintf("equal(%q)", name)); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				p.t.Fatalf("%s does not show what the server lists: %s\n%s", name, eval[json.RawMessage](p, fmt.Sprintf(
					"({status: queries[%[1]q].result.status, error: String(queries[%[1]q].result.error), titles: queries[%[1]q].result.items.map(row => row.title)})", name)), p.report())
			}
		}
	}
	if wrong := eval[[]string](p, "wrong"); len(wrong) > 0 {
		p.t.Fatalf("shown meanwhile: %q", wrong)
	}
}

// create stores a record through the API and returns its id.
func (s *server) create(token, title, category, user string) string {
	s.t.Helper()
	var record struct{ ID string }
	s.API(token, http.MethodPost, "/api/collections/aiContent/records",
		map[string]any{"title": title, "category": category, "userId": user}, &record)
	return record.ID
}

func (s *server) update(token, id string, fields map[string]any) {
	s.t.Helper()
	s.API(token, http.MethodPatch, "/api/collections/aiContent/records/"+id, fields, nil)
}

func (s *server) delete(token, id string) {
	s.t.Helper()
	s.API(token, http.MethodDelete, "/api/collections/aiContent/records/"+id, nil, nil)
}

// user creates a user with testPassword and returns the id.
func (s *server) user(token, email string) string {
	s.t.Helper()
	var user struct{ ID string }
	s.API(token, http.MethodPost, "/api/collections/users/records", map[string]any{
		"email": email, "password": testPassword, "passwordConfirm": testPassword, "verified": true,
	}, &user)
	return user.ID
}

// until calls f until it returns true.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

func TestLiveQueryFollowsEveryChange(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	var ids []string
	for i := range 6 {
		ids = append(ids, s.create(token, fmt.Sprint("Row ", i), "a", ""))
	}
	p := openHarness(t, s.URL)
	all := []string{"full", "roomy", "filtered", "titles", "fields", "oldest"}
	p.Live(`"full", {limit: 3}`)
	p.Live(`"roomy", {limit: 20}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 4}`)
	p.Live(`"titles", {sort: "title", limit: 4}`)
	p.Live(`"fields", {fields: "id,title", limit: 3}`)
	p.Live(`"oldest", {sort: "created", limit: 3}`)
	p.Converges(all...)

	for _, step := range []struct {
		name string
		do   func()
	}{
		{"create", func() { ids = append(ids, s.create(token, "Created", "a", "")) }},
		{"update in the list", func() { s.update(token, ids[6], map[string]any{"title": "Updated"}) }},
		{"update beyond the limit", func() { s.update(token, ids[0], map[string]any{"body": "changed"}) }},
		{"update that moves a row", func() { s.update(token, ids[6], map[string]any{"title": "A first"}) }},
		{"update that leaves the filter", func() { s.update(token, ids[5], map[string]any{"category": "b"}) }},
		{"update that enters the filter", func() { s.update(token, ids[5], map[string]any{"category": "a"}) }},
		{"delete that frees a place", func() { s.delete(token, ids[6]) }},
		{"delete beyond the limit", func() { s.delete(token, ids[0]) }},
		{"delete and create of the same id", func() {
			s.delete(token, ids[5])
			s.API(token, http.MethodPost, "/api/collections/aiContent/records", map[string]any{"id": ids[5], "title": "Back", "category": "a"}, nil)
		}},
		{"text that sorts by bytes", func() { s.create(token, "Ünïcode \U0001F30A", "a", "") }},
		{"delete of all", func() {
			var list struct{ Items []struct{ ID string } }
			s.API(token, http.MethodGet, "/api/collections/aiContent/records?perPage=100", nil, &list)
			for _, item := range list.Items {
				s.delete(token, item.ID)
			}
		}},
		{"create in an empty list", func() { s.create(token, "First", "a", "") }},
	} {
		step.do()
		p.Converges(all...)
		t.Log("converged after:", step.name)
	}
	p.Clean(true)
}

// TestLiveQuerySurvivesDisorder gives the page the events of a row's life in other orders,
// each event once and twice.
func TestLiveQuerySurvivesDisorder(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	s.create(token, "Another row", "a", "")
	p := openHarness(t, s.URL)
	eval[bool](p, `(window.held = [], window.EventSource = class extends EventSource {
		addEventListener(type, run) {
			super.addEventListener(type, type.includes("/") ? (event) => held.push(() => run(event)) : run);
		}
	}, true)`)
	p.Live(`"plain", {limit: 10}`)
	p.Converges("plain")

	for _, events := range [][]string{{"create", "update", "leave"}, {"create", "update", "leave", "delete"}} {
		for order := range permutations(len(events)) {
			if len(events) == 4 && order[0] != 3 {
				continue // of the longer ones, those with the delete first
			}
			var id string
			for i, event := range events {
				switch event {
				case "create":
					id = s.create(token, "Created", "a", "")
				case "update":
					s.update(token, id, map[string]any{"title": "Updated"})
				case "leave":
					s.update(token, id, map[string]any{"category": "b"})
				case "delete":
					s.delete(token, id)
				}
				p.Wait(fmt.Sprintf("held.length === %d", i+1))
			}
			t.Log("events in the order ", order)
			for _, i := range order {
				eval[bool](p, fmt.Sprintf("(held[%d](), true)", i))
			}
			p.Converges("plain")
			for _, i := range order {
				eval[bool](p, fmt.Sprintf("(held[%d](), true)", i))
			}
			p.Converges("plain")
			eval[int](p, "held.length = 0")
		}
	}
	p.Clean(true)
}

// permutations yields every order of n things.
func permutations(n int) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		var extend func(order []int) bool
		extend = func(order []int) bool {
			if len(order) == n {
				return yield(order)
			}
			for i := range n {
				if !slices.Contains(order, i) && !extend(append(slices.Clone(order), i)) {
					return false
				}
			}
			return true
		}
		extend(nil)
	}
}

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

// A cuttable is a TCP proxy before the server that can fail as networks do.
type cuttable struct {
	URL  string
	mu   sync.Mutex
	live map[net.Conn]bool

	limit atomic.Int64 // bytes of an answer until its connection is cut; 0: none
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

func TestLiveQueryShowsEachViewerTheirOwn(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann, bob := s.user(token, "ann@example.com"), s.user(token, "bob@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "Secret of ann", "a", ann)
	s.create(token, "Secret of bob", "a", bob)

	p := openHarness(t, s.URL)
	signIn := func(name string) {
		eval[bool](p, fmt.Sprintf(`pb.collection("users").authWithPassword("%s@example.com", %q).then(() => true)`, name, testPassword))
	}
	forbid := func(text string) {
		eval[bool](p, fmt.Sprintf(`Object.values(queries).forEach((q) => (q.forbidden = %q)) ?? true`, text))
	}
	shows := func(title string) bool {
		return eval[bool](p, fmt.Sprintf(`Object.values(queries).every((q) => q.result.items.some((row) => row.title === %q))`, title))
	}
	p.Live(`"plain", {limit: 10}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 10}`)
	forbid("Secret")
	p.Converges("plain", "filtered")

	// Sign in: own content, at once and live.
	forbid("of bob")
	signIn("ann")
	p.Converges("plain", "filtered")
	s.create(token, "Secret news of ann", "a", ann)
	s.create(token, "Secret news of bob", "a", bob)
	until(t, "the news", func() bool { return shows("Secret news of ann") })
	p.Converges("plain", "filtered")

	// As somebody else: not a row of before, not for a moment.
	forbid("of ann")
	signIn("bob")
	p.Converges("plain", "filtered")
	if !shows("Secret news of bob") {
		t.Error("bob's own content is missing")
	}

	// Sign out: nothing of the old user, whose events the old stream would still bring.
	forbid("Secret")
	eval[bool](p, `(pb.authStore.clear(), Object.values(queries).every((q) => !q.result.items.some((row) => row.title.includes("Secret"))))`)
	s.create(token, "Secret after sign-out of bob", "a", bob)
	s.create(token, "Public after sign-out", "a", "")
	until(t, "the public news", func() bool { return shows("Public after sign-out") })
	p.Converges("plain", "filtered")

	// A session that ends by itself.
	var users struct{ AuthToken map[string]any }
	s.API(token, http.MethodGet, "/api/collections/users", nil, &users)
	users.AuthToken["duration"] = 10
	s.API(token, http.MethodPatch, "/api/collections/users", map[string]any{"authToken": users.AuthToken}, nil)
	forbid("of bob")
	signIn("ann")
	p.Converges("plain", "filtered")
	p.Wait(`!pb.authStore.isValid`)
	until(t, "ann's content is gone", func() bool { return !shows("Secret of ann") })
	forbid("Secret")
	s.create(token, "Secret after the end of ann", "a", ann)
	s.create(token, "Public after the end", "a", "")
	until(t, "the public news", func() bool { return shows("Public after the end") })
	p.Converges("plain", "filtered")
	p.Clean(true)
}

// TestLiveQueryNoticesWhatNoEventTells has a row leave the viewer's rule.
func TestLiveQueryNoticesWhatNoEventTells(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	id := s.create(token, "Public", "a", "")
	p := openHarness(t, s.URL)
	eval[int](p, "hurry = 30") // a minute in two seconds
	p.Live(`"newest", {limit: 5}`)
	p.Converges("newest")
	s.update(token, id, map[string]any{"userId": ann})
	p.Wait("queries.newest.result.items.length === 0")
	p.Converges("newest")
	p.Clean(true)
}

func TestLiveQueryStartsAndStops(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	s.create(token, "Row", "a", "")
	p := openHarness(t, s.URL)

	// Stopped while it fetches, as React's strict mode does; another goes on.
	eval[bool](p, `(live("stopped", {limit: 5}), queries.stopped.stop(), queries.stopped.stop(), true)`)
	// Stopped when it has its rows, but has not told of them yet.
	eval[bool](p, `(pb.afterSend = (_, answer) => (setTimeout(() => queries.early.stop()), answer), true)`)
	p.Live(`"early", {limit: 5}`)
	p.Wait(`queries.early.stopped`)
	eval[bool](p, `delete pb.afterSend`)
	p.Live(`"one", {limit: 5}`)
	p.Live(`"two", {limit: 1}`)
	p.Live(`"users", {limit: 5}, "users"`)
	p.Converges("one", "two", "users")
	eval[bool](p, `(queries.one.stop(), true)`)
	s.create(token, "After one stopped", "a", "")
	p.Converges("two", "users")
	// That none is called after it was stopped, Converges has seen.
	if n := eval[int](p, "queries.stopped.calls"); n != 0 {
		t.Errorf("calls of a query that was stopped at once: got %d, want 0", n)
	}

	// Without a query there is no stream.
	eval[bool](p, `(queries.two.stop(), queries.users.stop(), true)`)
	var clients int
	until(t, "the stream ends", func() bool {
		clients = eval[int](p, `performance.getEntriesByType("resource").filter((entry) => entry.name.endsWith("/api/realtime") && entry.initiatorType !== "fetch").length`)
		return clients > 0
	})

	// What the server refuses is told, and is no list.
	p.Live(`"bad", {filter: "nothing = 1"}`)
	p.Wait(`queries.bad.result.status === "failed" && queries.bad.result.error.status === 400`)
	p.Live(`"callbacks", {}, "modelriverCallbacks"`)
	p.Wait(`queries.callbacks.result.status === "failed" && queries.callbacks.result.error.status === 403`)
	for _, limit := range []string{"0", "1001", "1.5"} {
		if !eval[bool](p, `(() => { try { live("limit", {limit: `+limit+`}); } catch (err) { return err instanceof RangeError; } })() === true`) {
			t.Errorf("limit %s: got no RangeError", limit)
		}
	}
	p.Clean(false)
}

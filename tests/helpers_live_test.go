package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

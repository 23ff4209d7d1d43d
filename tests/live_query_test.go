package tests

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLiveQueryFollowsEveryChange(t *testing.T) {
	t.Parallel()
	t.Run("of this server", func(t *testing.T) {
		t.Parallel()
		followEveryChange(t, func(*tab) {})
	})
	t.Run("of stock PocketBase", func(t *testing.T) {
		t.Parallel()
		followEveryChange(t, (*tab).AsStock)
	})
}

func followEveryChange(t *testing.T, prepare func(p *tab)) {
	s, token, p := startHarness(t)
	prepare(p)
	var ids []string
	for i := range 6 {
		ids = append(ids, s.create(token, fmt.Sprint("Row ", i), "a", ""))
	}
	all := []string{"full", "roomy", "filtered", "titles", "fields", "oldest", "mixed", "asked", "expanded"}
	p.Live(`"full", {limit: 3}`)
	p.Live(`"roomy", {limit: 20}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 4}`)
	p.Live(`"titles", {sort: "title", limit: 4}`)
	p.Live(`"fields", {fields: "id,title", limit: 3}`)
	p.Live(`"oldest", {sort: "created", limit: 3}`)
	p.Live(`"mixed", {filter: 'category = "a" && title != "Created"', sort: "-category,title", limit: 5}`)
	p.Live(`"asked", {filter: 'title ~ "row" || body = "changed"', sort: "-updated", limit: 5}`)
	p.Live(`"expanded", {filter: 'category = "a"', expand: "nothing", limit: 3}`)
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
		{"update that leaves and enters it at once", func() {
			s.update(token, ids[4], map[string]any{"category": "b"})
			s.update(token, ids[4], map[string]any{"category": "a", "title": "Back in"})
		}},
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
	s, token, p := startHarness(t)
	s.create(token, "Another row", "a", "")
	eval[bool](p, `(window.held = [], window.EventSource = class extends EventSource {
		addEventListener(type, run) {
			const hold = (event) => event.data.includes('"record"') ? held.push(() => run(event)) : run(event);
			super.addEventListener(type, type.includes("/") ? hold : run);
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

// A query asks the server again only if a full list has lost a row: never for rows that it
// does not show, nor for those that enter and leave it.
func TestLiveQueryCostsWhatItShows(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	ann := s.user(token, "ann@example.com")
	id := s.create(token, "Row 0", "a", "")
	p.Live(`"own", {filter: 'category = "a"', limit: 20}`)
	p.Live(`"titles", {filter: 'category = "a" && title ~ "row"', sort: "title", limit: 20}`)
	p.Converges("own", "titles")
	lists, streams := p.Requests("/records?page="), p.Requests("GET /api/realtime") // the comparison's own have no page

	burst(t, s, 100) // of other categories
	last := s.create(token, "Row 1", "a", "")
	p.Wait(`queries.own.result.items.length === 2 && queries.titles.result.items.length === 2`)
	s.update(token, last, map[string]any{"title": "A row that sorts first"})
	p.Wait(`queries.titles.result.items[0].title.startsWith("A row")`)
	s.update(token, last, map[string]any{"category": "b"})
	p.Wait(`queries.own.result.items.length === 1 && queries.titles.result.items.length === 1`)
	s.update(token, id, map[string]any{"userId": ann}) // which a guest may not see
	p.Wait(`queries.own.result.items.length === 0 && queries.titles.result.items.length === 0`)
	p.Converges("own", "titles")
	again := p.Requests("GET /api/realtime") - streams // of a stream that was lost on a slow machine
	if got := p.Requests("/records?page=") - lists; got > 2*again {
		t.Errorf("lists after the first: got %d, want none, but one for each query and each of %d new streams", got, again)
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
	await(t, "the last rows are shown", func() bool { return eval[bool](p, `equal("newest")`) && eval[bool](p, `equal("filtered")`) })
	made := requests() - before
	t.Logf("500 webhooks in %s: %d requests by a plain and a filtered query, %d calls of onChange",
		took.Round(time.Millisecond), made, eval[int](p, "queries.newest.calls")-calls)
	if made > 2*3 {
		t.Errorf("requests: got %d, want at most 3 for each query", made)
	}
	p.Converges("newest", "filtered")
	p.Clean(true)
}

func TestLiveQueryStartsAndStops(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	s.create(token, "Row", "a", "")

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
	await(t, "the stream ends", func() bool {
		clients = eval[int](p, `performance.getEntriesByType("resource").filter((entry) => entry.name.endsWith("/api/realtime") && entry.initiatorType !== "fetch").length`)
		return clients > 0
	})

	// What getList takes beside them are no options of a live list, which has the first rows.
	p.Live(`"options", {limit: 5, page: 2, perPage: 1}`)
	p.Converges("options")
	if n := p.Requests("page=2"); n != 0 {
		t.Errorf("lists of the second page: got %d, want none", n)
	}

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

// TestLiveQueriesOfTooManyTopics has one query more than PocketBase brings the events of. It
// shows its rows, but is not live.
func TestLiveQueriesOfTooManyTopics(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	s.create(token, "Row", "a", "")
	p.Live(`"plain", {limit: 10}`)
	p.Converges("plain")

	// A collection that there is none of is refused by its list, but it is heard.
	eval[bool](p, `Array.from({length: 999}, (_, i) => live("many" + i, {}, "none" + i)).every((ok) => ok)`)
	p.Wait(`queries.many998.result.status === "failed"`)
	p.Live(`"beyond", {filter: 'category = "a"'}`)
	p.Live(`"same", {limit: 5}`)
	s.create(token, "After the many", "a", "")
	p.Converges("plain", "same")
	p.Wait(`queries.beyond.result.items.length > 0 && queries.beyond.result.status === "connecting"`)
	p.Clean(false)
}

// TestLiveQueryInNode runs the module where there is no EventSource.
func TestLiveQueryInNode(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("c0", "A row", ""))
	folder := filepath.Join(repository, "pb_public")
	script := filepath.Join(t.TempDir(), "live.mjs")
	text := fmt.Sprintf(`
		import PocketBase from %q;
		import { liveQuery } from %q;
		const stop = liveQuery(new PocketBase(%q), "aiContent", {}, ({ items, status, error }) => {
			console.log(JSON.stringify({ rows: items.length, status, error: error?.message }));
			stop(); // without it, the process would not end
		});`, "file://"+folder+"/vendor/pocketbase.es.mjs", "file://"+folder+"/live-query.js", s.URL)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("node", "--no-warnings", script).CombinedOutput()
	var got struct {
		Rows          int
		Status, Error string
	}
	if err != nil || json.Unmarshal(out, &got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got.Rows != 0 || got.Status != "failed" || !strings.Contains(got.Error, "EventSource") || !strings.Contains(got.Error, "npm install eventsource") {
		t.Errorf("got %s, want a failed status with the remedy", out)
	}
}

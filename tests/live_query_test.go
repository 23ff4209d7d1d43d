package tests

import (
	"fmt"
	"iter"
	"net/http"
	"slices"
	"testing"
)

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

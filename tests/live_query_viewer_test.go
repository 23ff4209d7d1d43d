package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestLiveQueryShowsEachViewerTheirOwn(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	ann, bob := s.user(token, "ann@example.com"), s.user(token, "bob@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "Secret of ann", "a", ann)
	s.create(token, "Secret of bob", "a", bob)

	forbid := func(text string) {
		eval[bool](p, fmt.Sprintf(`Object.values(queries).forEach((q) => (q.forbidden = %q)) ?? true`, text))
	}
	shows := func(title string) bool {
		return eval[bool](p, fmt.Sprintf(`Object.values(queries).every((q) => q.result.items.some((row) => row.title === %q))`, title))
	}
	p.Live(`"plain", {limit: 10}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 10}`)
	p.Live(`"sorted", {sort: "-updated,id", limit: 10}`)
	forbid("Secret")
	p.Converges("plain", "filtered", "sorted")

	// Sign in: own content, at once and live.
	forbid("of bob")
	p.SignIn("ann@example.com", testPassword)
	p.Converges("plain", "filtered", "sorted")
	s.create(token, "Secret news of ann", "a", ann)
	s.create(token, "Secret news of bob", "a", bob)
	await(t, "the news", func() bool { return shows("Secret news of ann") })
	p.Converges("plain", "filtered", "sorted")

	// As somebody else: not a row of before, not for a moment.
	forbid("of ann")
	p.SignIn("bob@example.com", testPassword)
	p.Converges("plain", "filtered", "sorted")
	if !shows("Secret news of bob") {
		t.Error("bob's own content is missing")
	}

	// Sign out: nothing of the old user, whose events the old stream would still bring.
	forbid("Secret")
	eval[bool](p, `(pb.authStore.clear(), Object.values(queries).every((q) => !q.result.items.some((row) => row.title.includes("Secret"))))`)
	s.create(token, "Secret after sign-out of bob", "a", bob)
	s.create(token, "Public after sign-out", "a", "")
	await(t, "the public news", func() bool { return shows("Public after sign-out") })
	p.Converges("plain", "filtered", "sorted")

	// A session that ends by itself.
	s.shortenSessions(token)
	forbid("of bob")
	p.SignIn("ann@example.com", testPassword)
	p.Converges("plain", "filtered", "sorted")
	p.Wait(`!pb.authStore.isValid`)
	await(t, "ann's content is gone", func() bool { return !shows("Secret of ann") })
	forbid("Secret")
	s.create(token, "Secret after the end of ann", "a", ann)
	s.create(token, "Public after the end", "a", "")
	await(t, "the public news", func() bool { return shows("Public after the end") })
	p.Converges("plain", "filtered", "sorted")
	p.Clean(true)
}

// ForbidEmpty makes Converges fail if the query's list is ever empty from now on.
func (p *tab) ForbidEmpty(name string) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(() => {
		let { result } = queries[%[1]q];
		Object.defineProperty(queries[%[1]q], "result", {
			get: () => result,
			set: (next) => { if (!(result = next).items.length) wrong.push(%[1]q + ": emptied"); },
		});
		return true;
	})()`, name))
}

// TestLiveQueryKeepsItsIdentity has PocketBase take the identity from the stream of a
// viewer who then signs in again, as the same person and in the same tab.
func TestLiveQueryKeepsItsIdentity(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	eval[bool](p, "patient = true")
	ann := s.user(token, "ann@example.com")
	s.create(token, "Secret of ann", "a", ann)
	email, password := "ann@example.com", testPassword
	signIn := func() { p.SignIn(email, password) }
	signIn()
	p.Live(`"plain", {limit: 10}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 10}`)
	p.Live(`"sorted", {sort: "-updated,id", limit: 10}`)
	p.Converges("plain", "filtered", "sorted")
	// From here on it is the same person. The filtered query lists on its own time, with a
	// token that may be dead, and gets what a guest gets.
	p.ForbidEmpty("plain")
	heard := func(title string) {
		t.Helper()
		s.create(token, title, "a", ann)
		p.Wait(fmt.Sprintf(`Object.values(queries).every((q) => q.result.items[0]?.title === %q)`, title))
		p.Converges("plain", "filtered", "sorted")
	}
	patch := func(path string, fields map[string]any) {
		t.Helper()
		s.API(token, http.MethodPatch, "/api/collections/"+path, fields, nil)
	}
	heard("Before")
	streams := p.Requests("GET /api/realtime")

	for _, change := range []struct {
		name string
		do   func()
	}{
		{"nothing, but a new token", func() {
			eval[bool](p, `pb.collection("users").authRefresh().then(() => true)`)
		}},
		{"the password", func() {
			old := password
			password = "another password"
			eval[bool](p, fmt.Sprintf(`pb.collection("users").update(%q, {oldPassword: %q, password: %[3]q, passwordConfirm: %[3]q}).then(() => true)`, ann, old, password))
			signIn()
		}},
		{"the e-mail address", func() {
			email = "anne@example.com"
			patch("users/records/"+ann, map[string]any{"email": email})
			signIn()
		}},
		{"the key of all tokens", func() {
			patch("users/records/"+ann, map[string]any{"tokenKey": strings.Repeat("k", 50)})
			signIn()
		}},
		{"the secret of the collection", func() {
			patch("users", map[string]any{"authToken": map[string]any{"duration": 3600, "secret": strings.Repeat("s", 50)}})
			signIn()
		}},
	} {
		change.do()
		heard("After: " + change.name)
		if change.name == "nothing, but a new token" && p.Requests("GET /api/realtime") != streams {
			t.Error("a new token ended the stream")
		}
	}
	p.Clean(true)
}

// TestLiveQueryNoticesWhatNoEventTells has a row leave the viewer's rule, of which stock
// PocketBase tells nobody.
func TestLiveQueryNoticesWhatNoEventTells(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	ann := s.user(token, "ann@example.com")
	id := s.create(token, "Public", "a", "")
	p.AsStock()
	eval[int](p, "hurry = 30") // a minute in two seconds
	p.Live(`"newest", {limit: 5}`)
	p.Converges("newest")
	s.update(token, id, map[string]any{"userId": ann})
	p.Wait("queries.newest.result.items.length === 0")
	p.Converges("newest")
	p.Clean(true)
}

// A list that is refused while the rule opens is asked for again at once, not as late as one
// that was refused for good.
func TestLiveQueryWhoseRuleOpensMeanwhile(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	s.create(token, "Public", "a", "")
	rule := func(rule any) {
		s.API(token, http.MethodPatch, "/api/collections/aiContent", map[string]any{"listRule": rule}, nil)
	}
	rule(nil)
	p.Live(`"newest", {limit: 5}`)
	p.Wait(`queries.newest.result.status === "failed" && queries.newest.list.active`)
	eval[bool](p, `(window.held = [], window.fetch = ((fetch) => async (url, options) => {
		const response = await fetch(url, options);
		if (held && String(url).includes("/records?")) await new Promise((answer) => held.push(answer));
		return response;
	})(fetch), true)`)
	rule(nil) // the stream says what it brings anew
	p.Wait(`held.length === 1`)
	rule("")
	p.Wait(`queries.newest.list.stale`)
	eval[bool](p, `(held[0](), held = null, true)`)
	p.Wait(`queries.newest.result.items.length === 1`)
	p.Converges("newest")
	p.Clean(false)
}

// A page says to a server what it has seen, also when it signs in to its stream, and needs nothing of an answer but what the SDK does.
func TestLiveQuerySaysWhatItHasSeen(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	s.create(token, "Public", "a", "")
	eval[bool](p, `(window.said = [], window.headers = undefined, window.fetch = ((fetch) => async (url, options) => {
		const response = await fetch(url, options);
		said.push(options.method + " " + options.headers["Replica-Position"]);
		return { status: response.status, url: response.url, json: () => response.json(), headers };
	})(fetch), true)`)
	p.Live(`"newest", {limit: 5}`)
	p.Wait(`queries.newest.result.items.length === 1`)
	eval[bool](p, `(headers = { get: (name) => name === "Replica-Position" ? "log-7" : null }, true)`)
	p.Live(`"one", {limit: 1}`)
	p.Wait(`queries.one.result.items.length === 1`)
	p.Live(`"other", {filter: 'category = "a"', limit: 5}`)
	p.Wait(`said.includes("GET log-7") && said.includes("POST log-7")`)
}

// What was made for a user who is deleted goes from a page that is open, without a reload.
func TestLiveQueryForgetsADeletedUser(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	ann := s.user(token, "ann@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "For ann", "a", ann)
	p.SignIn("ann@example.com", testPassword)
	p.Live(`"own", {filter: 'category = "a"', limit: 10}`)
	p.Wait(`queries.own.result.items.length === 2`)
	s.API(token, http.MethodDelete, "/api/collections/users/records/"+ann, nil, nil)
	p.Wait(`queries.own.result.items.map((row) => row.title).join() === "Public"`)
	p.Converges("own")
	p.Clean(true)
}

// A row of a full list that the viewer may see no more goes, also while the server gives no list
// from which another could take its place.
func TestLiveQueryHidesWhatLeftWithoutAList(t *testing.T) {
	t.Parallel()
	for name, instead := range map[string]string{
		"refused": `new Response('{"status": 429}', { status: 429 })`,
		"hanging": `new Promise((_, reject) => options.signal.addEventListener("abort", () => reject(options.signal.reason)))`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hideWhatLeft(t, instead)
		})
	}
}

// hideWhatLeft has lists answered by what stands instead of them. What takes 30 seconds takes one.
func hideWhatLeft(t *testing.T, instead string) {
	s, token, p := startHarness(t)
	ann := s.user(token, "ann@example.com")
	for i := range 3 {
		s.create(token, fmt.Sprint("Row ", i), "a", "")
	}
	id := s.create(token, "Secret", "a", "")
	p.Live(`"full", {limit: 2}`)
	p.Live(`"fields", {fields: "id,title,created", limit: 2}`)
	p.Converges("full", "fields")
	eval[bool](p, `(window.refuses = true, window.fetch = ((fetch) => async (url, options) => refuses && String(url).includes("/records?page=")
		? `+instead+` : fetch(url, options))(fetch), window.setTimeout = ((timeout) => (run, ms, ...rest) =>
		timeout(run, ms === 30_000 ? 1000 : ms, ...rest))(setTimeout), true)`)
	s.update(token, id, map[string]any{"userId": ann})
	p.Wait(`["full", "fields"].every((name) => queries[name].result.items.length && !queries[name].result.items.some((row) => row.title === "Secret"))`)
	eval[bool](p, `!(refuses = false)`)
	p.Converges("full", "fields")
	p.Clean(false)
}

// A page whose onChange fails when the viewer changes keeps no other list from forgetting them, nor from being live.
func TestLiveQueryForgetsTheViewerWhenAPageFails(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	ann := s.user(token, "ann@example.com")
	s.create(token, "Secret of ann", "a", ann)
	p.SignIn("ann@example.com", testPassword)
	eval[bool](p, `(window.failed = 0, import("/live-query.js").then(({ liveQuery }) => !!liveQuery(pb, "aiContent", { limit: 1 }, ({ items }) => {
		if (window.known && !items.length) throw new Error("The page fails " + ++failed);
		window.known = items.length;
	})))`)
	p.Live(`"own", {limit: 10}`)
	p.Converges("own")
	p.Wait("known === 1")
	eval[bool](p, `{ try { pb.authStore.clear(); } catch {} } failed === 1`)
	if titles := eval[string](p, `queries.own.result.items.map((row) => row.title).join()`); titles != "" {
		t.Errorf("signed out, the list still shows %s", titles)
	}
	s.create(token, "Public", "a", "")
	p.Wait(`queries.own.result.items.map((row) => row.title).join() === "Public"`)
	p.Converges("own")
}

// A list that was asked for by a session that ends before it comes is not shown, though nothing tells of its end.
func TestLiveQueryOfASessionThatEndsMeanwhile(t *testing.T) {
	t.Parallel()
	s, token, p := startHarness(t)
	ann := s.user(token, "ann@example.com")
	s.create(token, "Public", "a", "")
	p.SignIn("ann@example.com", testPassword)
	p.Live(`"own", {limit: 10, fields: "id,title,created"}`)
	p.Converges("own")
	eval[bool](p, `(window.held = null, window.fetch = ((fetch) => async (url, options) => {
		const response = await fetch(url, options);
		if (pb.authStore.isValid && String(url).includes("/records?page=")) await new Promise((answer) => (held = answer));
		return response;
	})(fetch), true)`)
	s.create(token, "Secret", "a", ann)
	p.Wait("held")
	eval[bool](p, `(queries.own.forbidden = "Secret", localStorage.clear(), held(), true)`)
	s.create(token, "Public news", "a", "")
	p.Converges("own")
	p.Clean(true)
}

package tests

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// harness makes live(name, query) start a live query in the tab. It keeps what the query
// tells and notes in wrong what a list may never be; whoever says grows of one, that it never goes back. equal(name) is whether the query
// shows what the server lists for whoever is signed in.
const harness = `(async () => {
	document.body.textContent = ""; // of the file that is open
	// The polling that makes up for what no event tells would hide a failure to follow
	// events: it never comes, see quiet, or hurry times as fast. Nor does the end of the time
	// that somebody patient has for signing in again.
	const timeout = window.setTimeout;
	window.hurry = 0;
	window.patient = false;
	window.setTimeout = (run, ms, ...rest) => {
		const stack = new Error().stack;
		if (patient && ms === 2000 && stack.includes("recognize")) return -1;
		const poll = hurry && ms > 4000 && /[.](poll|closed|failed) /.test(stack); // and not what an event asks of a slow machine
		return timeout(run, poll ? ms / hurry : ms, ...rest);
	};
	const quiet = (list) => {
		const { poll, loadIn } = list;
		list.poll = () => hurry && poll.call(list);
		list.loadIn = (delay) => (hurry || delay !== 10000) && loadIn.call(list, delay); // 10 s: of what was refused
	};
	const { default: PocketBase } = await import("/vendor/pocketbase.es.mjs");
	const { liveQuery } = await import("/live-query.js");
	const { streamOf } = await import("/live-stream.js");
	window.place = () => Number(streamOf(pb).state.position.split(".")[1]); // that it knows in the server's log
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
			if (q.grows && result.items[0]?.created < q.newest) wrong.push(name + ": went back");
			q.newest = result.items[0]?.created;
			q.result = result;
			q.calls++;
		});
		quiet(q.list = [...streamOf(pb).listeners].at(-1));
		q.stop = () => { q.stopped = true; stop(); };
		return true;
	};
	// The order of a query is always the same: by id in the end, in the last key's direction.
	window.inOrder = (sort) => /(^|,)[-+]?id(,|$)/.test(sort) ? sort : sort + (/(^|,)-[^,]*$/.test(sort) ? ",-id" : ",id");
	window.equal = async (name) => {
		await new Promise((resolve) => timeout(resolve, 100)); // what is known is told within 50 ms
		const { query: { filter, sort = "-created,-id", limit = 50, fields, expand }, collection, result } = queries[name];
		const params = new URLSearchParams(Object.entries({ filter, sort: inOrder(sort), fields, expand, perPage: limit }).filter(([, value]) => value));
		const headers = pb.authStore.token ? { Authorization: pb.authStore.token } : {};
		const response = await fetch("/api/collections/" + collection + "/records?" + params, { headers }).catch(() => null);
		queries[name].answered = response?.status;
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

// startHarness starts a server and opens a harness of it. It returns a superuser's token
// too.
func startHarness(t testing.TB) (s *server, token string, p *tab) {
	t.Helper()
	s = startServer(t, "")
	return s, s.Superuser(), openHarness(t, s.URL)
}

// AsStock hides from the harness what this server can do that stock PocketBase cannot.
func (p *tab) AsStock() {
	p.t.Helper()
	eval[bool](p, `(window.EventSource = class extends EventSource {
		addEventListener(type, run) {
			super.addEventListener(type, type !== "PB_CONNECT" ? run : ({ lastEventId }) =>
				run({ lastEventId, data: JSON.stringify({ clientId: lastEventId }) }));
		}
	}, true)`)
}

// SignIn signs in a user in the harness.
func (p *tab) SignIn(email, password string) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`pb.collection("users").authWithPassword(%q, %q).then(() => true)`, email, password))
}

// Live starts a live query, given as the arguments of the harness's live.
func (p *tab) Live(arguments string) {
	p.t.Helper()
	eval[bool](p, "live("+arguments+")")
}

// forms are live queries of every form that goes through each fault: the newest, what is
// compiled, what the database is asked, another order, and a list that has grown.
var forms = []string{"newest", "filtered", "asked", "sorted", "paged"}

// LiveForms starts the forms in the harness.
func (p *tab) LiveForms() {
	p.t.Helper()
	p.Live(`"newest", {limit: 3}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 20}`)
	p.Live(`"asked", {filter: 'title ~ "r"', sort: "-updated,id", limit: 5}`)
	p.Live(`"sorted", {sort: "title,id", limit: 3}`) // titles come twice
	p.Live(`"paged", {limit: 41}`)
	p.Converges(forms...)
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

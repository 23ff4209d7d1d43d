package tests

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// idleCut is when the proxies before the viewers end a silent connection.
const idleCut = time.Minute

// A viewer is a tab with the queries of one person, behind a proxy of its own.
type viewer struct {
	*tab
	name     string
	proxy    *cuttable
	queries  []string // their names
	polls    bool     // what it asks for is not known by events alone
	unequal  []string // of the last check
	compared int      // queries, of the last check
	slowest  time.Duration
	late     int // checks that took too long
}

// What depends on the record and the viewer alone. ANN and BOB are users' ids.
var decidableFilters = []string{
	``, `category = "a"`, `category != "a"`, `rank >= 3`, `rank < 0 || rank > 7.5`, `approved = true`,
	`approved = false && category = "b"`, `due >= "2026-06-01"`, `due = ""`, `due < "2026-03-01 12:00:00.000Z" && due != ""`,
	`kind = "memo"`, `kind != "draft" && rank <= 5`, `userId = ""`, `userId = "ANN"`, `userId != "BOB" && rank > 1`,
	`created >= "2020-01-01"`, `updated != "" && kind = "Ünï"`, `"b" = category`, `id > "m"`, `rank != null && title = "open"`,
	`title ~ "o"`, `title !~ "%a_"`, `body ~ "x" && category = "c"`, `data.n > 4`, `data.tags ?= "x"`, `data.n = null`,
	`tags ?= "red"`, `tags:length > 1`, `tags !~ "blue"`, `category:lower = "b"`, `rank = "5"`, `metadata = null`,
	`(category = "a" || category = "b") && (rank > 2 && approved = false || title ~ "e")`,
	`(approved = true || userId = "ANN") && data.n < 6`, `channelId = ""`, `channelId ~ "live-1"`, `updated > created`,
}

// What a superuser may ask besides.
var superuserFilters = []string{`userId != @request.auth.id`, `@request.auth.id = userId || category = "a"`}

// What more than the record and the viewer decides.
var polledFilters = []string{
	`data.n > @minute`, `created < @now`, `updated > @todayStart && rank > 2`, `owner.name ~ "a"`, `owner.verified = true || category = "c"`,
	`owner.id != "" && owner.created > "2020-01-01"`,
}

var polledSuperuserFilters = []string{
	`@collection.users.id ?= userId`, `@collection.notes.content ?= id`, `secret = "x"`, `notes_via_content.done ?= true`, `owner.name ~ "b" && rank > 1`,
}

// Of another collection, which PocketBase alone serves.
var noteFilters = []string{``, `done = true`, `rank > 2 && kind = "memo"`, `due != ""`, `content.category = "a"`, `content.approved = true || done = false`}

var liveSorts = []string{
	``, ``, `title`, `-title,rank`, `rank`, `-rank,-created`, `due,title`, `-approved,kind,-id`, `kind,-rank`, `-updated`, `created`,
	`category,-due,title`, `id`, `-userId,title`, `data.n`, `-data,title`, `-tags`,
}

// openViewers opens each viewer's tab and starts their queries.
func (r *liveRun) openViewers() {
	r.t.Helper()
	deck := deal(r.rng, decidableFilters)
	r.open("guest", "", false, deck(14))
	r.open("ann", "ann@example.com", false, deck(14))
	r.mover = r.open("mover", "", false, deck(10))
	r.open("superuser", testEmail, false, append(deck(10), superuserFilters...))
	r.open("polling", "ann@example.com", true, append(deck(3), polledFilters...))
	r.open("polling superuser", testEmail, true, polledSuperuserFilters)
	notes := r.open("stock", "bob@example.com", true, nil)
	for _, filter := range noteFilters {
		r.start(notes, "notes", filter)
	}
}

// deal returns what gives so many of the cards, each as often as the others.
func deal(rng *rand.Rand, cards []string) func(n int) []string {
	var order []int
	return func(n int) (hand []string) {
		for range n {
			if len(order) == 0 {
				order = rng.Perm(len(cards))
			}
			hand = append(hand, cards[order[0]])
			order = order[1:]
		}
		return hand
	}
}

// open opens a tab in which somebody, a guest if the address is empty, has a query of each
// filter.
func (r *liveRun) open(name, email string, polls bool, filters []string) *viewer {
	r.t.Helper()
	v := &viewer{name: name, polls: polls, proxy: startCuttable(r.t, r.server)}
	v.proxy.idle.Store(int64(idleCut))
	page := v.proxy.URL + "/live-query.js" // another origin, and so another session
	if len(r.viewers) == 0 {
		v.tab = openTab(r.t, page)
	} else {
		v.tab = r.viewers[0].Another(page)
	}
	v.StopNetworkEvents()
	eval[bool](v.tab, harness)
	eval[bool](v.tab, liveSpy)
	if polls {
		eval[int](v.tab, fmt.Sprintf("hurry = %d", pollsFaster))
	}
	r.signIn(v, email)
	for _, filter := range filters {
		r.start(v, "aiContent", filter)
	}
	r.viewers = append(r.viewers, v)
	return v
}

func (r *liveRun) signIn(v *viewer, email string) {
	r.t.Helper()
	switch email {
	case "":
		eval[bool](v.tab, "(pb.authStore.clear(), true)")
	case testEmail:
		eval[bool](v.tab, fmt.Sprintf(`pb.collection("_superusers").authWithPassword(%q, %q).then(() => true)`, email, testPassword))
	default:
		v.SignIn(email, testPassword)
	}
}

// start starts a query of the filter, in any order and of any length.
func (r *liveRun) start(v *viewer, collection, filter string) {
	r.t.Helper()
	name := fmt.Sprint("q", len(v.queries))
	v.queries = append(v.queries, name)
	r.startAs(v, name, collection, filter)
}

func (r *liveRun) startAs(v *viewer, name, collection, filter string) {
	r.t.Helper()
	query := map[string]any{"limit": []int{1, 5, 50}[r.rng.IntN(3)]}
	if filter != "" {
		query["filter"] = strings.NewReplacer("ANN", r.users[0], "BOB", r.users[1]).Replace(filter)
	}
	sort := liveSorts[r.rng.IntN(len(liveSorts))]
	if collection == "notes" {
		sort = []string{"", "rank", "-due,title", "-created", "content.title"}[r.rng.IntN(5)]
	}
	if sort != "" {
		query["sort"] = sort
	}
	if r.rng.IntN(6) == 0 {
		query["fields"] = "id,title,userId,created,updated"
	}
	if v.polls && r.rng.IntN(3) == 0 {
		query["expand"] = map[string]string{"aiContent": "owner", "notes": "content.owner"}[collection]
	}
	arguments, err := json.Marshal(query)
	if err != nil {
		r.t.Fatal(err)
	}
	v.Live(fmt.Sprintf("%q, %s, %q", name, arguments, collection))
}

// liveSpy makes unequal(names) name those of the queries that do not show what the server
// lists, or fail where it refuses to, and explain(name) tell how and why one does not. It counts lists.
const liveSpy = `(() => {
	const heard = [];
	const note = (text) => heard.push(new Date().toISOString().slice(11, 23) + " " + text) > 20000 && heard.splice(0, 5000);
	window.EventSource = class extends EventSource {
		constructor(url) {
			super(url);
			note("connects " + url);
			this.addEventListener("error", () => note("connection lost"));
		}
		noted = new Set();
		addEventListener(type, run) {
			if (!this.noted.has(type)) {
				this.noted.add(type);
				super.addEventListener(type, (event) => {
					if (event.data) note(event.lastEventId + " " + decodeURIComponent(type).replace("?leave=1&options=", "?") + " " + event.data.replace(/"sortable":\[.*?\]/, "").slice(0, 600));
				});
			}
			super.addEventListener(type, run);
		}
	};
	window.lists = 0;
	pb.beforeSend = (url, options) => {
		if (options.query?.page) lists++;
		return { url, options };
	};
	const refused = ({ answered, result }) => [400, 403].includes(answered) && result.status === "failed" && !result.items.length;
	const running = (names) => Object.entries(queries).filter(([name, q]) => !q.stopped && (!names || names.includes(name)));
	window.asked = (names) => names.map((name) => JSON.stringify(queries[name].query));
	window.unequal = async (names) => {
		const found = await Promise.all(running(names).map(async ([name, q]) => (await equal(name)) || refused(q) ? "" : name));
		return found.filter(Boolean);
	};
	const row = ({ id, updated, title }) => id + " " + updated + " " + title;
	window.explain = async (name) => {
		const { query, collection, result, answered } = queries[name];
		const { filter, sort = "-created,-id", limit, fields, expand } = query;
		const list = await pb.collection(collection).getList(1, limit, { filter, sort: inOrder(sort), fields, expand, requestKey: null }).catch((err) => ({ items: [], err }));
		const [shown, listed] = [result.items.map(row), list.items.map(row)];
		const rows = [...result.items, ...list.items].filter((one) => !(shown.includes(row(one)) && listed.includes(row(one))));
		const differ = [...new Set(rows.map(({ id }) => id))];
		const topic = collection + "/*" + (filter ? "?" + JSON.stringify({ query: { filter } }) : "");
		const events = heard.filter((line) => line.includes('"record"') ? differ.some((id) => line.includes(id)) : !line.includes("/*") || line.includes(topic));
		const { active, synced, stale, says, failures, took, started, due, loading } = queries[name].list;
		return {
			query, shown, listed, differ, events: events.slice(-200),
			state: {
				status: result.status, error: String(result.error), answered, refused: list.err && String(list.err),
				active, synced, stale, says, failures, took, began: started - performance.now(), due: due - performance.now(), loading: !!loading,
			},
		};
	};
	return true;
})()`

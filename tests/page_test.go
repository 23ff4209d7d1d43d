package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// live is true when the page says that it is.
const live = `document.querySelector("#state").dataset.status === "live"`

// titles is what the page lists.
const titles = `[...document.querySelectorAll("#feed h2")].map(h => h.textContent)`

// openFeed opens the page and waits until it is live.
func openFeed(t testing.TB, url string) *tab {
	t.Helper()
	p := openTab(t, url)
	p.Wait(live)
	return p
}

func TestPageShowsContentAsItArrives(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)

	// A first visit is told what to do.
	p.Wait(`document.querySelector("#empty").checkVisibility()`)
	empty := eval[string](p, `document.querySelector("#empty").innerText`)
	for _, want := range []string{"./pocketriver modelriver send --url " + s.URL + "/webhooks/modelriver", "MODELRIVER_WEBHOOK_SECRET"} {
		if !strings.Contains(empty, want) {
			t.Errorf("the empty page lacks %q: %s", want, empty)
		}
	}
	p.Size(1280, 860)
	p.Screenshot("feed-empty")

	long := strings.Repeat("One more sentence of a long text. ", 200)
	evil := `<img src=x onerror=alert(1)><script>alert(2)</script>`
	body, _ := json.Marshal(map[string]any{
		"type": "task.ai_generated", "event": "new_content", "channel_id": "c1",
		"ai_response":   map[string]any{"data": map[string]any{"title": evil, "description": long, "score": json.Number("9007199254740993"), "tags": []string{"x", "y"}}},
		"customer_data": map[string]any{"category": "stories"},
		"meta":          map[string]any{"provider": "openai", "model": "gpt-4o"},
	})
	s.Send(body)
	p.Wait(`document.querySelector("#feed .new h2")`) // visibly new
	p.Wait(`document.querySelector("#news").textContent.startsWith("New: <img")`)
	if got := eval[string](p, `document.querySelector("#feed h2").textContent`); got != evil {
		t.Errorf("title: got %q, want the text as it is", got)
	}
	if eval[bool](p, `document.querySelector("#empty").checkVisibility()`) {
		t.Error("the page still says that nothing has arrived")
	}
	about := eval[string](p, `document.querySelector("#feed .about").innerText`)
	for _, want := range []string{"stories", "new_content", "openai / gpt-4o", "just now", fmt.Sprint(time.Now().Year())} {
		if !strings.Contains(about, want) {
			t.Errorf("the line under the title lacks %q: %s", want, about)
		}
	}

	// A long body folds, and unfolds by keyboard.
	shown := func() int { return eval[int](p, `document.querySelector("#feed .body").textContent.length`) }
	if n := shown(); n > 700 {
		t.Errorf("characters of a folded body: got %d, want at most 700", n)
	}
	eval[bool](p, `(document.querySelector("[aria-expanded]").focus(), true)`)
	p.Type("[aria-expanded]", "\r")
	p.Wait(`document.querySelector("[aria-expanded]").ariaExpanded === "true"`)
	if n := shown(); n != len(long) {
		t.Errorf("characters of an unfolded body: got %d, want %d", n, len(long))
	}

	// Data is a tree, exact to the last digit.
	p.Click("#feed .data summary")
	p.Wait(`document.querySelector("#feed .data ul")?.innerText.includes("9007199254740993")`)
	p.Wait(`document.querySelector("#feed .data").innerText.includes("tags")`)

	// An update keeps what the reader has opened.
	token := s.Superuser()
	var list struct{ Items []struct{ ID string } }
	s.API(token, http.MethodGet, "/api/collections/aiContent/records", nil, &list)
	s.update(token, list.Items[0].ID, map[string]any{"title": "A calmer title"})
	p.Wait(titles + `[0] === "A calmer title"`)
	if n := shown(); n != len(long) {
		t.Errorf("characters of the body after an update: got %d, want it to stay unfolded with %d", n, len(long))
	}
	p.Wait(`document.querySelector("#feed .data").open`)
	s.delete(token, list.Items[0].ID)
	p.Wait(`document.querySelector("#empty").checkVisibility()`)

	// Reduced motion means none.
	p.Media("prefers-reduced-motion", "reduce")
	s.Send(payload("c2", "Still", ""))
	p.Wait(`document.querySelector("#feed .new")`)
	if n := eval[int](p, `document.getAnimations().length`); n != 0 {
		t.Errorf("animations under prefers-reduced-motion: got %d, want 0", n)
	}
	p.Clean(true)
}

func TestPageFiltersSearchesAndLoadsMore(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	for i := range 45 {
		s.create(token, fmt.Sprint("Row ", i), []string{"odd 100%", `even "q"`}[(i+1)%2], "")
	}
	p := openFeed(t, s.URL)
	count := func(n int) string { return fmt.Sprintf(`document.querySelectorAll("#feed > li").length === %d`, n) }
	p.Wait(count(20) + ` && document.querySelector("#more").checkVisibility()`)
	p.Click("#more")
	p.Wait(count(40))
	p.Click("#more")
	p.Wait(count(45) + ` && !document.querySelector("#more").checkVisibility()`)
	if eval[bool](p, `!!document.querySelector(".new")`) {
		t.Error("rows of load more are shown as new")
	}

	// By category, from the list and from a row, kept in the address.
	eval[bool](p, `(document.querySelector("#category").value = 'even "q"', document.querySelector("#category").dispatchEvent(new Event("change")), true)`)
	p.Wait(`[...document.querySelectorAll("#feed .category")].every(c => c.textContent === 'even "q"') && document.querySelectorAll("#feed > li").length === 20`)
	p.Open(eval[string](p, "location.href"))
	p.Wait(live + ` && document.querySelector("#category").value === 'even "q"' && [...document.querySelectorAll("#feed .category")].every(c => c.textContent === 'even "q"')`)

	// What enters and leaves the filter does so here.
	s.create(token, "An even one", `even "q"`, "")
	p.Wait(titles + `[0] === "An even one"`)
	s.create(token, "An odd one", "odd 100%", "")
	id := s.create(token, "Moves", `even "q"`, "")
	p.Wait(titles + `[0] === "Moves"`)
	s.update(token, id, map[string]any{"category": "odd 100%"})
	p.Wait(titles + `[0] === "An even one"`)
	if got := eval[string](p, `document.querySelector("#news").textContent`); got != "New: Moves" {
		t.Errorf("told of new rows: got %q, want nothing of the older row that took the place", got)
	}

	// Search, together with it; then to everything again.
	p.Type("#q", "row 43")
	p.Wait(`document.querySelector("#empty").innerText.includes("Nothing matches")`)
	p.Click("#empty button")
	p.Wait(`document.querySelector("#q").value === "" && ` + titles + `[0] === "Moves"`)
	p.Type("#q", "row ") // someone who stops to think before the number
	p.Wait(`new URLSearchParams(location.search).get("q") === "row"`)
	p.Type("#q", "44")
	p.Wait(titles + `.join() === "Row 44"`)
	p.Clean(true)
}

func TestPageShowsOneRequestTheMomentItLands(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("other", "Another request", ""))
	p := openFeed(t, s.URL+"/?channel=my%22channel")
	p.Wait(`document.querySelector("#empty").innerText.includes("Waiting for the result")`)
	s.Send(payload(`my"channel`, "My result", ""))
	p.Wait(titles + `.join() === "My result"`)
	p.Clean(true)
}

func TestPageShowsOwnContentToItsOwnerAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "For ann", "category of ann's", ann)

	p := openFeed(t, s.URL)
	p.Wait(titles + `.join() === "Public"`)
	p.Click("#sign")
	p.Type(`[name=identity]`, "ann@example.com")
	p.Type(`[name=password]`, "wrong password\r")
	p.Wait(`document.querySelector("#refusal").textContent !== ""`)
	p.Screenshot("feed-sign-in")
	eval[bool](p, `(document.querySelector("[name=password]").value = "", true)`)
	p.Type(`[name=password]`, testPassword+"\r")
	p.Wait(titles + `.join() === "For ann,Public"`)
	p.Wait(`document.querySelector("#feed .own").textContent === "Only for you" && document.querySelector("#who").textContent === "ann@example.com"`)
	p.Click("#mine")
	p.Wait(titles + `.join() === "For ann"`)

	// A second tab is signed in too, and both are signed out at once.
	q := p.Another(s.URL)
	q.Wait(titles + `.join() === "For ann,Public"`)
	p.Click("#sign")
	p.Wait(titles + `.join() === "Public"`)
	q.Wait(titles + `.join() === "Public"`)
	for _, each := range []*tab{p, q} {
		if html := eval[string](each, `document.body.innerHTML`); strings.Contains(html, "For ann") || strings.Contains(html, "ann's") || strings.Contains(html, "ann@") {
			t.Errorf("something of ann's is left in the page: %s", html)
		}
	}
	s.create(token, "Again for ann", "a", ann)
	s.create(token, "Again public", "a", "")
	p.Wait(titles + `.join() === "Again public,Public"`)
	q.Wait(titles + `.join() === "Again public,Public"`)
	q.Clean(true)

	// The refused password is the only failed request.
	p.mu.Lock()
	p.network = slices.DeleteFunc(p.network, func(problem string) bool { return strings.Contains(problem, "auth-with-password") })
	p.mu.Unlock()
	p.Clean(true)
}

func TestPageIsHonestAboutItsConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("c1", "Before", ""))
	p := openFeed(t, s.URL)
	s.Kill()
	p.Wait(`document.querySelector("#state").textContent === "Offline" && document.querySelector("#notice").innerText.includes("You see what was there then")`)
	if got := eval[string](p, titles+`.join()`); got != "Before" {
		t.Errorf("rows while offline: got %q, want them to stay", got)
	}
	p.Screenshot("feed-offline")
	s.Start()
	s.Send(payload("c2", "After", ""))
	p.Wait(live + ` && !document.querySelector("#notice").checkVisibility() && ` + titles + `.join() === "After,Before"`)
	p.Clean(false)
}

func TestPageTellsReadersWhoScrolledAway(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	for i := range 20 {
		s.create(token, fmt.Sprint("Row ", i), "a", "")
	}
	p := openFeed(t, s.URL)
	p.Wait(`document.querySelectorAll("#feed > li").length === 20`)
	eval[bool](p, `(scrollTo(0, 900), true)`)
	p.Wait(`scrollY > 800`)
	s.create(token, "News 1", "a", "")
	p.Wait(`document.querySelector("#fresh").textContent === "↑ 1 new"`)
	s.create(token, "News 2", "a", "")
	p.Wait(`document.querySelector("#fresh").textContent === "↑ 2 new"`)
	p.Click("#fresh")
	p.Wait(`scrollY === 0 && !document.querySelector("#fresh").checkVisibility()`)
	p.Clean(true)
}

// TestPageIsAccessible runs axe on each state of the page, in both schemes, wide and narrow.
func TestPageIsAccessible(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("%v: run npm ci", err)
	}
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	check := func(state string) {
		t.Helper()
		eval[any](p, string(axe)+";0")
		for _, scheme := range []string{"light", "dark"} {
			p.Media("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			for _, width := range []int64{1280, 320} {
				p.Size(width, 860)
				found := eval[[]string](p, `axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then(({ violations }) =>
					violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join("; ")))`)
				for _, violation := range found {
					t.Errorf("%s, %s, %d px: %s", state, scheme, width, violation)
				}
				if eval[bool](p, `document.documentElement.scrollWidth > innerWidth`) {
					t.Errorf("%s, %s, %d px: the page scrolls sideways", state, scheme, width)
				}
				p.Screenshot(fmt.Sprintf("feed-%s-%s-%d", state, scheme, width))
			}
		}
	}
	p.Wait(`document.querySelector("#empty").checkVisibility()`)
	check("empty")

	s.Send(payload("c1", "A title", `,"meta":{"provider":"openai","model":"gpt-4o"}`))
	s.Send(fmt.Appendf(nil, `{"type":"task.ai_generated","event":"an_event_with_a_long_name","channel_id":"c2","ai_response":{"data":{
		"title":"AWordThatIsTooLongForAnyPhoneAndHasNoPlaceToBreakAtAllAnywhere","body":%q,"list":[1,2,{"x":null}]}},
		"customer_data":{"category":"a_category_with_a_rather_long_name"}}`, strings.Repeat("https://example.com/"+strings.Repeat("x", 80)+" ", 12)))
	p.Wait(`document.querySelectorAll("#feed > li").length === 2`)
	p.Click("#feed .data summary")
	p.Wait(`document.querySelector("#feed .data ul")`)
	check("list")

	p.Click("#sign")
	check("dialog")
	p.Type("[name=password]", "\x1b")
	p.Wait(`!document.querySelector("#dialog").open`)

	p.Open(s.URL + "/?channel=none")
	p.Wait(live + ` && document.querySelector("#empty").checkVisibility()`)
	check("waiting")

	// The keyboard reaches everything, and it shows where it is.
	p.Open(s.URL)
	p.Wait(live + ` && document.querySelectorAll("#feed > li").length === 2`)
	reached := map[string]bool{}
	for range 20 {
		run(p, chromedp.KeyEvent("\t"))
		name := eval[string](p, `((e) => e === document.body ? "" : (e.ariaLabel || e.textContent).trim())(document.activeElement)`)
		reached[name] = true
		if name != "" && !eval[bool](p, `getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
			t.Errorf("%q has the focus without showing it", name)
		}
	}
	for _, want := range []string{"PocketRiver", "Sign in", "Search titles and texts", "Category", "Event", "Show all", "Copy text", "Data"} {
		if !reached[want] {
			t.Errorf("the keyboard does not reach %q: %v", want, reached)
		}
	}
	p.Clean(true)
}

func TestPageIsServedWithAContentPolicy(t *testing.T) {
	const policy = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	t.Parallel()
	s := startServer(t, "")
	for path, page := range map[string]bool{
		"/": true, "/feed.js": true, "/live-query.js": true, "/style.css": true, "/vendor/pocketbase.es.mjs": true,
		"/any/path": true, "/_/": false, "/api/health": false,
	} {
		response, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		got := response.Header.Get("Content-Security-Policy")
		if response.StatusCode != 200 || (got == policy) != page {
			t.Errorf("%s: got %s with policy %q, want the page's: %t", path, response.Status, got, page)
		}
	}

	// It is obeyed because it is enforced: what it forbids does not run.
	p := openFeed(t, s.URL)
	eval[bool](p, `new Promise((resolve) => {
		document.addEventListener("securitypolicyviolation", () => resolve(true), { once: true });
		document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
	})`)
	if eval[bool](p, "!!window.ran") {
		t.Error("an inline script ran")
	}
}

// TestPageLatency measures, and only fails if a row never shows.
func TestPageLatency(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	eval[bool](p, `(window.painted = {}, new MutationObserver(() => {
		const title = document.querySelector("#feed h2")?.textContent;
		requestAnimationFrame(() => setTimeout(() => (painted[title] ??= Date.now())));
	}).observe(document.querySelector("#feed"), { childList: true }), true)`)
	var took []time.Duration
	for i := range 50 {
		title := fmt.Sprint("Latency ", i)
		sent := time.Now()
		s.Send(payload(fmt.Sprint("l", i), title, ""))
		p.Wait(fmt.Sprintf("painted[%q]", title))
		took = append(took, time.UnixMilli(eval[int64](p, fmt.Sprintf("painted[%q]", title))).Sub(sent))
	}
	slices.Sort(took)
	t.Logf("webhook to painted row: median %s, p95 %s", took[len(took)/2].Round(time.Millisecond), took[len(took)*95/100].Round(time.Millisecond))
}

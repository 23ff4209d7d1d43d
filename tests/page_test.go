package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// pageIsLive is true when the page says that it is.
const pageIsLive = `document.querySelector("#state").dataset.status === "live"`

// pageTitles is what the page lists.
const pageTitles = `[...document.querySelectorAll("#feed h2")].map(h => h.textContent)`

// openFeed opens the page and waits until it is live.
func openFeed(t testing.TB, url string) *tab {
	t.Helper()
	p := openTab(t, url)
	p.Wait(pageIsLive)
	return p
}

func TestPageShowsContentAsItArrives(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)

	checkFirstVisit(p, s.URL)
	p.Size(1280, 860)
	p.Screenshot("feed-empty")
	p.Size(780, 860) // one column, where items are read in their place

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
	checkRow(p, evil)

	checkFolding(p, len(long))

	// Data is a tree, exact to the last digit.
	p.Click("#feed .data summary")
	p.Wait(`document.querySelector("#feed .data ul")?.innerText.includes("9007199254740993")`)
	p.Wait(`document.querySelector("#feed .data").innerText.includes("tags")`)

	// An update keeps what the reader has opened.
	token := s.Superuser()
	var list struct{ Items []struct{ ID string } }
	s.API(token, http.MethodGet, "/api/collections/aiContent/records", nil, &list)
	s.update(token, list.Items[0].ID, map[string]any{"title": "A calmer title"})
	p.Wait(pageTitles + `[0] === "A calmer title"`)
	if n := shownBody(p); n != len(long) {
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

// checkFirstVisit looks that a page with nothing on it says what to do.
func checkFirstVisit(p *tab, url string) {
	p.t.Helper()
	p.Wait(`document.querySelector("#empty").checkVisibility()`)
	empty := eval[string](p, `document.querySelector("#empty").innerText`)
	for _, want := range []string{"./pocketriver modelriver send --url " + url + "/webhooks/modelriver", "MODELRIVER_WEBHOOK_SECRET"} {
		if !strings.Contains(empty, want) {
			p.t.Errorf("the empty page lacks %q: %s", want, empty)
		}
	}
}

// checkRow looks at the first row, which has just arrived.
func checkRow(p *tab, title string) {
	p.t.Helper()
	if got := eval[string](p, `document.querySelector("#feed h2").textContent`); got != title {
		p.t.Errorf("title: got %q, want the text as it is", got)
	}
	if eval[bool](p, `document.querySelector("#empty").checkVisibility()`) {
		p.t.Error("the page still says that nothing has arrived")
	}
	about := eval[string](p, `document.querySelector("#feed .about").innerText`)
	for _, want := range []string{"stories", "new_content", "openai / gpt-4o", "just now"} {
		if !strings.Contains(about, want) {
			p.t.Errorf("the line under the title lacks %q: %s", want, about)
		}
	}
	// The time stands there once; on hover it is exact.
	year := fmt.Sprint(time.Now().Year())
	if exact := eval[string](p, `document.querySelector("#feed time").title`); !strings.Contains(exact, year) || strings.Contains(about, year) {
		p.t.Errorf("time: got %q on hover, and in the line %q", exact, about)
	}
}

// shownBody returns how many characters of the first row's body are shown.
func shownBody(p *tab) int {
	p.t.Helper()
	return eval[int](p, `document.querySelector("#feed .body").textContent.length`)
}

// checkFolding looks that a long body folds, and unfolds by keyboard.
func checkFolding(p *tab, whole int) {
	p.t.Helper()
	if n := shownBody(p); n > 700 {
		p.t.Errorf("characters of a folded body: got %d, want at most 700", n)
	}
	eval[bool](p, `(document.querySelector("[aria-expanded]").focus(), true)`)
	p.Type("[aria-expanded]", "\r")
	p.Wait(`document.querySelector("[aria-expanded]").ariaExpanded === "true"`)
	if n := shownBody(p); n != whole {
		p.t.Errorf("characters of an unfolded body: got %d, want %d", n, whole)
	}
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
	p.Wait(pageIsLive + ` && document.querySelector("#category").value === 'even "q"' && [...document.querySelectorAll("#feed .category")].every(c => c.textContent === 'even "q"')`)

	// What enters and leaves the filter does so here.
	s.create(token, "An even one", `even "q"`, "")
	p.Wait(pageTitles + `[0] === "An even one"`)
	s.create(token, "An odd one", "odd 100%", "")
	id := s.create(token, "Moves", `even "q"`, "")
	p.Wait(pageTitles + `[0] === "Moves"`)
	s.update(token, id, map[string]any{"category": "odd 100%"})
	p.Wait(pageTitles + `[0] === "An even one"`)
	if got := eval[string](p, `document.querySelector("#news").textContent`); got != "New: Moves" {
		t.Errorf("told of new rows: got %q, want nothing of the older row that took the place", got)
	}

	// Search, together with it; then to everything again.
	p.Type("#q", "row 43")
	p.Wait(`document.querySelector("#empty").innerText.includes("Nothing matches")`)
	p.Click("#empty button")
	p.Wait(`document.querySelector("#q").value === "" && ` + pageTitles + `[0] === "Moves"`)
	p.Type("#q", "row ") // someone who stops to think before the number
	p.Wait(`new URLSearchParams(location.search).get("q") === "row"`)
	p.Type("#q", "44")
	p.Wait(pageTitles + `.join() === "Row 44"`)
	p.Clean(true)
}

func TestPageShowsOneRequestTheMomentItLands(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("other", "Another request", ""))
	p := openFeed(t, s.URL+"/?channel=my%22channel")
	p.Wait(`document.querySelector("#empty").innerText.includes("Waiting for the result")`)
	s.Send(payload(`my"channel`, "My result", ""))
	p.Wait(pageTitles + `.join() === "My result"`)
	p.Clean(true)
}

func TestPageIsHonestAboutItsConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("c1", "Before", ""))
	p := openFeed(t, s.URL)
	s.Kill()
	p.Wait(`document.querySelector("#state").textContent === "Offline" && document.querySelector("#notice").innerText.includes("You see what was there then")`)
	if got := eval[string](p, pageTitles+`.join()`); got != "Before" {
		t.Errorf("rows while offline: got %q, want them to stay", got)
	}
	p.Screenshot("feed-offline")
	s.Start()
	s.Send(payload("c2", "After", ""))
	p.Wait(pageIsLive + ` && !document.querySelector("#notice").checkVisibility() && ` + pageTitles + `.join() === "After,Before"`)
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

package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// openFront opens url in another tab of the same window, which hides the others.
func (p *tab) openFront(url string) *tab {
	p.t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithNewWindow(false))
	p.t.Cleanup(cancel)
	return newTab(p.t, ctx, url)
}

// Show brings the tab to the front of its window.
func (p *tab) Show() {
	p.t.Helper()
	call(p, page.BringToFront, cdp.Empty{})
	p.Wait("!document.hidden")
}

// TestHiddenTabsLeaveTheConnectionsToOthers opens more tabs than a browser has connections
// to a host over HTTP/1.1.
func TestHiddenTabsLeaveTheConnectionsToOthers(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("c0", "Before", ""))
	first := openFeed(t, s.URL)
	var hidden []*tab
	for range 6 {
		p := first.openFront(s.URL)
		p.Wait(live)
		hidden = append(hidden, p)
	}
	// In a window of its own, it is seen all the time.
	seen := first.Another(s.URL)
	seen.Wait(live)
	streams := seen.Requests("GET /api/realtime")
	last := hidden[len(hidden)-1]
	hidden = append(hidden[:len(hidden)-1], first)
	for _, p := range hidden {
		p.Wait(`document.hidden && document.querySelector("#state").dataset.status === "connecting"`)
	}

	// They ask nothing while they are hidden.
	asked := func() (n int) {
		for _, p := range hidden {
			n += p.Requests("/api/")
		}
		return n
	}
	before := asked()
	s.Send(payload("c1", "Meanwhile", ""))
	last.Wait(titles + `.join() === "Meanwhile,Before"`)
	seen.Wait(titles + `.join() === "Meanwhile,Before"`)
	if n := asked() - before; n != 0 {
		t.Errorf("requests of hidden tabs: got %d, want 0", n)
	}
	for _, p := range hidden {
		p.Show()
		p.Wait(live + ` && ` + titles + `.join() === "Meanwhile,Before"`)
		p.Clean(true)
	}
	if n := seen.Requests("GET /api/realtime") - streams; n != 0 {
		t.Errorf("streams that the tab that was seen opened again: got %d, want 0", n)
	}
	last.Clean(true)
	seen.Clean(true)
}

// TestTabsOpenedBehind has tabs that nobody has seen yet: they show the list when they
// are looked at, and have no stream before.
func TestTabsOpenedBehind(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "Secret of ann", "a", ann)
	p := openFeed(t, s.URL)
	behind := p.openFront("about:blank")
	p.Show()
	behind.Wait("document.hidden")
	behind.Open(s.URL)
	behind.Wait(titles + `.join() === "Public"`)

	// Who signs in, and out, in one tab does so in all.
	eval[bool](p, fmt.Sprintf(`import("./vendor/pocketbase.es.mjs").then(({ default: PocketBase }) =>
		new PocketBase(location.origin).collection("users").authWithPassword("ann@example.com", %q)).then(() => true)`, testPassword))
	behind.Wait(titles + `.join() === "Secret of ann,Public"`)
	eval[bool](p, `(localStorage.removeItem("pocketbase_auth"), true)`)
	behind.Wait(titles + `.join() === "Public"`)
	if n := behind.Requests("/api/realtime"); n != 0 {
		t.Errorf("realtime requests of a tab that nobody has seen: got %d, want 0", n)
	}
	behind.Show()
	behind.Wait(live + ` && ` + titles + `.join() === "Public"`)
	behind.Clean(true)

	// A page that waits goes on to say so, hidden or not.
	behind.Open(s.URL + "/?channel=none")
	const waits = `document.querySelector("#empty").checkVisibility()`
	behind.Wait(live + ` && ` + waits)
	p.Show()
	behind.Wait(`document.hidden && document.querySelector("#state").dataset.status === "connecting"`)
	if !eval[bool](behind, waits) {
		t.Error("the page does not say any more what it waits for")
	}
}

func TestPageMarksOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	for i := range 5 {
		s.create(token, fmt.Sprint("Public ", i), "a", "")
		s.create(token, fmt.Sprint("For ann ", i), "of ann", ann)
	}
	p := openFeed(t, s.URL)
	eval[bool](p, `(window.told = [], window.glowed = [], new MutationObserver(() => {
		told.push(document.querySelector("#news").textContent);
	}).observe(document.querySelector("#news"), { childList: true }), new MutationObserver((all) => {
		for (const { addedNodes } of all) for (const node of addedNodes) if (node.matches(".new")) glowed.push(node.querySelector("h2").textContent);
	}).observe(document.querySelector("#feed"), { childList: true }), true)`)
	signIn := func() {
		p.Click("#sign")
		p.Type(`[name=identity]`, "ann@example.com")
		p.Type(`[name=password]`, testPassword+"\r")
		p.Wait(live + ` && document.querySelectorAll("#feed > li").length === 10`)
	}
	quiet := func(after string) {
		t.Helper()
		if got := eval[string](p, `[...glowed, ...told.filter(Boolean)].join()`); got != "" {
			t.Errorf("new after %s: got %s, want nothing", after, got)
		}
	}
	signIn()
	quiet("sign-in")
	p.Click("#sign")
	p.Wait(live + ` && document.querySelectorAll("#feed > li").length === 5`)
	quiet("sign-out")

	// A session that ends by itself leaves nothing of its user either.
	var users struct{ AuthToken map[string]any }
	s.API(token, http.MethodGet, "/api/collections/users", nil, &users)
	users.AuthToken["duration"] = 10
	s.API(token, http.MethodPatch, "/api/collections/users", map[string]any{"authToken": users.AuthToken}, nil)
	signIn()
	p.Wait(live + ` && document.querySelectorAll("#feed > li").length === 5 && document.querySelector("#sign").textContent === "Sign in"`)
	quiet("the end of a session")
	p.Wait(`![...document.querySelector("#category").options].some((option) => option.value === "of ann")`)
	if html := eval[string](p, `document.body.innerHTML`); strings.Contains(html, "of ann") || strings.Contains(html, "For ann") || strings.Contains(html, "ann@") {
		t.Errorf("something of ann's is left in the page: %s", html)
	}

	// What comes then is new; and what came while there was no connection.
	s.create(token, "News", "a", "")
	p.Wait(`glowed.join() === "News" && told.at(-1) === "New: News"`)
	s.Kill()
	p.Wait(`document.querySelector("#state").dataset.status === "offline"`)
	s.Start()
	s.create(token, "More news", "a", "")
	p.Wait(`glowed.join() === "News,More news" && told.at(-1) === "New: More news"`)
	p.Clean(false)
}

package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestPageShowsOwnContentToItsOwnerAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "For ann", "category of ann's", ann)

	p := openFeed(t, s.URL)
	p.Wait(pageTitles + `.join() === "Public"`)
	p.Click("#sign")
	p.Type(`[name=identity]`, "ann@example.com")
	p.Type(`[name=password]`, "wrong password\r")
	p.Wait(`document.querySelector("#refusal").textContent !== ""`)
	p.Screenshot("feed-sign-in")
	eval[bool](p, `(document.querySelector("[name=password]").value = "", true)`)
	p.Type(`[name=password]`, testPassword+"\r")
	p.Wait(pageTitles + `.join() === "For ann,Public"`)
	p.Wait(`document.querySelector("#feed .own").textContent === "Only for you" && document.querySelector("#who").textContent === "ann@example.com"`)
	p.Click("#mine")
	p.Wait(pageTitles + `.join() === "For ann"`)

	// A second tab is signed in too, and both are signed out at once.
	q := p.Another(s.URL)
	q.Wait(pageTitles + `.join() === "For ann,Public"`)
	p.Click("#sign")
	p.Wait(pageTitles + `.join() === "Public"`)
	q.Wait(pageTitles + `.join() === "Public"`)
	for _, each := range []*tab{p, q} {
		if html := eval[string](each, `document.body.innerHTML`); strings.Contains(html, "For ann") || strings.Contains(html, "ann's") || strings.Contains(html, "ann@") {
			t.Errorf("something of ann's is left in the page: %s", html)
		}
	}
	s.create(token, "Again for ann", "a", ann)
	s.create(token, "Again public", "a", "")
	p.Wait(pageTitles + `.join() === "Again public,Public"`)
	q.Wait(pageTitles + `.join() === "Again public,Public"`)
	q.Clean(true)

	// The refused password is the only failed request.
	p.mu.Lock()
	p.network = slices.DeleteFunc(p.network, func(problem string) bool { return strings.Contains(problem, "auth-with-password") })
	p.mu.Unlock()
	p.Clean(true)
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
		p.Wait(pageIsLive + ` && document.querySelectorAll("#feed > li").length === 10`)
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
	p.Wait(pageIsLive + ` && document.querySelectorAll("#feed > li").length === 5`)
	quiet("sign-out")

	// A session that ends by itself leaves nothing of its user either.
	s.shortenSessions(token)
	signIn()
	p.Wait(pageIsLive + ` && document.querySelectorAll("#feed > li").length === 5 && document.querySelector("#sign").textContent === "Sign in"`)
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

// What the server says late of a session signs nobody in again who has signed out meanwhile.
func TestPageStaysSignedOut(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	s.create(token, "For ann", "a", s.user(token, "ann@example.com"))
	p := openFeed(t, s.URL)
	p.PageSignIn("ann@example.com")
	p.Wait(pageTitles + `.join() === "For ann"`)
	eval[bool](p, `(window.held = null, window.fetch = ((fetch) => async (url, options) => {
		if (String(url).includes("auth-refresh")) await new Promise((go) => (held = go));
		return fetch(url, options);
	})(fetch), import("/account.js").then(({ confirmSession }) => confirmSession() ?? true))`)
	p.Wait("held")
	p.Click("#sign")
	p.Wait(pageTitles + `.join() === ""`)
	eval[bool](p, "held() ?? true")
	s.create(token, "For all", "a", "")
	p.Wait(`document.querySelector("#feed h2")`)
	p.Wait(pageTitles + `.join() === "For all"`)
	if sign := eval[string](p, `document.querySelector("#sign").textContent`); sign != "Sign in" {
		t.Errorf("who has signed out is signed in again: the button says %s", sign)
	}
}

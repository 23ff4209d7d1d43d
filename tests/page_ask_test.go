package tests

import (
	"net/http"
	"testing"
)

const (
	askedTitles  = `[...document.querySelectorAll("#asked h2")].map((h) => h.textContent)`
	askedReasons = `[...document.querySelectorAll("#asked .reason")].map((p) => p.textContent)`
)

func (p *tab) ask(question string) {
	p.t.Helper()
	p.Type("#question", question)
	p.Click("#ask .main")
}

// Who may ask does so in the page: the question waits above the feed, and becomes its answer.
func TestPageAsks(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t, "--delay", "3s")
	token := s.Superuser()
	s.user(token, "ann@example.com")
	s.user(token, "bob@example.com")

	p := openFeed(t, s.URL)
	if !eval[bool](p, `document.querySelector("#ask").hidden`) {
		t.Error("a guest is offered to ask")
	}
	p.PageSignIn("ann@example.com")
	p.Wait(`!document.querySelector("#ask").hidden`)
	p.ask("Why do rivers bend?")
	p.Wait(askedTitles + `.join() === "Why do rivers bend?"`)
	p.Wait(`document.querySelector("#question").value === "" && document.querySelector("#asked .pending")`)
	p.Screenshot("ask-pending")

	// Nobody else sees question or answer.
	q := openFeed(t, s.URL)
	p.Wait(`!document.querySelector("#asked li") && document.querySelector("#feed h2")?.textContent.includes("rivers bend")`)
	p.Wait(`document.querySelector("#feed .own").textContent === "Only for you"`)
	p.Screenshot("ask-answered")
	q.PageSignIn("bob@example.com")
	q.Wait(`!document.querySelector("#ask").hidden`)
	s.create(token, "For all", "a", "")
	q.Wait(pageTitles + `.join() === "For all"`)
	q.Clean(true)

	// Signed out, nothing of it stays.
	p.ask("And the sea?")
	p.Wait(askedTitles + `.join() === "And the sea?"`)
	p.Click("#sign")
	p.Wait(`document.querySelector("#ask").hidden && ` + pageTitles + `.join() === "For all"`)
	if got := eval[string](p, askedTitles+".join()"); got != "" {
		t.Errorf("signed out, the page still shows %q", got)
	}
	p.Clean(true)
}

// A request that fails says why, and can be asked again or dismissed.
func TestPageAsksAgain(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t, "--delay", "100ms", "--fail", "error:first=2")
	token := s.Superuser()
	s.user(token, "ann@example.com")
	p := openFeed(t, s.URL)
	p.PageSignIn("ann@example.com")
	p.Wait(`!document.querySelector("#ask").hidden`)
	p.ask("One")
	p.Wait(askedReasons + `.length === 1`)
	p.ask("Two")
	p.Wait(askedReasons + `.length === 2`)
	p.Screenshot("ask-failed")
	p.Click("#asked li:last-child .tools button:nth-child(2)") // Dismiss "One"
	p.Wait(askedTitles + `.join() === "Two"`)
	p.Click("#asked .tools button") // Ask again
	p.Wait(`!document.querySelector("#asked li") && document.querySelector("#feed h2")?.textContent.includes("Two")`)
	p.Clean(true)

	// Where the rule says no, so does the page.
	s.API(token, http.MethodPatch, "/api/collections/aiRequests", map[string]any{"createRule": `@request.auth.name = "Nobody"`}, nil)
	p.ask("Three")
	p.Wait(`document.querySelector("#ask-refusal").textContent !== ""`)
	if got := eval[string](p, `document.querySelector("#ask-refusal").textContent`); got != "You may not ask this here." {
		t.Errorf("refused, the page says %q", got)
	}
	if got := eval[string](p, `document.querySelector("#question").value`); got != "Three" {
		t.Errorf("refused, the question is %q", got)
	}
	s.API(token, http.MethodPatch, "/api/collections/aiRequests", map[string]any{"createRule": nil}, nil)
	p.Open(s.URL)
	p.Wait(pageIsLive)
	if !eval[bool](p, `document.querySelector("#ask").hidden`) {
		t.Error("asking is offered where it is closed")
	}
}

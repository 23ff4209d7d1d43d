package tests

import (
	"fmt"
	"testing"
)

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
		p.Wait(pageIsLive)
		hidden = append(hidden, p)
	}
	// In a window of its own, it is seen all the time.
	seen := first.Another(s.URL)
	seen.Wait(pageIsLive)
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
	last.Wait(pageTitles + `.join() === "Meanwhile,Before"`)
	seen.Wait(pageTitles + `.join() === "Meanwhile,Before"`)
	if n := asked() - before; n != 0 {
		t.Errorf("requests of hidden tabs: got %d, want 0", n)
	}
	for _, p := range hidden {
		p.Show()
		p.Wait(pageIsLive + ` && ` + pageTitles + `.join() === "Meanwhile,Before"`)
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
	behind.Wait(pageTitles + `.join() === "Public"`)

	// Who signs in, and out, in one tab does so in all.
	eval[bool](p, fmt.Sprintf(`import("./vendor/pocketbase.es.mjs").then(({ default: PocketBase }) =>
		new PocketBase(location.origin).collection("users").authWithPassword("ann@example.com", %q)).then(() => true)`, testPassword))
	behind.Wait(pageTitles + `.join() === "Secret of ann,Public"`)
	eval[bool](p, `(localStorage.removeItem("pocketbase_auth"), true)`)
	behind.Wait(pageTitles + `.join() === "Public"`)
	if n := behind.Requests("/api/realtime"); n != 0 {
		t.Errorf("realtime requests of a tab that nobody has seen: got %d, want 0", n)
	}
	behind.Show()
	behind.Wait(pageIsLive + ` && ` + pageTitles + `.join() === "Public"`)
	behind.Clean(true)

	// A page that waits goes on to say so, hidden or not.
	behind.Open(s.URL + "/?channel=none")
	const waits = `document.querySelector("#empty").checkVisibility()`
	behind.Wait(pageIsLive + ` && ` + waits)
	p.Show()
	behind.Wait(`document.hidden && document.querySelector("#state").dataset.status === "connecting"`)
	if !eval[bool](behind, waits) {
		t.Error("the page does not say any more what it waits for")
	}
}

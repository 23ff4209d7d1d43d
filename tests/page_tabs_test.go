package tests

import (
	"fmt"
	"testing"
)

// ways are those in which the tabs of a browser get their events.
var ways = map[string]way{
	"with one stream":   {open: (*tab).Open, hiddenStatus: "live"},
	"each with its own": {open: (*tab).openAlone, hiddenStatus: "connecting", alone: true},
}

type way struct {
	open         func(p *tab, url string)
	hiddenStatus string // of a tab that has been hidden for some time
	alone        bool
}

func (p *tab) openAlone(url string) {
	p.t.Helper()
	p.WithoutLocks()
	p.Open(url)
}

func (w way) isHidden(p *tab) {
	p.t.Helper()
	p.Wait(`document.hidden && document.querySelector("#state").dataset.status === "` + w.hiddenStatus + `"`)
}

// TestHiddenTabsLeaveTheConnectionsToOthers opens more tabs than a browser has connections
// to a host over HTTP/1.1.
func TestHiddenTabsLeaveTheConnectionsToOthers(t *testing.T) {
	t.Parallel()
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hiddenTabs(t, w)
		})
	}
}

func hiddenTabs(t *testing.T, w way) {
	s := startServer(t, "")
	s.Send(payload("c0", "Before", ""))
	first := openTab(t, "about:blank")
	w.open(first, s.URL)
	first.Wait(pageIsLive)
	var hidden []*tab
	for range 6 {
		p := first.openFront("about:blank")
		w.open(p, s.URL)
		p.Wait(pageIsLive)
		hidden = append(hidden, p)
	}
	// In a window of its own, it is seen all the time.
	seen := first.Another("about:blank")
	w.open(seen, s.URL)
	seen.Wait(pageIsLive)
	streams := seen.Requests("GET /api/realtime")
	last := hidden[len(hidden)-1]
	hidden = append(hidden[:len(hidden)-1], first)
	for _, p := range hidden {
		w.isHidden(p)
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
	if !w.alone { // but they are told
		for _, p := range hidden {
			p.Wait(pageTitles + `.join() === "Meanwhile,Before"`)
		}
	}
	if n := asked() - before; n != 0 {
		t.Errorf("requests of hidden tabs: got %d, want 0", n)
	}
	for _, p := range hidden {
		p.Show()
		p.Wait(pageIsLive + ` && ` + pageTitles + `.join() === "Meanwhile,Before"`)
		p.Clean(true)
	}
	// It may have got the others' stream.
	if n := seen.Requests("GET /api/realtime") - streams; n > 1 || n > 0 && w.alone {
		t.Errorf("streams that the tab that was seen opened again: got %d", n)
	}
	last.Clean(true)
	seen.Clean(true)
}

// TestTabsOpenedBehind has tabs that nobody has seen yet: they show the list when they
// are looked at, and have no stream before.
func TestTabsOpenedBehind(t *testing.T) {
	t.Parallel()
	for name, w := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tabsBehind(t, w)
		})
	}
}

func tabsBehind(t *testing.T, w way) {
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	s.create(token, "Public", "a", "")
	s.create(token, "Secret of ann", "a", ann)
	p := openTab(t, "about:blank")
	w.open(p, s.URL)
	p.Wait(pageIsLive)
	behind := p.openFront("about:blank")
	p.Show()
	behind.Wait("document.hidden")
	w.open(behind, s.URL)
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
	w.isHidden(behind)
	if !eval[bool](behind, waits) {
		t.Error("the page does not say any more what it waits for")
	}
}

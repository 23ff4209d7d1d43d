package tests

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/debugger"
	"github.com/chromedp/cdproto/page"
)

// harnessOf makes a harness of a tab, which it returns.
func harnessOf(p *tab, address string) *tab {
	p.t.Helper()
	p.Open(address + "/live-query.js")
	eval[bool](p, harness)
	return p
}

// harnessBeside opens a harness in a window of its own, in the browser of another.
func harnessBeside(p *tab, address string) *tab {
	p.t.Helper()
	return harnessOf(p.Another("about:blank"), address)
}

// harnessBefore opens a harness in the window of another, which it hides.
func harnessBefore(p *tab, address string) *tab {
	p.t.Helper()
	return harnessOf(p.openFront("about:blank"), address)
}

// Close closes the tab. One that vanishes does not get to say so, as in a crash.
func (p *tab) Close(vanish bool) {
	p.t.Helper()
	if vanish {
		eval[bool](p, `(postMessage = BroadcastChannel.prototype.postMessage = () => {}, true)`)
	}
	callDevTools(p, page.Close, cdp.Empty{})
}

// requestsOf counts those of all tabs.
func requestsOf(part string, tabs ...*tab) (n int) {
	for _, p := range tabs {
		n += p.Requests(part)
	}
	return n
}

// converge waits until the query "own" of each tab shows what the server lists.
func converge(tabs ...*tab) {
	for _, p := range tabs {
		p.t.Helper()
		p.Converges("own")
	}
}

// showsFirst waits until the query "own" of each tab has the title on top.
func showsFirst(title string, tabs ...*tab) {
	for _, p := range tabs {
		p.t.Helper()
		p.Wait(fmt.Sprintf(`queries.own.result.status === "live" && queries.own.result.items[0]?.title === %q`, title))
	}
}

const (
	aStream = "GET /api/realtime"
	aList   = "/records?page=" // the comparison's own have no page
)

// startTabs opens three tabs, each seen and with a query "own" of another filter. The first
// one has the stream.
func startTabs(t *testing.T, prepare func(*tab)) (s *server, token string, tabs []*tab) {
	t.Helper()
	s, token, first := startHarness(t)
	return s, token, tabsBeside(s, token, first, prepare)
}

// tabsBeside makes the harness the first of three tabs.
func tabsBeside(s *server, token string, first *tab, prepare func(*tab)) []*tab {
	first.t.Helper()
	s.create(token, "Row", "a", "")
	tabs := []*tab{first, harnessBeside(first, s.URL), harnessBeside(first, s.URL)}
	for i, filter := range []string{`category = "a"`, `title != "x"`, ``} {
		prepare(tabs[i])
		tabs[i].Live(fmt.Sprintf(`"own", {filter: %q, limit: 20}`, filter))
		converge(tabs[i])
	}
	return tabs
}

func TestTabsShareAStream(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*tab){"of this server": func(*tab) {}, "of stock PocketBase": (*tab).AsStock} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, token, tabs := startTabs(t, func(p *tab) {
				prepare(p)
				p.WithoutTicks()
			})
			id := s.create(token, "Created", "a", "")
			showsFirst("Created", tabs...)
			s.update(token, id, map[string]any{"category": "b", "title": "Updated"})
			converge(tabs...)
			s.delete(token, id)
			converge(tabs...)
			// A query that another tab has already, in an old tab and in a new one.
			tabs[2].Live(`"same", {filter: 'category = "a"', limit: 20}`)
			tabs = append(tabs, harnessBeside(tabs[0], s.URL))
			prepare(tabs[3])
			tabs[3].Live(`"own", {filter: 'category = "a"', limit: 20}`)
			converge(tabs...)
			s.create(token, "For both", "a", "")
			showsFirst("For both", tabs...)
			tabs[2].Converges("same")
			// A cut ends the stream for all.
			s.Restart()
			s.create(token, "After a restart", "a", "")
			showsFirst("After a restart", tabs...)
			converge(tabs...)
			if n := requestsOf(aStream, tabs[1:]...); n != 0 {
				t.Errorf("streams of the other tabs: got %d, want 0", n)
			}
		})
	}
}

// TestTabsForgetWhatNobodyWants has a tab vanish whose topics the others do not want.
func TestTabsForgetWhatNobodyWants(t *testing.T) {
	t.Parallel()
	_, _, tabs := startTabs(t, func(p *tab) {
		eval[bool](p, `(window.posted = [], window.fetch = ((fetch) => (url, options) => {
			if (options?.method === "POST") posted = JSON.parse(options.body).subscriptions;
			return fetch(url, options);
		})(fetch), true)`)
	})
	tabs[0].Wait(`posted.length === 3 && posted.some((topic) => topic.includes("title"))`)
	tabs[1].Close(true)
	tabs[0].Wait(`posted.length === 2 && !posted.some((topic) => topic.includes("title"))`)
}

// TestHiddenTabHandsItsStreamOver hides the tab that has the stream. It goes on being told.
func TestHiddenTabHandsItsStreamOver(t *testing.T) {
	t.Parallel()
	s, token, hidden := startHarness(t)
	front := hidden.openFront("about:blank")
	hidden.Show()
	tabs := tabsBeside(s, token, hidden, func(*tab) {})
	lists := requestsOf(aList, tabs...)
	front.Show()
	hidden.Wait("document.hidden")
	await(t, "a tab that is seen has a stream", func() bool { return requestsOf(aStream, tabs[1:]...) == 1 })
	for i := range 3 {
		s.create(token, fmt.Sprint("Hidden ", i), "a", "")
		showsFirst(fmt.Sprint("Hidden ", i), tabs...)
	}
	front.Close(false)
	hidden.Show()
	s.create(token, "Shown", "a", "")
	showsFirst("Shown", tabs...)
	if n := requestsOf(aList, tabs...) - lists; n != 0 {
		t.Errorf("lists after the first: got %d, want none", n)
	}
	if n := requestsOf(aStream, tabs...); n != 2 {
		t.Errorf("streams: got %d, want 2", n)
	}
	converge(tabs...)
}

// TestTabThatHangsIsRobbed stops the tab that has the stream, of which no event tells others.
func TestTabThatHangsIsRobbed(t *testing.T) {
	t.Parallel()
	s, token, tabs := startTabs(t, func(*tab) {})
	hangs := tabs[0]
	callDevTools(hangs, debugger.Enable, debugger.EnableParams{})
	eval[bool](hangs, `(setTimeout(() => { debugger; }), true)`)
	tabs = append(tabs, harnessBeside(tabs[1], s.URL))
	tabs[3].Live(`"own", {limit: 20}`)
	converge(tabs[1:]...)
	s.create(token, "Without it", "a", "")
	showsFirst("Without it", tabs[1:]...)
	callDevTools(hangs, debugger.Resume, debugger.ResumeParams{})
	converge(tabs...)
	s.create(token, "With it", "a", "")
	showsFirst("With it", tabs...)
	if n := requestsOf(aStream, tabs...); n != 2 {
		t.Errorf("streams: got %d, want 2", n)
	}
}

// TestTabsThatCannotShare have streams of their own.
func TestTabsThatCannotShare(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	first := openTab(t, "about:blank")
	tabs := []*tab{first, first.Another("about:blank")}
	for _, p := range tabs {
		p.WithoutLocks()
		harnessOf(p, s.URL)
		p.Live(`"own", {limit: 20}`)
		converge(p)
	}
	s.create(token, "Row", "a", "")
	showsFirst("Row", tabs...)
	for _, p := range tabs {
		if n := p.Requests(aStream); n != 1 {
			t.Errorf("streams: got %d, want 1", n)
		}
		p.Clean(true)
	}
}

// WithoutLocks has no page that is opened in the tab from now on share its stream.
func (p *tab) WithoutLocks() {
	p.t.Helper()
	callDevTools(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: "delete Navigator.prototype.locks"})
}

// TestTabsWithTooManyQueries have more topics together than a connection may have.
func TestTabsWithTooManyQueries(t *testing.T) {
	t.Parallel()
	s, token, first := startHarness(t)
	eval[bool](first, `((query) => {
		const many = JSON.stringify(Array.from({length: 999}, (_, i) => "none" + i + "/*"));
		LockManager.prototype.query = async function () {
			const all = await query.call(this);
			const wants = all.held.find(({ name }) => name.includes(" wants "));
			if (wants) all.held.unshift({ name: wants.name.replace(/ wants .*/, () => " wants " + many) });
			return all;
		};
		return true;
	})(LockManager.prototype.query)`)
	first.Live(`"own", {limit: 10}`)
	converge(first)
	other := harnessBeside(first, s.URL)
	other.Live(`"own", {filter: 'title != "x"'}`)
	converge(other)
	s.create(token, "For both", "a", "")
	showsFirst("For both", first, other)
	if n := other.Requests(aStream); n != 1 {
		t.Errorf("streams of the tab that does not fit: got %d, want 1", n)
	}
}

// TestTabsAtRandom opens, closes, hides and shows tabs, signs in and out, and cuts the
// network, all under changes.
func TestTabsAtRandom(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	c := startCuttable(t, s)
	seed := rand.Uint64()
	t.Log("seed ", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	filters := []string{``, `category = "a"`, `title != "x"`, `category = "b"`, `userId != ""`}
	start := func(p *tab) *tab {
		p.Live(fmt.Sprintf(`"own", {filter: %q, limit: %d}`, filters[random.IntN(len(filters))], 3+random.IntN(20)))
		return p
	}
	open := []func(p *tab) *tab{
		func(p *tab) *tab { return start(harnessBeside(p, c.URL)) },
		func(p *tab) *tab { return start(harnessBefore(p, c.URL)) },
	}
	root := openTab(t, "about:blank") // whose end would end the browser
	tabs := []*tab{start(harnessBeside(root, c.URL))}
	var ids []string
	for round := range 40 {
		for range 3 {
			owner := []string{"", ann}[random.IntN(2)]
			ids = append(ids, s.create(token, fmt.Sprint("Row ", len(ids)), []string{"a", "b"}[random.IntN(2)], owner))
			s.update(token, ids[random.IntN(len(ids))], map[string]any{"category": []string{"a", "b"}[random.IntN(2)]})
		}
		p, step := random.IntN(len(tabs)), random.IntN(7)
		switch {
		case step <= 1 && len(tabs) < 4:
			tabs = append(tabs, open[random.IntN(2)](tabs[p]))
		case step <= 2 && len(tabs) > 1:
			tabs[p].Close(random.IntN(2) == 0)
			tabs = append(tabs[:p], tabs[p+1:]...)
		case step == 3:
			c.Cut()
		case step == 4:
			tabs[p].SignIn("ann@example.com", testPassword)
		case step == 5:
			eval[bool](tabs[p], `(pb.authStore.clear(), true)`)
		default:
			tabs[p].Show()
		}
		if round%4 == 3 { // those that are seen
			for _, p := range tabs {
				if !eval[bool](p, "document.hidden") {
					converge(p)
				}
			}
		}
	}
	for _, p := range tabs {
		p.Show()
		converge(p)
	}
}

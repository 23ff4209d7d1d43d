package tests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPageIsAccessible runs axe on each state of the page, in both schemes, wide and narrow.
func TestPageIsAccessible(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	check := func(state string) { t.Helper(); checkPage(p, axe, state) }
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
	p.Click("#count")
	p.Wait(`document.querySelector("#total").textContent.startsWith("2 items at ")`)
	p.Click("#feed h2 a")
	p.Wait(`document.querySelector("#reading .body")`)
	check("item")

	p.Click("#sign")
	check("dialog")
	p.Type("[name=password]", "\x1b")
	p.Wait(`!document.querySelector("#dialog").open`)

	p.Open(s.URL + "/?item=none")
	p.Wait(`document.querySelector("#reading [data-sign]")`)
	check("missing")

	p.Open(s.URL + "/?channel=none")
	p.Wait(pageIsLive + ` && document.querySelector("#empty").checkVisibility()`)
	check("waiting")

	p.Open(s.URL)
	p.Wait(pageIsLive + ` && document.querySelectorAll("#feed > li").length === 2`)
	checkKeyboard(p)
	p.Clean(true)
}

// checkPage runs axe on what the tab shows, and looks that it fits.
func checkPage(p *tab, axe, state string) {
	p.t.Helper()
	eval[any](p, axe+";0")
	for _, scheme := range []string{"light", "dark"} {
		p.Media("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
		for _, width := range []int64{1280, 320} {
			p.Size(width, 860)
			found := eval[[]string](p, `axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then(({ violations }) =>
				violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join("; ")))`)
			for _, violation := range found {
				p.t.Errorf("%s, %s, %d px: %s", state, scheme, width, violation)
			}
			if eval[bool](p, `document.documentElement.scrollWidth > innerWidth`) {
				p.t.Errorf("%s, %s, %d px: the page scrolls sideways", state, scheme, width)
			}
			p.Screenshot(fmt.Sprintf("feed-%s-%s-%d", state, scheme, width))
		}
	}
}

// checkKeyboard looks that the keyboard reaches everything, and that it shows where it is.
func checkKeyboard(p *tab) {
	p.t.Helper()
	reached := map[string]bool{}
	for range 30 {
		runAction(p, chromedp.KeyEvent("\t"))
		name := eval[string](p, `((e) => e === document.body ? "" : (e.ariaLabel || (e.labels?.[0]?.firstChild ?? e).textContent).trim())(document.activeElement)`)
		reached[name] = true
		if name != "" && !eval[bool](p, `getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
			p.t.Errorf("%q has the focus without showing it", name)
		}
	}
	for _, want := range []string{"PocketRiver", "Sign in", "Search titles and texts", "Category", "Event", "Show all", "Copy text", "Data"} {
		if !reached[want] {
			p.t.Errorf("the keyboard does not reach %q: %v", want, reached)
		}
	}
}

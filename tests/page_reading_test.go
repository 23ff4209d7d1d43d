package tests

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// visibleItems is how many items are to be seen whole.
const visibleItems = `[...document.querySelectorAll("#feed > li")].map((li) => li.getBoundingClientRect()).filter((box) => box.top >= 0 && box.bottom <= innerHeight).length`

// On a wide screen there is a list, beside which one item is read.
func TestPageShowsManyItems(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.sendTexts()
	p := openFeed(t, s.URL)
	p.Wait(listIsWhole)
	for _, scheme := range []string{"dark", "light"} {
		p.Media("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
		for _, width := range []int64{375, 820, 1280, 1920} {
			p.Size(width, 800)
			p.Screenshot(fmt.Sprintf("feed-%s-%d", scheme, width))
		}
	}
	p.Size(1280, 800)
	if n := eval[int](p, visibleItems); n < 5 {
		t.Errorf("items to be seen at 1280 × 800: got %d, want 5 or more", n)
	}
	p.Screenshot("feed") // docs/feed.png
	eval[bool](p, `(document.querySelector("#ask").hidden = document.querySelector("#mine-label").hidden = false, document.querySelector("#guest").hidden = true)`)
	if n := eval[int](p, visibleItems); n < 5 {
		t.Errorf("items to be seen at 1280 × 800 below the box to ask in: got %d, want 5 or more", n)
	}
	p.expect(map[string]string{
		openTitle: pageTexts[0].title, // the newest
		`document.querySelectorAll("#feed .excerpt")[0].textContent.startsWith("It begins with a stone Water that has")`:                  "true",
		`document.querySelectorAll("#feed .excerpt")[3].textContent`:                                                                      "price: 39 € · colour: moss green · litres: 1.2",
		`document.querySelector("#reading table").checkVisibility()`:                                                                      "true", // all of it
		`document.querySelector("#reading").getBoundingClientRect().left > document.querySelector("#feed").getBoundingClientRect().right`: "true",
		`location.search`: "",
	})

	// Where there is no room, items are read in their place.
	p.Size(1000, 800)
	p.Wait(`document.querySelector("#feed .body") && !document.querySelector("#reading").checkVisibility()`)
	p.Size(1280, 800)
	p.Wait(`!document.querySelector("#feed .body") && ` + openTitle)
	p.Clean(true)
}

// The keyboard alone moves in the list, opens, reads and comes back; what arrives meanwhile
// takes nothing away.
func TestPageReadsByKeyboard(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.sendTexts()
	p := openTab(t, "about:blank")
	p.Size(1280, 800)
	p.Open(s.URL)
	p.Wait(pageIsLive + " && " + listIsWhole)
	for range 20 {
		if p.typeKey(kb.Tab); eval[bool](p, `document.activeElement.matches("#feed a")`) {
			break
		}
	}
	for _, step := range []struct {
		key  string
		want int
	}{{kb.ArrowUp, 0}, {kb.ArrowDown, 1}, {kb.ArrowDown, 2}, {kb.ArrowUp, 1}, {kb.End, len(pageTexts) - 1}, {kb.ArrowDown, len(pageTexts) - 1}, {kb.Home, 0}, {kb.ArrowDown, 1}} {
		p.typeKey(step.key)
		if got := eval[string](p, focused); got != pageTexts[step.want].title {
			t.Errorf("after %q: %q has the focus, want %q", step.key, got, pageTexts[step.want].title)
		}
	}
	p.expect(map[string]string{openTitle: pageTexts[0].title, `document.activeElement.getBoundingClientRect().top >= document.querySelector("header").offsetHeight`: "true"})
	p.typeKey(kb.Enter)
	p.Wait(openTitle + " === " + jsonText(pageTexts[1].title))
	p.expect(map[string]string{
		`document.activeElement.id`: "reading",
		`[...document.querySelectorAll("#feed [aria-current=true]")].map((link) => link.textContent)`: pageTexts[1].title,
		`new URLSearchParams(location.search).get("item").length`:                                     "15",
	})

	s.Send(payload("news", "News", ""))
	p.Wait(pageTitles + `[0] === "News"`)
	p.expect(map[string]string{openTitle: pageTexts[1].title, `document.activeElement.id`: "reading"})
	p.typeKey(kb.Escape)
	p.expect(map[string]string{focused: pageTexts[1].title})
	p.typeKey(kb.ArrowUp)
	p.typeKey(kb.ArrowUp)
	p.typeKey(kb.Enter)
	p.Wait(openTitle + ` === "News"`)

	// Back is what was open before; at first, that was the newest of then.
	for _, want := range []string{pageTexts[1].title, pageTexts[0].title} {
		eval[bool](p, `(history.back(), true)`)
		p.Wait(openTitle + " === " + jsonText(want))
	}
	p.expect(map[string]string{`location.search`: ""})
	eval[bool](p, `(history.forward(), true)`)
	p.Wait(openTitle + " === " + jsonText(pageTexts[1].title))

	// Another list begins with its newest.
	p.Type("#q", "council")
	p.Wait(pageTitles + `.length === 1 && ` + openTitle + " === " + jsonText(pageTexts[4].title))
	p.Clean(true)
}

// What is open stays so when newer items take its place in the list, and follows its record.
func TestPageKeepsWhatIsRead(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	p := openTab(t, "about:blank")
	p.Size(1280, 800)
	p.Open(s.URL)
	p.Wait(pageIsLive)
	id := s.create(token, "Read for long", "a", "")
	p.Wait(openTitle + ` === "Read for long"`) // nothing was there to read
	for i := range 22 {
		s.create(token, fmt.Sprint("News ", i), "a", "")
	}
	p.Wait(pageTitles + `[0] === "News 21" && !` + pageTitles + `.includes("Read for long")`)
	p.expect(map[string]string{openTitle: "Read for long"})
	s.update(token, id, map[string]any{"title": "Read for longer"})
	p.Wait(openTitle + ` === "Read for longer"`)
	s.delete(token, id)
	p.Wait(openTitle + ` === "News 21"`) // nobody has asked for the other one
	p.Clean(true)
}

// Each item has its time once: how long ago, and after a month the day.
func TestPageTimes(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	db := openDatabase(t, s.Dir)
	for _, days := range []int{40, 3} {
		id := s.create(token, "Old", "a", "")
		if _, err := db.NewQuery(fmt.Sprintf(`UPDATE aiContent SET created = strftime('%%Y-%%m-%%d %%H:%%M:%%fZ', 'now', '-%d days') WHERE id = '%s'`, days, id)).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	p := openFeed(t, s.URL)
	p.Wait(`document.querySelectorAll("#feed > li").length === 2`)
	p.expect(map[string]string{
		`[...document.querySelectorAll("#feed time")].map((time) => time.textContent).join("; ")`: "3 days ago; " + time.Now().AddDate(0, 0, -40).Format("Jan 2, 2006"),
	})
}

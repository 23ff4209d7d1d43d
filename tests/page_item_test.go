package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const (
	missingForGuests = "No public content has this address. If it was made for you, sign in. Otherwise it was deleted, or the address is wrong."
	missingForUsers  = "You have no content with this address. It was deleted, or the address is wrong, or it is for somebody else."
	openText         = `document.querySelector("#reading p:not(.about)")?.textContent`
)

// An item has an address that works later, from a phone or beside the list.
func TestPageItemHasAnAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	for i := range 30 {
		s.create(token, fmt.Sprint("Row ", i), "a", "")
	}
	p := openFeed(t, s.URL)
	p.Wait(`document.querySelectorAll("#feed > li").length === 20`)

	// In one column it takes the list's place, which is found again where it was.
	eval[bool](p, `(document.querySelectorAll("#feed > li")[9].scrollIntoView(), true)`)
	p.Wait(`scrollY > 500`)
	top := eval[float64](p, `scrollY`)
	p.Click("#feed > li:nth-child(10) h2 a")
	p.Wait(openTitle + ` === "Row 20" && scrollY === 0 && !document.querySelector("#list").checkVisibility()`)
	p.Screenshot("item-narrow")
	link := eval[string](p, `location.href`)
	for _, back := range []string{`history.back()`, `document.querySelector(".back").click()`} {
		eval[bool](p, `(`+back+`, true)`)
		p.Wait(fmt.Sprintf(`location.search === "" && document.querySelector("#list").checkVisibility() && Math.abs(scrollY - %f) < 2`, top))
		p.expect(map[string]string{focused: "Row 20", `document.querySelector("#reading").checkVisibility()`: "false"})
		eval[bool](p, `(document.querySelectorAll("#feed h2 a")[9].click(), true)`)
		p.Wait(openTitle + ` === "Row 20"`)
	}

	// It works in another browser, when the item is not in the list any more, and after a restart.
	for i := range 20 {
		s.create(token, fmt.Sprint("Newer row ", i), "a", "")
	}
	s.Restart()
	q := openTab(t, link)
	q.Wait(openTitle + ` === "Row 20" && !document.querySelector("#list").checkVisibility()`)
	q.Size(1280, 800)
	q.Wait(openTitle + ` === "Row 20" && ` + pageTitles + `[0] === "Newer row 19"`)
	q.Open(link)
	q.Wait(pageIsLive + ` && ` + openTitle + ` === "Row 20" && ` + pageTitles + `[0] === "Newer row 19"`)
	q.Screenshot("item-wide")

	// It is live, and says so when it is deleted.
	_, id, _ := strings.Cut(link, "?item=")
	s.update(token, id, map[string]any{"title": "Another title", "channelId": "my channel"})
	q.Wait(openTitle + ` === "Another title"`)
	q.expect(map[string]string{`document.querySelector("#reading .tools a").getAttribute("href")`: "?channel=my+channel"})
	s.delete(token, id)
	q.Wait(openText + ` === ` + jsonText(missingForGuests))
	q.Open(s.URL + "/?item=unknown%22")
	q.Wait(openText + ` === ` + jsonText(missingForGuests))
	q.Clean(true)
}

// The address of an item for one user says nothing to others, not even whether there is one.
func TestPageItemOfOneUser(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	s.user(token, "bob@example.com")
	id := s.create(token, "Secret of ann", "a", ann)
	s.create(token, "Public", "a", "")
	for _, width := range []int64{375, 1280} {
		p := openTab(t, "about:blank")
		p.Size(width, 800)
		said := func(address string) string {
			t.Helper()
			p.Open(s.URL + "/?item=" + address)
			p.Wait(pageIsLive + ` && ` + openText)
			return strings.ReplaceAll(eval[string](p, `document.querySelector("#reading").outerHTML`), address, "ID")
		}
		if unknown, private := said("unknown00000000"), said(id); unknown != private || !strings.Contains(private, missingForGuests) {
			t.Errorf("an item of another user: got %s, want what is said of one that is not: %s", private, unknown)
		}
		p.Screenshot(fmt.Sprintf("item-missing-%d", width))
		p.Click("#reading [data-sign]")
		p.signInTo("bob@example.com")
		p.Wait(openText + ` === ` + jsonText(missingForUsers))
		p.Click("#sign")
		p.Wait(openText + ` === ` + jsonText(missingForGuests))
		p.Click("#reading [data-sign]")
		p.signInTo("ann@example.com")
		p.Wait(openTitle + ` === "Secret of ann" && location.search === "?item=` + id + `"`)

		// Signed out, nothing of it stays.
		p.Click("#sign")
		p.Wait(openText + ` === ` + jsonText(missingForGuests))
		if html := eval[string](p, `document.documentElement.outerHTML`); strings.Contains(html, "of ann") {
			t.Errorf("something of ann's is left in the page: %s", html)
		}
		p.Clean(true)
	}

	// One that is made private is gone from who reads it.
	p := openTab(t, s.URL+"/?item="+s.create(token, "Soon private", "a", ""))
	p.Wait(openTitle + ` === "Soon private"`)
	s.update(token, eval[string](p, `new URLSearchParams(location.search).get("item")`), map[string]any{"userId": ann})
	p.Wait(openText + ` === ` + jsonText(missingForGuests))
}

// signInTo signs in by the dialog that is open.
func (p *tab) signInTo(email string) {
	p.t.Helper()
	p.Type(`[name=identity]`, email)
	p.Type(`[name=password]`, testPassword+"\r")
	p.Wait(`!document.querySelector("#dialog").open`)
}

// Who is not signed in learns that there may be more, and who is is not bothered.
func TestPageTellsGuestsOfSigningIn(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	s.user(token, "ann@example.com")
	p := openFeed(t, s.URL)
	const hint = `document.querySelector("#guest")`
	p.Wait(`document.querySelector("#empty").innerText.includes("Nothing public has arrived yet") && ` + hint + `.checkVisibility()`)
	s.create(token, "Public", "a", "")
	p.Wait(pageTitles + `.join() === "Public" && ` + hint + `.innerText === "Only public content. Sign in to see your own."`)
	p.Click("#guest button")
	p.signInTo("ann@example.com")
	p.Wait(`!` + hint + `.checkVisibility()`)
	s.API(token, http.MethodDelete, contentRecords+"/"+s.onlyRecord(token), nil, nil)
	p.Wait(`document.querySelector("#empty").innerText.includes("Nothing has arrived yet")`)
	p.Clean(true)
}

// The server counts when somebody asks, what they may see, and never by itself.
func TestPageCountsOnDemand(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	for i := range 30 {
		s.create(token, fmt.Sprint("Row ", i), []string{"odd", "even"}[i%2], "")
	}
	s.create(token, "For ann", "odd", ann)
	p := openFeed(t, s.URL)
	p.Wait(`document.querySelectorAll("#feed > li").length === 20`)
	count := func(want string) {
		t.Helper()
		p.Click("#count")
		p.Wait(`document.querySelector("#total").textContent.startsWith("` + want + ` at ")`)
	}
	counts := func() int {
		return p.Requests("GET "+contentRecords) - p.Requests("skipTotal=true")
	}
	if n := counts(); n != 0 {
		t.Errorf("counts that nobody has asked for: got %d, want 0", n)
	}
	count("30 items")
	s.create(token, "One more", "a", "")
	p.Wait(pageTitles + `[0] === "One more"`)
	count("31 items")
	eval[bool](p, `(document.querySelector("#category").value = "even", document.querySelector("#category").dispatchEvent(new Event("change")), true)`)
	p.Wait(`document.querySelector("#total").textContent === ""`)
	count("15 items")
	p.Type("#q", "Row 11")
	p.Wait(pageTitles + `.join() === "Row 11"`)
	count("1 item")
	if n := counts(); n != 4 {
		t.Errorf("counts after four clicks: got %d, want 4", n)
	}
	p.Open(s.URL)
	p.Wait(pageIsLive)
	p.PageSignIn("ann@example.com")
	count("32 items")
	p.Click("#sign")
	p.Wait(`document.querySelector("#total").textContent === "" && ` + pageTitles + `[0] === "One more"`)
	count("31 items")
	p.Clean(true)
}

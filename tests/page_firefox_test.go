package tests

import "testing"

// The page is not one of Chromium alone.
func TestPageInFirefox(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	f := openFirefox(t, s.URL)
	f.Wait(pageIsLive)
	s.Send(answer("c1", map[string]any{"title": "Rivers", "body": "A river **bends**."}))
	f.Wait(pageTitles + `.join() === "Rivers"`)
	f.Wait(`document.querySelector("#reading strong, #feed strong").textContent === "bends"`)

	token := s.Superuser()
	id := s.onlyRecord(token)
	s.update(token, id, map[string]any{"title": "Streams"})
	f.Wait(pageTitles + `.join() === "Streams"`)
	f.eval(`document.querySelector("#feed [data-item]").click()`)
	f.Wait(`location.search === "?item=` + id + `" && document.querySelector("#reading h2").textContent === "Streams"`)
	s.delete(token, id)
	f.Wait(`document.querySelector("#reading").innerText.includes("No public content has this address")`)
	if len(f.errors) > 0 {
		t.Errorf("in the console: %q", f.errors)
	}
}

// Tabs share a stream there, too: the holder is hidden by another tab, which takes the stream over,
// and has it alone when the first is closed.
func TestTabsInFirefox(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	f := openFirefox(t, "about:blank")
	f.before(`() => {
		window.streams = 0;
		window.EventSource = class extends EventSource {
			constructor(url) { super(url); window.streams++; }
		};
	}`)
	show := func(context, title string) {
		t.Helper()
		f.context = context
		f.Wait(pageTitles + `[0] === "` + title + `"`)
	}
	holder := f.context
	f.navigate(s.URL)
	f.Wait(pageIsLive)
	s.Send(answer("c1", map[string]any{"title": "First"}))
	show(holder, "First")

	follower := f.newTab()
	f.context = follower
	f.navigate(s.URL)
	f.Wait(pageIsLive)
	s.Send(answer("c2", map[string]any{"title": "Second"}))
	show(follower, "Second")
	show(holder, "Second")
	f.context = follower
	f.Wait(`window.streams === 1`) // the holder is hidden, and gives it up
	s.Send(answer("c3", map[string]any{"title": "Third"}))
	show(holder, "Third")
	if got := f.eval("window.streams"); got != "1" {
		t.Errorf("streams of the tab that had it first: got %s, want 1", got)
	}
	f.call("browsingContext.close", map[string]any{"context": holder}, nil)
	s.Send(answer("c4", map[string]any{"title": "Fourth"}))
	show(follower, "Fourth")
	if got := f.eval("window.streams"); got != "1" {
		t.Errorf("streams of the tab that is left: got %s, want 1", got)
	}
	if len(f.errors) > 0 {
		t.Errorf("in the console: %q", f.errors)
	}
}

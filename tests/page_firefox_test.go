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

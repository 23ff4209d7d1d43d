package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// shownTitles is the JavaScript expression of the titles in the list, one space between.
const shownTitles = `[...document.querySelectorAll(".modelriver-delivery .modelriver-open")].map((a) => a.textContent).join(" ")`

// query is the JavaScript expression of a parameter of the page's address.
func query(name string) string {
	return fmt.Sprintf(`(new URLSearchParams(location.hash.split("?")[1] ?? "").get(%q) ?? "")`, name)
}

// The filters are the address: what is chosen and typed is there, a link brings it, and the
// browser's button goes back to what was chosen before, not through each letter.
func TestDashboardFiltersDeliveries(t *testing.T) {
	t.Parallel()
	modelriver := answersByPath(t)
	s := startServer(t, "")
	s.Superuser()
	s.mustSend(payload("accepted", "One", callbackURL(modelriver, "accepted")))
	s.mustSend(payload("refused", "Two", callbackURL(modelriver, "refused")))
	s.mustSend(fmt.Appendf(nil, `{"type":"task.completed","event":"summary","channel_id":"c3","data":{"title":"Three"},"customer_data":{"category":"news","user_id":"u1"}%s}`, callbackURL(modelriver, "refused3")))
	p := openDashboard(t, s)
	p.Size(1280, 860)
	p.Wait(shownTitles + ` === "Three Two One" && document.querySelectorAll(".modelriver-retry").length === 2`)

	p.Click(".modelriver-states button:nth-child(4)") // Failed
	p.Wait(shownTitles + ` === "Three Two" && ` + query("state") + ` === "failed"`)
	eval[any](p, `document.querySelector("#modelriver-event").checkVisibility() || document.querySelector("[aria-controls=modelriver-details]").click();0`)
	p.Type("#modelriver-event", "summary\r")
	p.Wait(shownTitles + ` === "Three" && ` + query("event") + ` === "summary"`)
	p.Screenshot("dashboard-filtered")
	eval[any](p, `history.back();0`)
	p.Wait(shownTitles + ` === "Three Two" && document.querySelector("#modelriver-event").value === ""`)
	eval[any](p, `history.back();0`)
	p.Wait(shownTitles + ` === "Three Two One" && document.querySelector(".modelriver-states button").ariaPressed === "true"`)

	entries := eval[int](p, `history.length`)
	p.Type(".modelriver-search input", "tWo")
	p.Wait(shownTitles + ` === "Two" && ` + query("search") + ` === "tWo"`)
	if got := eval[int](p, `history.length`); got > entries {
		t.Errorf("typing made %d entries of the browser's history", got-entries)
	}
	if !eval[bool](p, `document.activeElement.matches(".modelriver-search input")`) {
		t.Error("the focus left the search")
	}
	eval[any](p, `document.querySelector(".modelriver-search input").select();0`)
	p.Type(".modelriver-search input", "c3\r") // a channel id
	p.Wait(shownTitles + ` === "Three"`)
	eval[any](p, `document.querySelector(".modelriver-search input").select();0`)
	p.Type(".modelriver-search input", "not there\r")
	p.Wait(`document.querySelector(".modelriver-hint")?.innerText.includes("No delivery is like that")`)
	p.Click(".modelriver-hint button")
	p.Wait(shownTitles + ` === "Three Two One" && location.hash === "#/modelriver" && document.querySelector(".modelriver-search input").value === ""`)

	// An address brings its filters, all of them.
	for address, want := range map[string]string{
		"user=u1": "Three", "category=stories": "Two One", "state=delivered": "One", "event=new_content&state=failed": "Two",
		"from=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): "", "to=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): "Three Two One",
	} {
		p.Open(s.URL + "/_/?" + fmt.Sprint(len(address), want) + "#/modelriver?" + address)
		p.Wait(`document.querySelector(".modelriver-delivery, .modelriver-hint button") && ` + shownTitles + fmt.Sprintf(` === %q`, want))
	}
	// And one that is wrong says so.
	p.Open(s.URL + "/_/?wrong#/modelriver?from=yesterday")
	p.Wait(`document.querySelector(".modelriver-deliveries .list")?.innerText.includes("2026-01-31T00:00:00Z")`)
	p.Clean(false)
}

// The list has no end but that of the deliveries: by scrolling, and by a button.
func TestDashboardListsAllDeliveries(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Superuser()
	var want []string
	for i := range 100 {
		title := fmt.Sprintf("T%03d", i)
		s.mustSend(payload(title, title, ""))
		want = append(want, title)
	}
	slices.Reverse(want)
	p := openDashboard(t, s)
	p.Size(1280, 600)
	// A page has 30, but less of a server that is slow.
	shown := `document.querySelectorAll(".modelriver-delivery").length`
	p.Wait(shown + ` > 0 && document.querySelector(".modelriver-older").innerText.includes(` + shown + ` + " are shown")`)
	first := eval[int](p, shown)
	p.Type(".modelriver-older button", "\r")
	p.Wait(fmt.Sprintf("%s > %d", shown, first))
	for {
		n := eval[int](p, shown)
		if n == 100 {
			break
		}
		eval[any](p, `document.querySelector(".modelriver .page-content").scrollTop = 1e6;0`)
		p.Wait(fmt.Sprintf("%s > %d", shown, n))
	}
	p.Wait(`document.querySelector(".modelriver-older").hidden`)
	if got := eval[[]string](p, `[...document.querySelectorAll(".modelriver-delivery .modelriver-open")].map((a) => a.textContent)`); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	p.Clean(true)
}

// Who reads down in the list keeps the line under the eyes; who is at its top sees what
// comes. States change in both.
func TestDashboardListStandsStillForAReader(t *testing.T) {
	t.Parallel()
	var accept atomic.Bool
	modelriver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !accept.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(modelriver.Close)
	s := startServer(t, "")
	s.Superuser()
	for i := range 29 {
		s.mustSend(payload(fmt.Sprint(i), fmt.Sprintf("T%02d", i), ""))
	}
	s.mustSend(payload("refused", "Refused", callbackURL(modelriver, "refused")))
	p := openDashboard(t, s)
	p.Size(1280, 600)
	p.Wait(dashboardItem("Refused") + `?.innerText.includes("failed")`)
	s.mustSend(payload("new", "New", ""))
	p.Wait(shownTitles + `.startsWith("New Refused T28")`)

	eval[any](p, dashboardItem("Refused")+`.scrollIntoView();0`)
	at := dashboardItem("Refused") + `.getBoundingClientRect().top`
	before := eval[float64](p, at)
	s.mustSend(payload("newer", "Newer", ""))
	p.Wait(`document.querySelector(".modelriver-newer")?.innerText.includes("1 newer")`)
	if got := eval[float64](p, at); got != before || eval[bool](p, `!!`+dashboardItem("Newer")) {
		t.Errorf("the line moved from %.0f to %.0f", before, got)
	}
	accept.Store(true)
	p.Type(".modelriver-retry", "\r")
	p.Wait(dashboardItem("Refused") + `?.innerText.includes("delivered")`)
	p.Screenshot("dashboard-newer")
	p.Type(".modelriver-newer button", "\r")
	p.Wait(shownTitles + `.startsWith("Newer New Refused") && document.activeElement.matches(".modelriver-deliveries h2") && !document.querySelector(".modelriver-newer button")`)
	p.Clean(true)
}

// Where little is found, the list says how far back was looked, and goes on: for a while by
// itself, and then when it is told to.
func TestDashboardLooksFurtherBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Superuser()
	s.mustSend(payload("c", "Far back", ""))
	p := openDashboard(t, s)
	p.Wait(dashboardItem("Far back"))
	eval[any](p, `{
		window.empty = 0; // pages on which nothing is found of the whole text, whose beginning may be looked for before
		const real = window.fetch;
		window.fetch = (url, options) => {
			if (!String(url).includes("/api/modelriver/deliveries?") || !/search=Far(\+|%20)back(&|$)/.test(url) || empty >= 30) return real(String(url).replace(/&?after=x/, ""), options);
			empty++;
			return Promise.resolve(new Response(JSON.stringify({ items: [], next: "x", searchedTo: "2020-01-02 03:04:05.000Z" }), { headers: { "Content-Type": "application/json" } }));
		};
		0
	}`)
	p.Type(".modelriver-search input", "Far back\r")
	p.Wait(`document.querySelector(".modelriver-older").innerText.includes("Looked back to Jan 2, 2020")`)
	eval[any](p, `document.querySelector(".modelriver-older").scrollIntoView();0`) // the chart may have pushed it down
	p.Wait(`empty >= 21`)
	asked := eval[int](p, `empty`)
	if asked >= 30 {
		t.Errorf("it looked on %d pages without being told to", asked)
	}
	if text := eval[string](p, `document.querySelector(".modelriver-older").innerText`); !strings.Contains(text, "Look further back") {
		t.Errorf("the list ends with %s", text)
	}
	p.Screenshot("dashboard-searched")
	p.Type(".modelriver-older button", "\r")
	p.Wait(dashboardItem("Far back") + ` && document.querySelector(".modelriver-older").hidden`)
	p.Clean(true)
}

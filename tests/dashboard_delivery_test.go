package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// openDrawer opens the drawer of the delivery with the title, with the keyboard.
func (p *tab) openDrawer(title string) {
	p.t.Helper()
	p.Wait(dashboardItem(title))
	eval[any](p, dashboardItem(title)+`.querySelector("a").id = "open";0`)
	p.Type("#open", "\r")
	eval[any](p, `document.querySelector("#open")?.removeAttribute("id");0`)
	p.Wait(fmt.Sprintf(`document.querySelector(".modelriver-drawer h2")?.textContent === %q`, title))
}

// drawerSays is the JavaScript expression of whether the drawer shows the text.
func drawerSays(text string) string {
	return fmt.Sprintf(`document.querySelector(".modelriver-drawer")?.innerText.includes(%q)`, text)
}

// TestDashboardShowsADelivery follows one webhook from its failure to two acceptances, all
// in its drawer and with the keyboard.
func TestDashboardShowsADelivery(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	var accept atomic.Bool
	var got atomic.Int64
	modelriver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		if !accept.Load() {
			http.Error(w, "the channel is closed", http.StatusBadRequest)
		}
	}))
	t.Cleanup(modelriver.Close)
	s := startServer(t, "")
	s.Superuser()
	sent := string(payload("c1", "Title c1", `,"n":123456789012345678901234567890,"n":1.00`+callbackURL(modelriver, "c1")))
	s.mustSend([]byte(sent))
	s.mustSend(payload("c2", "Title c2", ""))

	p := openDashboard(t, s)
	p.Size(1280, 860)
	p.Wait(dashboardItem("Title c1") + `?.innerText.includes("failed")`)
	p.openDrawer("Title c1")
	p.Wait(`location.hash.includes("id=")`)
	for _, want := range []string{"failed", "new_content", "stories", "c1", "400", "the channel is closed", "took", "error callback", "scheme", "body", "saved_at"} {
		p.Wait(drawerSays(want))
	}
	if got := eval[int](p, `document.querySelectorAll(".modelriver-timeline li").length`); got != 2 {
		t.Errorf("attempts: got %d, want the callback and the one that tells of the error", got)
	}

	// The payload: readable without a change, as it came, and its headers.
	text := `document.querySelector(".modelriver-payload pre").textContent`
	if got := eval[string](p, text); !strings.Contains(got, "\n  \"n\": 123456789012345678901234567890,\n  \"n\": 1.00,\n") {
		t.Errorf("pretty: got %s", got)
	}
	p.Type(`.modelriver-payload [role=group] button:last-child`, "\r")
	if got := eval[string](p, text); got != sent {
		t.Errorf("raw: got %s, want %s", got, sent)
	}
	p.Type(`.modelriver-payload summary`, "\r")
	if got := eval[string](p, `document.querySelector(".modelriver-headers").innerText`); !strings.Contains(strings.ToLower(got), "mr-signature") || !strings.Contains(got, "…") {
		t.Errorf("headers: got %s", got)
	}
	checkDashboard(p, axe, "delivery")

	// Retry, then send again after a question. The focus stays in the drawer.
	accept.Store(true)
	p.Type(".modelriver-again", "\r")
	p.Wait(`document.querySelector(".modelriver-drawer header .label").textContent === "delivered"`)
	p.Wait(`document.querySelectorAll(".modelriver-timeline li").length === 3 && document.querySelector(".modelriver-timeline li:last-child").innerText.includes("200")`)
	p.Wait(drawerSays("the channel is closed")) // still
	p.Type(".modelriver-again", "\r")
	p.Wait(`document.querySelector(".modal.popup h6")?.innerText.includes("second time")`)
	before := got.Load()
	eval[any](p, `document.querySelector(".modal.popup .btn.secondary").id = "no";0`)
	p.Type("#no", "\r")
	p.Wait(`!document.querySelector(".modal.popup").checkVisibility() && document.activeElement.matches(".modelriver-again")`)
	if got.Load() != before {
		t.Error("the callback was sent though the answer was no")
	}
	p.Type(".modelriver-again", "\r")
	p.Wait(`document.querySelector(".modal.popup .btn.warning")?.checkVisibility()`)
	p.Click(".modal.popup .btn.warning")
	p.Wait(`document.querySelectorAll(".modelriver-timeline li").length === 4`)
	if got.Load() != before+1 {
		t.Errorf("callbacks: got %d, want %d", got.Load(), before+1)
	}

	// Escape leads back to the line, the browser's buttons to and fro.
	p.Type(".modelriver-payload summary", "\x1b")
	p.Wait(`!document.querySelector(".modelriver-drawer") && !location.hash.includes("id=")`)
	p.Wait(`document.activeElement === ` + dashboardItem("Title c1") + `.querySelector("a")`)
	p.openDrawer("Title c2")
	p.Wait(drawerSays("No callback was asked for"))
	eval[any](p, `history.back();0`)
	p.Wait(`!document.querySelector(".modelriver-drawer") && document.querySelector(".modelriver")`)
	eval[any](p, `history.forward();0`)
	p.Wait(`document.querySelector(".modelriver-drawer h2")?.textContent === "Title c2"`)
	p.Click(`.modelriver-drawer .modelriver-about a[href*="event="]`)
	p.Wait(`!document.querySelector(".modelriver-drawer") && document.querySelector("#modelriver-event").value === "new_content"`)
	p.Clean(true)
}

// startRefusing starts a server whose hook, in the file, refuses content with the title Bad.
func startRefusing(t testing.TB) (s *server, hook string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pb_data")
	writeBeside(t, dir, "pb_hooks/refuse.pb.js", `onRecordCreate((e) => {
		if (e.record.get("title") === "Bad") throw new BadRequestError("not here");
		e.next();
	}, "aiContent");`)
	return startServer(t, dir), filepath.Join(filepath.Dir(dir), "pb_hooks", "refuse.pb.js")
}

// A delivery has an address, also when it is refused, deleted or gone.
func TestDashboardOpensDeliveriesByAddress(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	modelriver := answersByPath(t)
	s, refuse := startRefusing(t)
	token := s.Superuser()
	for _, title := range []string{"Bad", "Deleted"} {
		s.mustSend(payload(title, title, callbackURL(modelriver, title)))
	}
	var page struct{ Items []struct{ ID, Title string } }
	await(t, "both are called back", func() bool {
		s.API(token, http.MethodGet, "/api/modelriver/deliveries", nil, &page)
		return len(page.Items) == 2 && countRows(t, openDatabase(t, s.Dir), "modelriverCallbacks WHERE state = 'pending'") == 0
	})
	ids := map[string]string{}
	for _, item := range page.Items {
		ids[item.Title] = item.ID
	}
	s.delete(token, ids["Deleted"])

	p := openDashboard(t, s)
	open := func(id string) { p.Open(s.URL + "/_/?" + id + "#/modelriver?id=" + id) }
	openInList := func(id, state string) { p.Open(s.URL + "/_/?" + id + "#/modelriver?state=" + state + "&id=" + id) }
	open(ids["Deleted"])
	p.Wait(drawerSays("Its record was deleted"))
	checkDashboard(p, axe, "delivery-deleted")
	open("nothing12345678")
	p.Wait(drawerSays("nothing of this delivery any more"))
	checkDashboard(p, axe, "delivery-gone")
	p.Type(".modelriver-drawer", "\x1b")
	p.Wait(`!document.querySelector(".modelriver-drawer") && location.hash === "#/modelriver"`)

	openInList(ids["Bad"], "refused") // which it leaves when it is ingested
	p.Wait(drawerSays("is not stored"))
	checkDashboard(p, axe, "delivery-refused")
	if err := os.Remove(refuse); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	p.Wait(`document.querySelector(".modelriver .label.success")`) // live again
	p.Wait(`document.querySelector(".modelriver-again")?.innerText === "Ingest again"`)
	p.Type(".modelriver-again", "\r")
	p.Wait(`document.querySelector(".modelriver-drawer header .label").textContent === "delivered"`)
	p.Wait(`document.querySelector('.modelriver-drawer a[href^="#/collections?collection=aiContent&record="]')`)
	p.Clean(false)
}

// A payload of megabytes is shown in part: all of it would hold the page up.
func TestDashboardShowsAPartOfALargePayload(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Superuser()
	s.mustSend(payload("large", "Large", `,"more":[`+strings.Repeat(`{"n":[1,2,3]},`, 340_000)+`0]`))
	p := openDashboard(t, s)
	p.Wait(dashboardItem("Large"))
	p.openDrawer("Large")
	p.Wait(drawerSays("the first 50,000 are shown"))
	if got := eval[int](p, `document.querySelector(".modelriver-payload pre").textContent.length`); got != 50_000 {
		t.Errorf("characters: got %d, want 50000", got)
	}
	p.Type(`.modelriver-payload [role=group] button:last-child`, "\r")
	p.Wait(`document.querySelector(".modelriver-payload pre").textContent.length === 50000`)
	p.Clean(true)
}

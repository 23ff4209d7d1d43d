package tests

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
)

// figureLink is the JavaScript expression of where a figure leads.
func figureLink(label string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".modelriver-figure a")].find((a) => a.textContent === %q)?.getAttribute("href")`, label)
}

// A figure leads to what it counts.
func TestDashboardFiguresLead(t *testing.T) {
	t.Parallel()
	modelriver := answersByPath(t)
	s := startServer(t, "", "MODELRIVER_API_URL="+takesByWorkflow(t).URL)
	token := s.Superuser()
	s.mustSend(payload("refused", "Failed title", callbackURL(modelriver, "refused")))
	s.mustSend(payload("other", "Other title", ""))
	s.ask(token, "refused", "")
	s.ask(token, "taken", "")
	p := openDashboard(t, s)
	p.Wait(figure("Failed") + ` === "1" && ` + figure("Failed requests") + ` === "1" && ` + figure("Open requests") + ` === "1"`)
	today := "from=" + url.QueryEscape(eval[string](p, `new Date(new Date().setHours(0, 0, 0, 0)).toISOString()`))
	for label, want := range map[string]string{
		"Received today": "#/modelriver?" + today, "Refused today": "#/modelriver?state=refused&" + today,
		"Delivered today": "#/modelriver?state=delivered&" + today, "Waiting": "#/modelriver?state=waiting",
		"Failed": "#/modelriver?state=failed", "Median callback": "#/modelriver?state=delivered",
	} {
		if got := eval[string](p, figureLink(label)); got != want {
			t.Errorf("%s leads to %s, want %s", label, got, want)
		}
	}

	// All of the figure is the link, for pointer and keyboard.
	eval[any](p, `{
		const figure = [...document.querySelectorAll(".modelriver-figure")].find((f) => f.firstChild.textContent === "Failed");
		figure.scrollIntoView({ block: "center" });
		const box = figure.getBoundingClientRect();
		document.elementFromPoint(box.right - 5, box.bottom - 5).id = "corner";
		0
	}`)
	p.Type("#corner", "\r")
	p.Wait(`location.hash === "#/modelriver?state=failed"`)
	p.Wait(figure("Failed") + ` === "1" && ` + figure("Open requests") + ` === "1"`) // of the page anew

	// Those of collections open there, with as many rows as they count.
	for label, want := range map[string][]string{
		"Stored today": {"Failed title", "Other title"}, "Failed requests": {"refused"}, "Open requests": {"taken"},
	} {
		there := p.Another(s.URL + "/_/" + eval[string](p, figureLink(label)))
		there.Wait(fmt.Sprintf(`document.body.innerText.includes("Total: %d")`, len(want)))
		for _, title := range want {
			there.Wait(fmt.Sprintf(`document.querySelector("tbody").innerText.includes(%q)`, title))
		}
	}
	p.Clean(true)
}

// fact is the JavaScript expression of what the page says of the server.
func fact(label string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".modelriver-facts > div")].find((e) => e.firstChild.textContent === %q)?.lastChild.innerText`, label)
}

// The page says how the server is set up, who may ask, and what the doctor finds.
func TestDashboardShowsItsServer(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	store := newBucketStore(t)
	s := startServer(t, "", append(store.env, "REPLICA_ACK=wait", "MODELRIVER_WEBHOOK_SECRET=the first signing secret,the second signing secret")...)
	token := s.Superuser()
	s.awaitShipped(token)
	p := openDashboard(t, s)
	for label, want := range map[string]string{
		"Webhook URL": s.URL + "/webhooks/modelriver", "Secrets": "2 secrets, key set", "Asking": "closed: only superusers",
	} {
		p.Wait(fact(label) + fmt.Sprintf(` === %q`, want))
	}
	p.Wait(`/^up to date; epoch 1; a 200 waits for it; never verified here. s3:/.test(` + fact("Replica") + `)`)
	p.Wait(`/^PocketRiver \S.*, PocketBase v0\.39\.\d+$/.test(` + fact("Versions") + `)`)
	p.Wait(`/^All \d+ checks are fine$/.test(document.querySelector(".modelriver-health summary").innerText)`)
	if text := eval[string](p, `document.querySelector(".modelriver").innerText`); strings.Contains(text, "signing secret") || strings.Contains(text, testKey) || strings.Contains(text, "a-secret-key") {
		t.Error("a secret is shown")
	}
	p.Type(`.modelriver-facts .copy-to-clipboard[aria-label="Copy the webhook URL"]`, "\r") // with the keyboard
	p.Wait(`document.querySelector(".modelriver-facts .copy-to-clipboard").matches(".active")`)
	p.Type(".modelriver-health summary", "\r")
	p.Wait(`document.querySelector(".modelriver-health details").innerText.includes("OK: durability")`)
	checkDashboard(p, axe, "health-fine")

	s.API(token, http.MethodPatch, "/api/collections/aiRequests", map[string]any{"createRule": ""}, nil)
	p.Wait(fact("Asking") + `?.startsWith("open, not limited: it costs money.")`)
	s.API(token, http.MethodPatch, "/api/collections/aiContent", map[string]any{"createRule": ""}, nil)
	s.API(token, http.MethodPatch, "/api/settings", map[string]any{"rateLimits": map[string]any{
		"enabled": true, "rules": []any{map[string]any{"label": "aiRequests:create", "maxRequests": 5, "duration": 60}},
	}}, nil)
	p.Wait(fact("Asking") + ` === "open, limited"`)
	problem := `document.querySelector(".modelriver-health > .modelriver-findings")?.innerText`
	p.Wait(problem + `?.includes("Problem: rules – everybody may create content") && ` + problem + `.includes("Clear the create rule of aiContent")`)
	p.Wait(`/^\d+ other checks found nothing wrong$/.test(document.querySelector(".modelriver-health summary").innerText)`)
	checkDashboard(p, axe, "health-problem")
	p.Clean(true)
}

// What cannot be read says what to do, and is read when that is done.
func TestDashboardPanelsSayWhatToDo(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "")
	s.Superuser()
	p := openDashboard(t, s)
	p.Wait(`document.querySelector(".modelriver-nothing")`)
	p.Click(`a[href="#/logs"]`)
	p.Wait(`!document.querySelector(".modelriver")`)

	db, err := dbx.Open("sqlite", filepath.Join(s.Dir, "data.db")+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	rename := func(from, to string) {
		t.Helper()
		if _, err := db.NewQuery(fmt.Sprintf("ALTER TABLE %s RENAME TO %s", from, to)).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	rename("modelriverCallbacks", "lost")
	p.Click(`a[href="#/modelriver"]`)
	p.Wait(`document.querySelector(".modelriver-chart .modelriver-problem span")?.innerText.endsWith("The reason is in the log: Logs, above.")`)
	checkDashboard(p, axe, "panels-error")
	rename("lost", "modelriverCallbacks")
	p.Type(".modelriver-chart .modelriver-problem button", "\r")
	p.Wait(`document.querySelector(".modelriver-nothing") && !document.querySelector(".modelriver-problem")`)

	p.Click(`a[href="#/logs"]`)
	p.Wait(`!document.querySelector(".modelriver")`)
	p.Offline(true)
	p.Click(`a[href="#/modelriver"]`)
	p.Wait(`document.querySelectorAll(".modelriver-problem").length === 3`)
	p.Wait(`[...document.querySelectorAll(".modelriver-problem span")].every((e) => e.innerText.startsWith("The server does not answer."))`)
	checkDashboard(p, axe, "panels-offline")
	p.Offline(false)
	p.Wait(`!document.querySelector(".modelriver-problem") && document.querySelector(".modelriver-nothing")`) // by itself
	p.Clean(false)
}

// A page that was open while another version of the server was started gets answers that it
// does not know. It says so, and the rest of PocketBase's dashboard goes on.
func TestDashboardPanelsSurviveAnotherVersion(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Superuser()
	p := openDashboard(t, s)
	p.Click(`a[href="#/logs"]`)
	p.Wait(`!document.querySelector(".modelriver")`)
	eval[any](p, `{
		const { fetch } = window;
		window.fetch = async (url, ...rest) => {
			if (/modelriver\/(doctor|chart|rejections)/.test(url)) return new Response("{}", { headers: { "Content-Type": "application/json" } });
			const answer = await fetch(url, ...rest);
			if (!/modelriver\/stats/.test(url)) return answer;
			const { rejected, versions, asking, ...known } = await answer.json();
			return new Response(JSON.stringify(known), { headers: { "Content-Type": "application/json" } });
		};
		0
	}`)
	p.Click(`a[href="#/modelriver"]`)
	p.Wait(`document.querySelectorAll(".modelriver-problem").length === 3`)
	p.Wait(`[...document.querySelectorAll(".modelriver-problem span")].every((e) => e.innerText.endsWith("Reload the page."))`)
	s.mustSend(payload("c", "Title", ""))
	p.Wait(figure("Stored today") + ` === "1"`)
	p.Clean(true)
}

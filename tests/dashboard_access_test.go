package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// dashboardItem is the JavaScript expression of the line of the delivery with the title.
func dashboardItem(title string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".modelriver-delivery")].find((r) => r.querySelector(".modelriver-open")?.textContent === %q)`, title)
}

// TestDashboardIsAccessible runs axe on each state of the page, in both schemes, wide and
// narrow. What is around the page, and its footer, is PocketBase's.
func TestDashboardIsAccessible(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	t.Run("before the set-up", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY=")
		s.Superuser()
		p := openDashboard(t, s)
		p.Wait(`document.querySelector(".modelriver-setup")`)
		checkDashboard(p, axe, "setup")
	})
	t.Run("in use", func(t *testing.T) {
		t.Parallel()
		modelriver := answersByPath(t)
		s := startServer(t, "")
		s.Superuser()
		p := openDashboard(t, s)
		p.Wait(`document.body.innerText.includes("Nothing has arrived yet")`)
		checkDashboard(p, axe, "empty")

		// A wrong secret: the page says what goes on instead of that nothing does.
		s.sendUnsigned()
		s.sendUnsigned()
		p.Wait(`document.querySelector(".modelriver-rejected")?.innerText.includes("2 webhooks")`)
		for _, want := range []string{"signature does not match", "MODELRIVER_WEBHOOK_SECRET"} {
			if text := eval[string](p, `document.querySelector(".modelriver-rejected").innerText`); !strings.Contains(text, want) {
				t.Errorf("the page lacks %q of rejected webhooks: %s", want, text)
			}
		}
		p.Wait(`!document.body.innerText.includes("Nothing has arrived yet") && !document.querySelector(".modelriver .label.success")`)
		checkDashboard(p, axe, "rejected")

		for _, channel := range []string{"accepted", "later", "refused"} {
			s.Send(payload(channel, "Title "+channel, callbackURL(modelriver, channel)))
		}
		for _, channel := range []string{"accepted", "later", "refused"} {
			p.Wait(dashboardItem("Title " + channel))
		}
		p.Wait(`document.querySelector(".modelriver-error")?.innerText.includes("400") && document.querySelector(".modelriver-retry-all").checkVisibility()`)
		checkDashboard(p, axe, "content")
		p.Click(".modelriver-states button:nth-child(4)") // only the failed ones
		p.Wait(`document.querySelectorAll(".modelriver-delivery").length === 1`)
		checkDashboard(p, axe, "failed")

		// Open the page anew while the server does not answer.
		p.Click(`a[href="#/logs"]`)
		p.Wait(`!document.querySelector(".modelriver")`)
		p.Offline(true)
		p.Click(`a[href="#/modelriver"]`)
		p.Wait(`document.querySelector(".modelriver")?.innerText.includes("The server does not answer")`)
		p.Wait(`document.querySelector(".modelriver-deliveries .list").innerText.includes("could not be loaded")`)
		checkDashboard(p, axe, "offline")
		p.Offline(false)
		p.Wait(dashboardItem("Title refused"))
	})
}

// checkDashboard runs axe on what the plugin's page shows, and looks that it fits.
func checkDashboard(p *tab, axe, state string) {
	p.t.Helper()
	eval[any](p, axe+";0")
	for _, scheme := range []string{"light", "dark"} {
		p.Media("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
		p.Wait(`document.documentElement.dataset.colorScheme === "` + scheme + `" && !document.documentElement.style.getPropertyValue("--animationSpeed")`)
		for _, width := range []int64{1280, 390, 320} {
			p.Size(width, 860)
			p.Wait(`document.getAnimations().every((a) => a.playState !== "running" || a.effect.getTiming().iterations === Infinity)`)
			found := eval[[]string](p, `axe.run({ include: [".modelriver", ".modelriver-drawer"].filter((s) => document.querySelector(s)), exclude: [".page-footer"] }, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
				rules: { "label-content-name-mismatch": { enabled: true } } }).then(({ violations }) =>
				violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join("; ")))`)
			for _, violation := range found {
				p.t.Errorf("%s, %s, %d px: %s", state, scheme, width, violation)
			}
			if got := eval[string](p, `[...document.querySelectorAll("h1")].map((h) => h.textContent).join()`); got != "ModelRiver" {
				p.t.Errorf("%s, %s, %d px: first headings: got %q, want one", state, scheme, width, got)
			}
			if got := eval[string](p, `[...document.querySelectorAll(".modelriver *, .modelriver-drawer *")].find((e) => e.getBoundingClientRect().right > innerWidth)?.outerHTML ?? ""`); got != "" {
				p.t.Errorf("%s, %s, %d px: cut off: %s", state, scheme, width, got)
			}
			p.Screenshot(fmt.Sprintf("dashboard-%s-%s-%d", state, scheme, width))
		}
	}
	p.Media()
	p.Size(1280, 860)
}

// A row is called by its title, however old its content is, and by what became of it.
func TestDashboardNamesCallbacks(t *testing.T) {
	t.Parallel()
	modelriver := answersByPath(t)
	s, _ := startRefusing(t)
	token := s.Superuser()
	for i := range 12 {
		channel := fmt.Sprint("c", i)
		if status := s.Send(payload(channel, "Title "+channel, callbackURL(modelriver, channel))); status != 200 {
			t.Fatalf("webhook: got %d, want 200", status)
		}
	}
	s.Send(payload("bad", "Bad", callbackURL(modelriver, "bad")))
	var list struct{ Items []struct{ ID string } }
	s.API(token, http.MethodGet, `/api/collections/aiContent/records?filter=title="Title%20c1"`, nil, &list)
	s.delete(token, list.Items[0].ID)

	p := openDashboard(t, s)
	p.Wait(dashboardItem("Title c0"))
	p.Wait(dashboardItem("Bad") + `?.innerText.includes("refused, not stored")`)
	p.Wait(`document.querySelectorAll(".modelriver-delivery").length === 13`)
	if got := eval[int](p, `[...document.querySelectorAll(".modelriver-delivery")].filter((r) => r.innerText.includes("stored → deleted")).length`); got != 1 {
		t.Errorf("deliveries whose record was deleted: got %d, want 1", got)
	}
	// The titles travel alone: a record may be megabytes.
	if got := eval[bool](p, `app.pb.send("/api/modelriver/deliveries", {}).then(({ items }) => items.some((row) => "body" in row || "data" in row || "payload" in row))`); got {
		t.Error("the list carries contents")
	}
	p.Clean(true)
}

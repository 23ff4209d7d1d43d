package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// openDashboard signs in to PocketBase's dashboard and opens the plugin's page.
func openDashboard(t testing.TB, s *server) *tab {
	t.Helper()
	p := openTab(t, "about:blank")
	signInToDashboard(p, s)
	return p
}

// signInToDashboard is openDashboard in a tab that is there.
func signInToDashboard(p *tab, s *server) {
	p.t.Helper()
	p.Open(s.URL + "/_/#/login")
	p.Wait(`document.querySelector("input[type=email], input[name=identity]")`)
	p.Type(`input[type=email], input[name=identity]`, testEmail)
	p.Type(`input[type=password]`, testPassword+"\r")
	p.Wait(`document.querySelector(".app-main-nav")`)
	p.Click(`a[href="#/modelriver"]`)
	p.Wait(`document.querySelector(".modelriver-figures")`)
}

// figure is the JavaScript expression of a figure's text.
func figure(label string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".modelriver-figure")].find(f => f.firstChild.textContent === %q)?.lastChild.textContent`, label)
}

func TestDashboardShowsFiguresListsAndRetries(t *testing.T) {
	t.Parallel()
	var accept atomic.Bool
	var got atomic.Int64
	modelriver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		if !accept.Load() {
			http.Error(w, "no", http.StatusBadRequest)
		}
	}))
	t.Cleanup(modelriver.Close)
	callbackTo := func(channel string) string {
		return fmt.Sprintf(`,"callback_url":%q`, modelriver.URL+"/v1/callback/"+channel)
	}

	s := startServer(t, "")
	s.Superuser()
	p := openDashboard(t, s)
	p.Wait(`document.body.innerText.includes("Nothing has arrived yet")`)
	p.Wait(figure("Received today") + ` === "0"`)
	if eval[bool](p, `!!document.querySelector(".modelriver-setup")`) {
		t.Error("the set-up card shows though secret and key are set")
	}

	for i := range 3 {
		channel := fmt.Sprint("c", i)
		if status := s.Send(payload(channel, "Title "+channel, callbackTo(channel))); status != 200 {
			t.Fatalf("webhook: got %d, want 200", status)
		}
	}
	p.Wait(`document.body.innerText.includes("Title c2")`)
	p.Wait(figure("Received today") + ` === "3" && ` + figure("Stored today") + ` === "3" && ` + figure("Failed") + ` === "3"`)
	p.Wait(`document.querySelectorAll(".modelriver-retry").length === 3`)
	p.Wait(`document.querySelector(".modelriver-error").textContent.includes("400")`)

	// Retry one, then all.
	accept.Store(true)
	p.Click(".modelriver-retry")
	p.Wait(figure("Failed") + ` === "2" && ` + figure("Delivered today") + ` === "1"`)
	p.Wait(`document.querySelectorAll(".modelriver-retry").length === 2`)
	p.Wait(`[...document.querySelectorAll(".modelriver-delivery")].some((r) => r.innerText.includes("called back after") && r.innerText.includes("1 attempt"))`)
	p.Click(".modelriver-retry-all")
	p.Wait(`document.querySelector(".modal .btn.warning")`)
	p.Click(".modal .btn.warning")
	p.Wait(figure("Failed") + ` === "0" && ` + figure("Delivered today") + ` === "3"`)
	p.Wait(figure("Median callback") + ` !== "–"`)
	p.Wait(`document.querySelectorAll(".modelriver .label.success").length >= 4`) // and the state of the page

	checkWidths(p, s.URL)

	// The record opens.
	p.Size(1280, 860)
	p.Click(".modelriver-open")
	p.Wait(`document.querySelector(".modelriver-drawer h2")?.textContent === "Title c2"`)
	p.Wait(`document.querySelector('.modelriver-drawer a[href^="#/collections?collection=aiContent"]')`)
	p.Click(`.modelriver-drawer a[href^="#/collections?collection=aiContent"]`)
	p.Wait(`document.querySelector(".modal [name=title]")?.value === "Title c2" || document.querySelector(".modal")?.innerText.includes("Title c2")`)
	p.Clean(true)
}

// checkWidths looks that the page does not scroll sideways, in both schemes.
func checkWidths(p *tab, url string) {
	p.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		p.Media("prefers-color-scheme", scheme)
		for _, width := range []int64{1280, 390} {
			p.Size(width, 860)
			p.Open(url + "/_/?" + scheme + fmt.Sprint(width) + "#/modelriver")
			p.Wait(`document.querySelectorAll(".modelriver .list-item").length === 3`)
			if eval[bool](p, `document.documentElement.scrollWidth > innerWidth`) {
				p.t.Errorf("%s, %d px: the page scrolls sideways", scheme, width)
			}
			p.Screenshot(fmt.Sprintf("dashboard-%s-%d", scheme, width))
		}
	}
}

func TestDashboardTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY=")
	s.Superuser()
	p := openDashboard(t, s)
	p.Wait(`document.querySelector(".modelriver-setup")`)
	text := eval[string](p, `document.querySelector(".modelriver-setup").innerText`)
	for _, want := range []string{s.URL + "/webhooks/modelriver", "MODELRIVER_WEBHOOK_SECRET", "MODELRIVER_API_KEY"} {
		if !strings.Contains(text, want) {
			t.Errorf("the set-up card lacks %q: %s", want, text)
		}
	}
	p.Size(1280, 860)
	p.Screenshot("dashboard-setup")
	p.Clean(true)
}

func TestDashboardSurvivesARestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Superuser()
	p := openDashboard(t, s)
	s.Restart()
	s.Send(payload("after", "After the restart", ""))
	p.Wait(`document.body.innerText.includes("After the restart")`)
	p.Wait(figure("Stored today") + ` === "1"`)
	p.Clean(false)
}

func TestDashboardFilesAreNeverStale(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	for path, want := range map[string]string{
		"/_/extensions.js":                       "no-cache",
		"/_/extensions/modelriver/style.css":     "no-cache",
		"/_/extensions/modelriver/live-query.js": "no-cache",
		"/_/extensions/modelriver/live-rows.js":  "no-cache",
		"/_/images/logo.svg":                     "max-age=1209600, stale-while-revalidate=86400",
	} {
		response, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Get("Cache-Control"); response.StatusCode != 200 || got != want {
			t.Errorf("%s: got %s, Cache-Control %q, want 200, %q", path, response.Status, got, want)
		}
	}
}

func TestStatsAreForSuperusers(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	for name, token := range map[string]string{"a guest": "", "a stranger": "x.y.z"} {
		request, _ := http.NewRequest(http.MethodGet, s.URL+"/api/modelriver/stats", nil)
		request.Header.Set("Authorization", token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %s, want 401", name, response.Status)
		}
	}
}

func TestBinaryWithoutDashboardWorks(t *testing.T) {
	t.Parallel()
	buildBinary(t) // makes the folder
	path := filepath.Join(buildDir, "pocketriver-no-ui")
	if out, err := inRepository("go", "build", "-tags", "no_ui", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build -tags no_ui: %v\n%s", err, out)
	}
	s := startServerBinary(t, path, "")
	token := s.Superuser()
	if status := s.Send(payload("c", "Stored without a dashboard", "")); status != 200 {
		t.Fatalf("webhook: got %d, want 200", status)
	}
	var stats struct{ Stored int }
	s.API(token, http.MethodGet, "/api/modelriver/stats", nil, &stats)
	if stats.Stored != 1 {
		t.Errorf("stored: got %d, want 1", stats.Stored)
	}
	response, err := http.Get(s.URL + "/_/extensions/modelriver/live-query.js")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if got := response.Header.Get("Content-Type"); strings.Contains(got, "javascript") {
		t.Errorf("the dashboard's files are served without a dashboard: %s", got)
	}
}

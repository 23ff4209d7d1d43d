package tests

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
)

// card is the JavaScript expression of the card of rejected webhooks.
const card = `document.querySelector(".modelriver-rejected")`

// Whoever has set a wrong secret reads why webhooks are rejected, and what to do, without
// scrolling, on a phone too; and the command that is shown does what is said of it.
func TestDashboardSaysWhyWebhooksAreRejected(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=another signing secret")
	s.Superuser()
	p := openDashboard(t, s)
	p.Wait(card + `.innerText.trim() === "No webhook was rejected today" && !` + card + `.matches(".alert")`)
	checkDashboard(p, axe, "rejections-calm")

	if status := s.Send(payload("c", "Title", "")); status != http.StatusUnauthorized {
		t.Fatalf("webhook: got %d, want 401", status)
	}
	p.Wait(card + `.matches(".alert.danger") && ` + card + `.innerText.includes("in the last 24 hours")`)
	text := eval[string](p, card+`.innerText`)
	for _, want := range []string{"1 webhook was rejected today, 1 in the last hour", "The signature is wrong", "What to do: Set MODELRIVER_WEBHOOK_SECRET"} {
		if !strings.Contains(text, want) {
			t.Errorf("the card lacks %q: %s", want, text)
		}
	}
	p.Size(390, 860)
	if got := eval[float64](p, card+`.querySelector("p").getBoundingClientRect().bottom`); got > 500 {
		t.Errorf("on a phone, what to do ends at %.0f px, want it seen at once", got)
	}
	p.Size(1280, 860)
	checkDoctorCommand(s, eval[string](p, card+`.querySelector("code").innerText`))
	p.Clean(true)
}

// checkDoctorCommand runs a command of the page in a folder as the binary is released in.
func checkDoctorCommand(s *server, command string) {
	s.t.Helper()
	folder := s.t.TempDir()
	for name, target := range map[string]string{"pocketriver": s.binary, "pb_data": s.Dir} {
		if err := os.Symlink(target, filepath.Join(folder, name)); err != nil {
			s.t.Fatal(err)
		}
	}
	shell := exec.CommandContext(s.t.Context(), "sh", "-c", command)
	shell.Dir, shell.Env = folder, s.env
	out, _ := shell.CombinedOutput() // it fails, as ModelRiver cannot be reached from here
	for _, want := range []string{"ok       secret       1 webhook secret", "ok       webhook"} {
		if !strings.Contains(string(out), want) {
			s.t.Errorf("%s: lacks %q:\n%s", command, want, out)
		}
	}
}

// Each reason is told in words. The last ones are told in detail, whatever strangers send.
func TestDashboardListsRejections(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "")
	s.Superuser()
	signature := func(body string) http.Header { return http.Header{"Mr-Signature": {sign(testSecret, body)}} }
	evil := http.Header{"User-Agent": {`<img src=x onerror="document.title='evil'">` + strings.Repeat("x", 100)}}
	compressed := signature("{}")
	compressed.Set("Content-Encoding", "gzip")
	for _, row := range []struct {
		header http.Header
		body   string
		want   int
	}{
		{evil, "{}", 401}, {evil, "{}", 401}, {compressed, "{}", 415}, {signature("[]"), "[]", 400}, {nil, strings.Repeat(" ", 6<<20), 413},
	} {
		if got, answer := postWebhook(t, s, row.header, row.body); got != row.want {
			t.Fatalf("webhook: got %d %s, want %d", got, answer, row.want)
		}
	}
	s.sendUnsigned()

	p := openDashboard(t, s)
	p.Wait(card + `.querySelectorAll(".modelriver-reasons > li").length === 5`)
	text := eval[string](p, card+`.querySelector(".modelriver-reasons").innerText`)
	for _, want := range []string{
		"There is no signature – 2 in the last 24 hours", "The signature is wrong – 1", "The payload is compressed – 1",
		"The payload is not a JSON object – 1", "The payload is too large – 1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the reasons lack %q: %s", want, text)
		}
	}
	if got := strings.Count(text, "What to do: "); got != 5 {
		t.Errorf("remedies: got %d, want 5: %s", got, text)
	}

	p.Type(".modelriver-rejected summary", "\r") // unfold
	p.Wait(card + `.querySelector("details").open`)
	last := eval[[]string](p, `[...`+card+`.querySelectorAll(".modelriver-latest li")].map((e) => e.innerText)`)
	if len(last) != 6 {
		t.Fatalf("in detail: got %q, want 6", last)
	}
	for i, want := range map[int]string{0: "signature scheme body", 1: "6.0 MiB", 5: "no signature scheme"} {
		if !strings.Contains(last[i], want) || !strings.Contains(last[i], "from 127.0.0.1") {
			t.Errorf("in detail: got %q, want %q", last[i], want)
		}
	}
	if !strings.Contains(last[5], "<img src=x") || eval[bool](p, `document.title === "evil" || !!`+card+`.querySelector("img")`) {
		t.Errorf("a user agent is not shown as text: %s", last[5])
	}
	checkDashboard(p, axe, "rejections-detail")

	// What is unfolded stays so when more comes.
	s.sendUnsigned()
	p.Wait(card + `.querySelectorAll(".modelriver-latest li").length === 7 && ` + card + `.querySelector("details").open`)
	p.Clean(true)
}

// What is over is no alarm.
func TestDashboardCalmsDownAfterAnHour(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "")
	token := s.Superuser()
	hour := time.Now().UTC().Truncate(time.Hour).Add(-3 * time.Hour)
	s.API(token, http.MethodPost, "/api/collections/modelriverRejections/records", map[string]any{
		"hour": hour, "reason": "stale", "count": 4, "last": hour.Add(time.Minute), "error": "the timestamp is too far", "remedy": "set this machine's clock",
	}, nil)
	p := openTab(t, "about:blank")
	// It is about noon for who looks, so that three hours ago is today.
	callDevTools(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: fmt.Sprintf("Etc/GMT%+d", time.Now().UTC().Hour()-12)})
	signInToDashboard(p, s)
	p.Wait(card + `.matches(".alert.warning") && ` + card + `.innerText.includes("4 webhooks were rejected today, none in the last hour")`)
	p.Wait(card + `.innerText.includes("The timestamp is too far from this server's clock – 4 in the last 24 hours")`)
	checkDashboard(p, axe, "rejections-over")
	p.Clean(true)
}

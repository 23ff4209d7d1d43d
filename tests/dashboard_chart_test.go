package tests

import (
	"fmt"
	"net/http"
	"testing"
)

// countPlots makes the tab count what is drawn and not yet destroyed, in the global drawn.
const countPlots = `{
	const { uPlot } = window;
	window.drawn = 0;
	window.uPlot = Object.assign(function (...args) {
		const plot = new uPlot(...args), { destroy } = plot;
		drawn++;
		plot.destroy = () => { drawn--; destroy(); };
		return plot;
	}, uPlot);
	0
}`

// numbers is the JavaScript expression of the chart's table where it is not empty.
const numbers = `[...document.querySelectorAll(".modelriver-numbers tbody tr")].map((e) => e.innerText.split("\t").slice(1).join(" ")).filter((row) => row !== "0 0 0 – –").join("; ")`

// painted is the JavaScript expression of whether the canvases of both figures have the
// colours of their legends.
const painted = `[...document.querySelectorAll(".modelriver-plots figure")].every((figure) => {
	const canvas = figure.querySelector("canvas");
	const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
	return [...figure.querySelectorAll(".modelriver-swatch")].every((swatch) => {
		const one = document.createElement("canvas").getContext("2d");
		one.fillStyle = getComputedStyle(swatch).backgroundColor;
		one.fillRect(0, 0, 1, 1);
		const [r, g, b, a] = one.getImageData(0, 0, 1, 1).data;
		for (let i = 0; i < pixels.length; i += 4) {
			if (Math.abs(pixels[i] - r) + Math.abs(pixels[i + 1] - g) + Math.abs(pixels[i + 2] - b) + Math.abs(pixels[i + 3] - a) < 8) return true;
		}
	});
})`

// The chart is drawn in the theme's colours and has its numbers as a table. It fits, and
// leaves nothing behind.
func TestDashboardDrawsWhatHappened(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	modelriver := answersByPath(t)
	s := startServer(t, "")
	token := s.Superuser()
	p := openDashboard(t, s)
	p.Wait(`document.querySelector(".modelriver-nothing")?.innerText === "Nothing yet: no webhook came in the last 24 hours."`)
	if eval[bool](p, `document.querySelector(".modelriver-plots").checkVisibility() || document.querySelector(".modelriver-chart details").checkVisibility()`) {
		t.Error("an empty chart is shown")
	}
	p.Click(`a[href="#/logs"]`)
	p.Wait(`!document.querySelector(".modelriver")`)
	eval[any](p, countPlots)

	// One is slow, or the median's point might lie under the 95th percentile's.
	for _, channel := range []string{"accepted", "accepted-slow", "refused"} {
		s.mustSend(payload(channel, "Title "+channel, callbackURL(modelriver, channel)))
	}
	s.sendUnsigned()
	await(t, "two callbacks are delivered", func() bool {
		var stats struct{ Delivered int }
		s.API(token, http.MethodGet, "/api/modelriver/stats", nil, &stats)
		return stats.Delivered == 2
	})
	p.Click(`a[href="#/modelriver"]`)
	p.Wait(`document.querySelectorAll(".modelriver-plots canvas").length === 2 && drawn === 2`)
	p.Type(".modelriver-chart summary", "\r")
	p.Wait(`document.querySelectorAll(".modelriver-numbers tbody tr").length === 24`)
	p.Wait(`/^3 1 1 [\d.]+ m?s [\d.]+ m?s$/.test(` + numbers + `)`)
	p.Wait(`document.querySelector(".modelriver-legend").innerText.replace(/\s+/g, " ") === "Received 3 Failed 1 Rejected 1"`)
	for _, scheme := range []string{"dark", "light"} {
		p.Media("prefers-color-scheme", scheme)
		p.Wait(`document.documentElement.dataset.colorScheme === "` + scheme + `"`)
		p.Wait(painted)
	}
	checkDashboard(p, axe, "chart")

	// The bucket under the pointer is told.
	eval[any](p, `{
		const over = document.querySelector(".modelriver-plots .u-over"), { left, top, width, height } = over.getBoundingClientRect();
		over.dispatchEvent(new MouseEvent("mousemove", { clientX: left + width / 2, clientY: top + height / 2, bubbles: true }));
		0
	}`)
	p.Wait(`document.querySelector(".modelriver-legend").innerText.replace(/\s+/g, " ") === "Received 0 Failed 0 Rejected 0"`)

	checkSpans(p)
	for _, width := range []int64{320, 1280} {
		p.Size(width, 860)
		p.Wait(`[...document.querySelectorAll(".modelriver-plot")].every((e) => e.clientWidth > 200 && Math.abs(e.querySelector("canvas").getBoundingClientRect().width - e.clientWidth) < 2)`)
	}
	p.Click(`a[href="#/logs"]`)
	p.Wait(`!document.querySelector(".modelriver") && drawn <= 1`) // the logs have one of their own
	p.Clean(true)
}

// checkSpans switches to 7 days with the keyboard, which is remembered.
func checkSpans(p *tab) {
	p.t.Helper()
	const week = `.modelriver-chart header button:last-child`
	p.Type(week, " ")
	p.Wait(`document.querySelectorAll(".modelriver-numbers tbody tr").length === 28 && /^3 1 1 /.test(` + numbers + `)`)
	p.Wait(`document.querySelector("` + week + `").ariaPressed === "true" && document.querySelector(".modelriver-chart h2").innerText === "The last 7 days"`)
	p.Click(`a[href="#/logs"]`)
	p.Wait(`!document.querySelector(".modelriver")`)
	p.Click(`a[href="#/modelriver"]`)
	p.Wait(`document.querySelector(".modelriver-chart h2")?.innerText === "The last 7 days" && drawn === 2`)
}

// Nothing is asked for a page that nobody sees, and not more often than told for one that is seen.
func TestDashboardAsksForTheChartSparingly(t *testing.T) {
	t.Parallel()
	const question = "GET /api/modelriver/chart"
	s := startServer(t, "")
	s.Superuser()
	p := openDashboard(t, s)
	p.Wait(`document.querySelector(".modelriver-nothing")`)
	for i := range 4 {
		s.mustSend(payload(fmt.Sprint("c", i), "Title", ""))
		p.Wait(figure("Stored today") + fmt.Sprintf(` === "%d"`, i+1)) // the figures were told
	}
	before := p.Requests(question)
	if before > 3 { // of which the last may be due to the pause of ten seconds
		t.Errorf("requests for the chart: got %d, want no more than one in ten seconds", before)
	}
	p.Wait(`document.querySelector(".modelriver-legend").innerText.replace(/\s+/g, " ").startsWith("Received 4 ")`)

	front := p.openFront("about:blank") // hides the page
	p.Wait("document.hidden")
	before = p.Requests(question)
	s.mustSend(payload("hidden", "Title", ""))
	front.Wait(`new Promise((done) => setTimeout(() => done(true), 11_000))`)
	if got := p.Requests(question); got != before {
		t.Errorf("requests for the chart of a hidden page: got %d, want none", got-before)
	}
	p.Show()
	p.Wait(`document.querySelector(".modelriver-legend").innerText.replace(/\s+/g, " ").startsWith("Received 5 ")`)
	p.Clean(true)
}

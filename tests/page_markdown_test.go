package tests

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/security"
)

// article is Markdown as models write it; its verb is the address of a site with images.
const article = "## Why rivers **bend**\n\nWater at the *outside* is faster; see [the source](https://example.com/a?b=1&c=2), https://example.com/bare\nor [write](mailto:a@example.com).\n\n" +
	"#### What it takes\n\n1. a slope\n2. soft ground\n   - clay\n   - sand\n\n### In code\n\n```go style=\"color:red\"\nfor water.Flows() {\n\tbend()\n}\n```\n\n" +
	"| Bend | Width | Note |\n|:--|--:|:-:|\n| first | 10 m | `slow` |\n| second | 200 m | fast |\n\n> A river never goes the same way twice.\n\n---\n\n" +
	"![A map](%[1]s/map.png) and [![A photo](%[1]s/photo.png)](https://example.com/photos)\n\nHTML is text: <b id=\"feed\">bold</b><script>alert(1)</script>\n"

// startImages serves images over https, which the tab takes, and counts who asks for them.
func startImages(p *tab) (address string, requests *atomic.Int32) {
	requests = new(atomic.Int32)
	image, _ := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
	images := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Referer() != "" || r.Header.Get("Cookie") != "" {
			p.t.Errorf("the images' site learns %q, %q", r.Referer(), r.Header.Get("Cookie"))
		}
		if strings.HasSuffix(r.URL.Path, ".png") {
			w.Write(image)
		} else {
			w.WriteHeader(404)
		}
	}))
	p.t.Cleanup(images.Close)
	callDevTools(p, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true})
	return images.URL, requests
}

// answer is a webhook whose data is JSON.
func answer(channel string, data any) []byte {
	raw, _ := json.Marshal(data)
	return fmt.Appendf(nil, `{"type":"task.ai_generated","event":"new_content","channel_id":%q,"ai_response":{"data":%s},"customer_data":{"category":"stories"}}`, channel, raw)
}

// expect checks the values of JavaScript expressions.
func (p *tab) expect(want map[string]string) {
	p.t.Helper()
	for expression, value := range want {
		if got := eval[string](p, "String("+expression+")"); got != value {
			p.t.Errorf("%s: got %q, want %q", expression, got, value)
		}
	}
}

func TestPageShowsMarkdown(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	images, requests := startImages(p)
	s.Send(answer("c1", map[string]any{"title": "Rivers", "body": fmt.Sprintf(article, images)}))
	p.Wait(pageTitles + `.join() === "Rivers"`)

	// Folded, nothing unseen takes the focus; unfolded, all of it is there.
	p.expect(map[string]string{
		`document.querySelector("[aria-expanded]").textContent`:                     "Show all",
		`document.querySelectorAll(".body :is(a, button)").length`:                  "3",
		`document.querySelector(".body").textContent.includes("never goes")`:        "false",
		`[...document.querySelectorAll(".body :is(h3, h4)")].map((h) => h.tagName)`: "H3,H4",
	})
	p.Screenshot("markdown-folded")
	p.Type("[aria-expanded]", "\r")
	p.Wait(`document.querySelector(".body table")`)
	p.expect(map[string]string{
		`[...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")].map((h) => h.tagName)`:                 "H2,H3,H4,H4",
		`document.querySelector(".body h3").innerHTML`:                                                                "Why rivers <strong>bend</strong>",
		`[...document.querySelectorAll(".body a")].map((a) => [a.getAttribute("href"), a.rel, a.target].join(" "))`:   strings.Join([]string{"https://example.com/a?b=1&c=2 noopener noreferrer _blank", "https://example.com/bare noopener noreferrer _blank", "mailto:a@example.com noopener noreferrer _blank", "https://example.com/photos noopener noreferrer _blank"}, ","),
		`document.querySelector(".body ol > li:last-child li:last-child").textContent`:                                "sand",
		`document.querySelector(".body pre code").textContent`:                                                        "for water.Flows() {\n\tbend()\n}\n",
		`[...document.querySelectorAll(".body tr:last-child td")].map((cell) => getComputedStyle(cell).textAlign)`:    "left,right,center",
		`document.querySelector(".body blockquote").innerText`:                                                        "A river never goes the same way twice.",
		`document.querySelector(".body").innerText.includes('<b id="feed">bold</b><script>alert(1)</script>')`:        "true",
		`document.querySelectorAll(".body :is(b, img, script, [id], [name], [style], pre [class], a button)").length`: "0",
	})

	checkImages(p, images, requests)

	// An update keeps what the reader chose, where they are, and the focus.
	token := s.Superuser()
	id := s.onlyRecord(token)
	eval[bool](p, `(scrollTo(0, 300), document.querySelector("[aria-pressed]").focus({ preventScroll: true }), true)`)
	s.update(token, id, map[string]any{"body": fmt.Sprintf(article, images) + "\nOne more line."})
	p.Wait(`document.querySelector(".body").textContent.includes("One more line.")`)
	p.expect(map[string]string{
		`scrollY`:                                 "300",
		`document.activeElement.textContent`:      "Plain text",
		`document.querySelector(".body img").alt`: `image “A map” from ` + strings.TrimPrefix(images, "https://"),
	})

	// As it was written.
	p.Click("[aria-pressed]")
	p.Wait(`document.querySelector(".body").textContent.startsWith("## Why rivers **bend**\n\nWater")`)
	s.update(token, id, map[string]any{"title": "Streams"})
	p.Wait(pageTitles + `.join() === "Streams"`)
	p.expect(map[string]string{
		`document.querySelector(".body").children.length`:              "0",
		`document.querySelector("[aria-pressed]").ariaPressed`:         "true",
		`document.querySelector("[aria-expanded]").ariaExpanded`:       "true",
		`getComputedStyle(document.querySelector(".body")).whiteSpace`: "pre-wrap",
	})
	p.Click("[aria-pressed]")
	p.Wait(`document.querySelector(".body table")`)

	// Of a long text, what is folded is not even rendered.
	s.update(token, id, map[string]any{"body": "[a][link] " + strings.Repeat("*word* ", 2000) + "**end**\n\n[link]: https://example.com/"})
	p.Wait(`document.querySelector(".body strong")?.textContent === "end" && document.querySelector(".body a")`)
	p.Type("[aria-expanded]", "\r")
	p.Wait(`document.querySelector(".body").textContent.length < 700 && document.querySelector(".body em")`)
	p.expect(map[string]string{`document.querySelectorAll(".body a").length`: "0"}) // the address is further down
	p.Type("[aria-expanded]", "\r")
	p.Wait(`document.querySelector(".body strong")`)

	// What reads as it is written has no switch.
	s.update(token, id, map[string]any{"body": "One line,\nand one more.\n\nThe end."})
	p.Wait(`document.querySelector(".body").innerText === "One line,\nand one more.\n\nThe end."`)
	p.expect(map[string]string{`document.querySelectorAll("[aria-pressed]").length`: "0"})
	p.Clean(false) // an image was not there
}

// checkImages looks that images are loaded on a click, and only then.
func checkImages(p *tab, site string, requests *atomic.Int32) {
	p.t.Helper()
	host := strings.TrimPrefix(site, "https://")
	p.expect(map[string]string{`[...document.querySelectorAll(".body .image")].map((button) => button.textContent)`: fmt.Sprintf("Show image “A map” from %[1]s,Show image “A photo” from %[1]s", host)})
	if n := requests.Load(); n != 0 {
		p.t.Errorf("requests to the images' site before a click: got %d, want 0", n)
	}
	p.Type(".body .image", "\r")
	p.Wait(`document.querySelector(".body img")?.naturalWidth === 1 && document.activeElement.tagName === "IMG"`)
	if n := requests.Load(); n != 1 {
		p.t.Errorf("requests to the images' site after a click: got %d, want 1", n)
	}
}

// onlyRecord returns the id of the one record of content.
func (s *server) onlyRecord(token string) string {
	s.t.Helper()
	var list struct{ Items []struct{ ID string } }
	s.API(token, http.MethodGet, contentRecords, nil, &list)
	if len(list.Items) != 1 {
		s.t.Fatalf("records: got %d, want 1", len(list.Items))
	}
	return list.Items[0].ID
}

// Data without a text is a list or a table; as JSON it is exact.
func TestPageShowsStructuredData(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	images, requests := startImages(p)
	many := make([]int, 500)
	s.Send(answer("c1", map[string]any{
		"title": "A review", "score": json.Number("9007199254740993"), "image_url": images + "/cover", "site": "https://example.com/", "evil": "javascript:alert(1)",
		"people": []map[string]any{{"name": "Ann", "age": 30}, {"name": "<b>Bob</b>", "constructor": nil}}, "tags": []string{"x", "**y**"},
		"deep": map[string]any{"a": map[string]any{"b": map[string]any{"c": map[string]any{"d": 1}}}}, "zeros": many,
	}))
	p.Wait(pageTitles + `.join() === "A review"`)
	p.Click("[aria-expanded]")
	p.Wait(`document.querySelector("[aria-expanded]").ariaExpanded === "true"`)
	p.expect(map[string]string{
		`[...document.querySelectorAll(".body > dl > div > dt")].map((name) => name.textContent)`:                     "deep,evil,image url,people,score,site,tags,zeros",
		`[...document.querySelectorAll(".body tr")].map((row) => [...row.cells].map((c) => c.textContent).join("|"))`: "age|name|constructor,30|Ann|–,–|<b>Bob</b>|–",
		`document.querySelector(".body").innerText.includes("1 more in Data")`:                                        "true",
		`/\d+ more in Data$/.test(document.querySelector(".body").innerText.trim())`:                                  "true",
		`document.querySelectorAll(".body li").length < 200`:                                                          "true",
		`document.querySelector(".body").innerText.includes("≈ 9007199254740992")`:                                    "true",
		`[...document.querySelectorAll(".body a")].map((a) => a.href + " " + a.rel)`:                                  "https://example.com/ noopener noreferrer",
		`document.querySelectorAll(".body :is(b, strong, img)").length`:                                               "0",
	})
	p.Click(".body .image")
	p.Wait(`document.querySelector(".body .image")?.textContent.startsWith("Not loaded: ")`)
	if n := requests.Load(); n != 1 {
		t.Errorf("requests to the images' site: got %d, want 1", n)
	}
	p.Click("[aria-pressed]")
	p.Wait(`document.querySelector(".body").textContent.includes('"score": 9007199254740993')`)
	p.expect(map[string]string{
		`JSON.parse(document.querySelector(".body").textContent).zeros.length`: "500",
		`document.querySelector("[aria-pressed]").textContent`:                 "JSON",
	})

	// In the data of any row an image is loaded on a click too.
	p.Click(".data summary")
	p.Wait(`document.querySelector(".data details")`)
	p.Click(".data details summary")
	p.Wait(`document.querySelector(".data .image")`)
	p.Click(".data .image")
	p.Wait(`document.querySelector(".data .image")?.textContent.startsWith("Not loaded: ")`)
	p.Clean(false) // the image is not there
}

// TestPageMarkdownIsAccessible runs axe on Markdown and data.
func TestPageMarkdownIsAccessible(t *testing.T) {
	t.Parallel()
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js") // of npm ci
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	s.Send(answer("c1", map[string]any{"title": "A review", "score": 4.5, "image_url": "https://images.example/cover.png", "people": []map[string]any{{"name": "Ann", "age": 30}, {"name": "Bob", "age": 41}},
		"tags": []string{"x", "y"}, "where": map[string]any{"city": "Bonn", "river": map[string]any{"name": "Rhine", "km": 655}}}))
	wide := "|" + strings.Repeat(" a wide column |", 12) + "\n|" + strings.Repeat("-|", 12) + "\n|" + strings.Repeat(" word |", 12) + "\n"
	s.Send(answer("c2", map[string]any{"title": "Rivers", "body": fmt.Sprintf(article, "https://images.example") + wide}))
	p.Wait(`document.querySelectorAll("#feed > li").length === 2`)
	checkPage(p, axe, "markdown-folded")
	eval[bool](p, `(document.querySelectorAll("[aria-expanded=false]:not([hidden])").forEach((fold) => fold.click()), true)`)
	p.Wait(`document.querySelectorAll(".body table").length === 3`)
	checkPage(p, axe, "markdown")
	eval[bool](p, `(document.querySelector("#feed > li:last-child").scrollIntoView(), true)`)
	checkPage(p, axe, "data")
	eval[bool](p, `(document.querySelectorAll("[aria-pressed]").forEach((plain) => plain.click()), true)`)
	checkPage(p, axe, "markdown-plain")

	// On a wide screen the pane has had the first of them only.
	eval[bool](p, `(document.querySelector("#feed > li:last-child h2 a").click(), true)`)
	p.Wait(`document.querySelector("#reading dl")`)
	checkPage(p, axe, "data-open")
	p.Clean(true)
}

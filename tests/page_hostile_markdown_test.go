package tests

import (
	"encoding/json"
	"strings"
	"testing"
)

// pageRenders has render(text) of the page's module, and strange(nodes): what of them is
// not the page's to show.
const pageRenders = `import("./markdown.js").then((module) => {
	const attributes = { A: ["href", "target", "rel"], BUTTON: ["type", "class", "data-src"], OL: ["start"], TD: ["class"], TH: ["class"],
		DIV: ["tabindex", "role", "class", "aria-label"] };
	const tags = "A BLOCKQUOTE BR BUTTON CODE DIV EM H3 H4 H5 H6 HR LI OL P PRE S STRONG TABLE TBODY TD TH THEAD TR UL".split(" ");
	const classes = ["wide", "image", "left", "right", "center"];
	window.render = module.render;
	window.strange = (nodes) => [...nodes.querySelectorAll("*")].flatMap((node) => [
		!tags.includes(node.nodeName) && node.nodeName,
		...[...node.attributes].map(({ name, value }) => !attributes[node.nodeName]?.includes(name) && node.nodeName + " " + name + "=" + value),
		node.nodeName === "A" && !["http:", "https:", "mailto:"].includes(node.protocol) && node.href,
		node.nodeName === "BUTTON" && new URL(node.dataset.src).protocol !== "https:" && node.dataset.src,
		...[...node.classList].map((name) => !classes.includes(name) && name),
	]).filter(Boolean).join("; ");
	return true;
})`

// Whatever a model writes, its Markdown becomes nothing but text, and links that lead away.
func TestPageIsSafeFromMarkdown(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	eval[bool](p, pageRenders)
	for _, row := range []struct{ text, want string }{ // want is what is in the HTML; "" is none of a, button
		{"[a](javascript:alert(1))", ""},
		{"[a](JaVaScRiPt:alert(1))", ""},
		{"[a](java&#115;cript:alert(1))", ""},
		{"[a](java\tscript:alert(1)) [b](<java\nscript:alert(1)>)", ""},
		{"[a](\x01javascript:alert(1)) [b](&#1;javascript:alert(1))", ""},
		{"[a](vbscript:x) [b](file:///etc/passwd) [c](blob:x) [d](ftp://a.b/c) [e](tel:1)", ""},
		{"[a](data:text/html;base64,PHNjcmlwdD4=) ![b](data:image/svg+xml;base64,PHN2Zz4=) ![c](data:image/png;base64,AAAA)", ""},
		{"[a](/_/#/settings) [b](?channel=x) [c](//evil.example) [d](#feed) [e](https:evil)", ""},
		{"<javascript:alert(1)> <https://example.com/>", `<a href="https://example.com/"`},
		{"[a][b]\n\n[b]: javascript:alert(1)", ""},
		{`[a](https://example.com/"onclick="alert(1)) [b](https://x.y "a\" onclick=alert(1) x=\"")`, `<a href="https://example.com/%22onclick=%22alert(1)"`},
		{"[a](https://example.com/){onclick=alert(1) #feed .main}", `<a href="https://example.com/"`},
		{`![a"onerror="alert(1)](https://x.y/z"onerror="alert(1).png)`, `data-src="https://x.y/z%22onerror=%22alert(1).png"`},
		{"![a](http://x.y/z.png) ![b](javascript:alert(1)) ![c](https://[)", ""},
		{"[![a](https://x.y/z.png)](javascript:alert(1))", `<button type="button" class="image"`},
		{"<img src=x onerror=alert(1)><svg><style><img src=x onerror=alert(1)></style></svg>", ""},
		{"<form id=feed><input name=q><a id=location name=location href=javascript:alert(1)>", ""},
		{"<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">", ""},
		{"<!-- --><![CDATA[<b>]]><?php ?><!DOCTYPE html><base href=//evil.example>", ""},
		{"# <h1 id=x>\n\n- <b>\n\n> <i>\n\n`<u>`\n\n|<a>|<b>|\n|-|-|\n|<c>|<d>|", ""},
		{"# feed\n\n## location\n\n# __proto__\n\n[x]: # (comment)\n\n[^1]: note", ""},
		{"```\" onclick=\"alert(1)\n<b>\n```\n\n~~~main image\nx\n~~~", ""},
		{"|a|\n|:-:|\n|b|\n\n99999999. x", ""},
		{"a\u202Eb\u2066c \u0000 \ufeff \ud7ff", ""},
	} {
		text, _ := json.Marshal(row.text)
		html := eval[string](p, `(window.nodes = render(`+string(text)+`), ((div) => (div.append(nodes), strange(div) || div.innerHTML))(document.createElement("div")))`)
		if !strings.HasPrefix(html, "<") || !strings.Contains(html, row.want) || (row.want == "" && strings.Contains(html, "<a")) || (row.want == "" && strings.Contains(html, "<button")) {
			t.Errorf("%s: got %s, want %q", row.text, html, row.want)
		}
	}
	p.Clean(true)

	// The second line of defence is there, and holds alone.
	if got := eval[string](p, `Promise.all([import("./vendor/purify.es.mjs"), import("./markdown.js")]).then(([{ default: DOMPurify }, { ALLOWED }]) => {
		let asked = false;
		DOMPurify.addHook("beforeSanitizeElements", () => { asked = true; });
		render("a");
		if (!asked) return "render does not sanitise";
		const nodes = DOMPurify.sanitize('<img src=x onerror=alert(1)><p id=feed name=q style="color:red" onclick=alert(1)><a href="javascript:alert(1)">a</a><form><input name=q></form><a href="/x">b</a>', ALLOWED);
		return nodes.querySelectorAll("img, form, input, [id], [name], [style], [onclick], [href]").length + nodes.textContent;
	})`); got != "0ab" {
		t.Errorf("sanitised: got %q", got)
	}
}

// No text of a model keeps the page busy for long, nor does it break it.
func TestPageRendersHugeMarkdown(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	p := openFeed(t, s.URL)
	eval[bool](p, pageRenders)
	took := eval[map[string]int](p, `((most) => {
		const fill = (text, n = most) => text.repeat(Math.ceil(n / text.length)).slice(0, n);
		const up = (make) => { let text = ""; for (let i = 1; text.length < most; i++) text += make(i); return text.slice(0, most); };
		const texts = Object.fromEntries(["[", "![", "[a](", "[[]]", "*", "*a ", "**a *b ", "a**b", "_", "*_", "~~a", "`+"`"+`", "> ", ">", "- ", "1. ", "<", "<a ", "&", "https://a ", "https://a.", "mailto:a@", "|", "#", "# a\n",
			"`+"```"+`\n", "a\n", "\n", "[a]: b\n", "![a](https://a/b)", "|a|b|\n|-|-|\n"].map((text) => [text, fill(text)]));
		texts.backticks = up((i) => "`+"`"+`".repeat(i) + " ");
		texts.deep = up((i) => " ".repeat(2 * i) + "- a\n");
		texts.nested = fill("*a **b ", most / 2) + fill("** c* ", most / 2);
		texts.wide = fill("|a", most / 3) + "|\n" + fill("|-", most / 3) + "|\n" + fill("|\n", most / 3);
		texts.tables = fill(fill("|a", 200) + "|\n" + fill("|-", 200) + "|\n" + fill("|\n", 800) + "\n");
		const took = {};
		for (const [name, text] of Object.entries(texts)) {
			const from = performance.now();
			const nodes = render(text);
			if (nodes) {
				const div = document.createElement("div");
				div.append(nodes);
				if (strange(div)) throw name + ": " + strange(div);
				document.body.append(div);
				div.offsetHeight;
				div.remove();
			}
			took[name] = Math.round(performance.now() - from);
		}
		const from = performance.now();
		for (const text of Object.keys(texts)) if (render(fill(text, 200_000)) !== null) throw text + ": 200 KB are rendered";
		took["all of 200 KB"] = Math.round(performance.now() - from);
		return took;
	})(20_000)`)
	for name, milliseconds := range took {
		if milliseconds > 50 {
			t.Logf("%q: %d ms", name, milliseconds)
		}
		if milliseconds > 5000 { // 2,000 at most on a busy machine
			t.Errorf("%q: took %d ms", name, milliseconds)
		}
	}
	// As it is written, and folded.
	for _, character := range []string{"[", "*", "`"} {
		s.Send(answer("c"+character, map[string]any{"title": "Huge " + character, "body": strings.Repeat(character, 200_000)}))
		p.Wait(pageTitles + `[0] === "Huge ` + character + `"`)
		p.expect(map[string]string{
			`document.querySelector(".body").textContent`:                               strings.Repeat(character, 600) + " …",
			`document.querySelector(".tools").innerText.includes("Too long to format")`: "true",
		})
	}
	p.Click("[aria-expanded]")
	p.Wait(`document.querySelector(".body").textContent.length === 200_000`)
	p.Clean(true)
}

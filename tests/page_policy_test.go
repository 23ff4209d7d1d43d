package tests

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// contentPolicy lets the page load and call nothing but its own server.
const contentPolicy = "default-src 'self'; img-src 'self' data: https:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func TestPageIsServedWithAContentPolicy(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	for path, page := range map[string]bool{
		"/": true, "/feed.js": true, "/data.js": true, "/markdown.js": true, "/live-query.js": true, "/live-stream.js": true, "/style.css": true, "/vendor/pocketbase.es.mjs": true, "/vendor/purify.es.mjs": true, "/vendor/licenses.txt": true,
		"/any/path": true, "/_/": false, "/api/health": false,
	} {
		response, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		got := response.Header.Get("Content-Security-Policy")
		if response.StatusCode != 200 || (got == contentPolicy) != page {
			t.Errorf("%s: got %s with policy %q, want the page's: %t", path, response.Status, got, page)
		}
	}

	// It is obeyed because it is enforced: what it forbids does not run.
	p := openFeed(t, s.URL)
	eval[bool](p, `new Promise((resolve) => {
		document.addEventListener("securitypolicyviolation", () => resolve(true), { once: true });
		document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
	})`)
	if eval[bool](p, "!!window.ran") {
		t.Error("an inline script ran")
	}
}

// Whose code the page loads is said with it.
func TestPageHasTheLicences(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	response, err := http.Get(s.URL + "/vendor/licenses.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	licences, err := io.ReadAll(response.Body)
	for _, name := range []string{"pocketbase", "markdown-it", "entities", "linkify-it", "mdurl", "punycode.js", "uc.micro", "dompurify"} {
		if !strings.Contains(string(licences), "==> "+name+"/LICENSE") {
			t.Errorf("%s: no licence in %.100s (%v)", name, licences, err)
		}
	}
}

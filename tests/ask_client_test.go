package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asked runs ask in the harness and returns what came of it, in one word and a text.
func (p *tab) asked(waiting string) [2]string {
	p.t.Helper()
	return eval[[2]string](p, fmt.Sprintf(`import("/ask.js").then(({ ask, AskError }) => ask(pb,
		{ workflow: "story", input: { messages: [{ role: "user", content: "Why?" }] } }, %s).then(
			(answer) => ["answered", answer.title],
			(err) => [err instanceof AskError ? "failed as " + err.request.state : err.name, err.message]))`, waiting))
}

func TestAskInAPage(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t, "--delay", "500ms", "--fail", "error:every=2")
	token := s.Superuser()
	s.user(token, "ann@example.com")
	p := openHarness(t, s.URL)
	check := func(name string, got, want [2]string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	check("a guest", p.asked("{}"), [2]string{"ClientResponseError 400", "Failed to create record."})
	p.SignIn("ann@example.com", testPassword)
	eval[bool](p, `(window.states = [], true)`)
	check("answered", p.asked(`{ onRequest: ({ state }) => states.push(state) }`), [2]string{"answered", "Why?"})
	if got := eval[string](p, `[...new Set(states)].join()`); got != "queued,sent,answered" && got != "queued,answered" {
		t.Errorf("states: got %s", got)
	}
	check("failed", p.asked("{}"), [2]string{"failed as failed", "All providers of the workflow failed. The simulator says so because it was asked to; nothing is broken."})
	check("aborted before", p.asked(`{ signal: AbortSignal.abort(new Error("left")) }`), [2]string{"Error", "left"})
	got := p.asked(`{ timeout: 100 }`)
	if got[1] != "No answer came in time. It may still come." {
		t.Errorf("too late: got %q", got)
	}
	check("failed again", p.asked("{}"), [2]string{"failed as failed", "All providers of the workflow failed. The simulator says so because it was asked to; nothing is broken."})
	check("aborted", p.asked(`(() => { const left = new AbortController(); return { signal: left.signal, onRequest: () => setTimeout(() => left.abort(new Error("left"))) }; })()`),
		[2]string{"Error", "left"})
	p.StreamEnded()
}

// Who asks gets the answer although requests or onRequest fail on the way, and waits as long as they want.
func TestAskOutlivesFailures(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t, "--delay", "100ms")
	s.user(s.Superuser(), "ann@example.com")
	p := openHarness(t, s.URL)
	p.SignIn("ann@example.com", testPassword)
	eval[bool](p, `(window.tried = new Set(), window.create = true, window.fetch = ((fetch) => async (url, options) => {
		const { pathname } = new URL(url);
		if (options.method === "GET" && !tried.has(pathname)) {
			tried.add(pathname);
			throw new TypeError("The network fails");
		}
		if (options.method === "POST" && pathname.includes("aiRequests") && !create) await new Promise((_, reject) =>
			options.signal?.addEventListener("abort", () => reject(options.signal.reason)));
		return fetch(url, options);
	})(fetch), true)`)
	for _, waiting := range []string{"{}", "{ timeout: Infinity }"} {
		if got, want := p.asked(waiting), [2]string{"answered", "Why?"}; got != want {
			t.Errorf("%s: got %q, want %q", waiting, got, want)
		}
	}
	// onRequest may fail, and may end the waiting.
	got := p.asked(`{ timeout: 10_000, onRequest: ({ state }) => { if (state === "answered") throw new Error("The page fails"); } }`)
	if want := [2]string{"answered", "Why?"}; got != want {
		t.Errorf("with an onRequest that fails: got %q, want %q", got, want)
	}
	got = p.asked(`(() => { const left = new AbortController(); return { signal: left.signal, onRequest: () => left.abort(new Error("left")) }; })()`)
	if want := [2]string{"Error", "left"}; got != want {
		t.Errorf("aborted by onRequest: got %q, want %q", got, want)
	}
	eval[bool](p, `!(create = false)`) // the server does not answer at all
	got = p.asked(`(() => { const left = new AbortController(); setTimeout(() => left.abort(new Error("left"))); return { signal: left.signal }; })()`)
	if want := [2]string{"Error", "left"}; got != want {
		t.Errorf("aborted while the request is created: got %q, want %q", got, want)
	}
}

// Where no answer could be heard, nothing is asked: it costs money.
func TestAskInNode(t *testing.T) {
	t.Parallel()
	s, _ := startAsking(t)
	token := s.Superuser()
	s.user(token, "ann@example.com")
	folder := filepath.Join(repository, "pb_public")
	script := filepath.Join(t.TempDir(), "ask.mjs")
	text := fmt.Sprintf(`
		import PocketBase from %q;
		import { ask } from %q;
		const pb = new PocketBase(%q);
		await pb.collection("users").authWithPassword("ann@example.com", %q);
		await ask(pb, { workflow: "story", input: { messages: [] } }).catch((err) => console.log(err.message));`,
		"file://"+folder+"/vendor/pocketbase.es.mjs", "file://"+folder+"/ask.js", s.URL, testPassword)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("node", "--no-warnings", script).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "npm install eventsource") {
		t.Errorf("got %s (%v), want the remedy", out, err)
	}
	var list struct{ TotalItems int }
	s.API(token, "GET", "/api/collections/aiRequests/records", nil, &list)
	if list.TotalItems != 0 {
		t.Errorf("got %d requests, want none", list.TotalItems)
	}
}

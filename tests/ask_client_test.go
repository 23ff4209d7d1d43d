package tests

import (
	"fmt"
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

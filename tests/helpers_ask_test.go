package tests

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// startAsking returns a server whose users may ask the simulator, which runs with the given
// arguments, and what that prints.
func startAsking(t testing.TB, args ...string) (*server, *output) {
	t.Helper()
	api := freeAddress(t)
	s := startServer(t, "", "MODELRIVER_API_URL=http://"+api)
	s.API(s.Superuser(), http.MethodPatch, "/api/collections/aiRequests", map[string]any{"createRule": `@request.auth.id != ""`}, nil)

	return s, startSimulator(t, s, api, s.URL+"/webhooks/modelriver", args...)
}

// startSimulator starts the simulator on the address api with the given arguments, and returns
// what it prints. Its webhooks go to target.
func startSimulator(t testing.TB, s *server, api, target string, args ...string) *output {
	t.Helper()
	cmd := exec.Command(s.binary, append([]string{"modelriver", "simulate", "--dev=false", "--dir", t.TempDir(), "--listen", api, "--target", target}, args...)...)
	log := &output{}
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("simulator:\n%.4000s", log)
		}
	})
	await(t, "the simulator listens", func() bool { return strings.Contains(log.String(), "Webhooks go to") })
	return log
}

// PageSignIn signs in the user on the feed page.
func (p *tab) PageSignIn(email string) {
	p.t.Helper()
	p.Click("#sign")
	p.Type(`[name=identity]`, email)
	p.Type(`[name=password]`, testPassword+"\r")
	p.Wait(`document.querySelector("#sign").textContent === "Sign out"`)
}

package tests

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// A firefoxTab is a page in a real Firefox, which is driven by WebDriver BiDi.
type firefoxTab struct {
	t       testing.TB
	socket  *websocket.Conn
	context string
	calls   int
	errors  []string // of the console, and exceptions
}

// openFirefox starts a Firefox of its own, which ends with the test, and opens url.
func openFirefox(t testing.TB, url string) *firefoxTab {
	t.Helper()
	f := &firefoxTab{t: t}
	address := startFirefox(t)
	// Firefox takes a browser's page for an attacker, and so a connection with an origin but
	// the one that it was started with.
	socket, err := websocket.Dial(address+"/session", "", firefoxOrigin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	f.socket = socket
	f.call("session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	f.call("session.subscribe", map[string]any{"events": []string{"log.entryAdded"}}, nil)
	var tree struct{ Contexts []struct{ Context string } }
	f.call("browsingContext.getTree", map[string]any{}, &tree)
	f.context = tree.Contexts[0].Context
	f.navigate(url)
	return f
}

func (f *firefoxTab) navigate(url string) {
	f.t.Helper()
	f.call("browsingContext.navigate", map[string]any{"context": f.context, "url": url, "wait": "complete"}, nil)
}

// before has each page run a JavaScript function first.
func (f *firefoxTab) before(function string) {
	f.t.Helper()
	f.call("script.addPreloadScript", map[string]any{"functionDeclaration": function}, nil)
}

// newTab opens a tab in the foreground, for f.context.
func (f *firefoxTab) newTab() (context string) {
	f.t.Helper()
	var created struct{ Context string }
	f.call("browsingContext.create", map[string]any{"type": "tab"}, &created)
	return created.Context
}

const firefoxOrigin = "http://127.0.0.1"

// startFirefox returns the address where it takes connections.
func startFirefox(t testing.TB) string {
	t.Helper()
	name := "firefox-esr" // Debian's
	if _, err := exec.LookPath(name); err != nil {
		name = "firefox"
	}
	cmd := exec.Command(name, "--headless", "--no-remote", "--profile", t.TempDir(), "--remote-debugging-port", "0", "--remote-allow-origins", firefoxOrigin)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // as root it refuses another user's
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("Firefox is missing, `make tools` brings it: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	found := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() { // to the end, so that it never waits for a reader
			if _, address, ok := strings.Cut(lines.Text(), "WebDriver BiDi listening on "); ok {
				found <- address
			}
		}
	}()
	select {
	case address := <-found:
		return address
	case <-time.After(patience):
		t.Fatal("Firefox does not start")
		return ""
	}
}

// call runs a command, and decodes what it returns into result, unless that is nil.
func (f *firefoxTab) call(method string, params, result any) {
	f.t.Helper()
	f.calls++
	f.socket.SetDeadline(time.Now().Add(patience))
	if err := websocket.JSON.Send(f.socket, map[string]any{"id": f.calls, "method": method, "params": params}); err != nil {
		f.t.Fatalf("%s: %v", method, err)
	}
	for {
		var answer struct {
			ID             int
			Type, Message  string
			Result, Params json.RawMessage
		}
		if err := websocket.JSON.Receive(f.socket, &answer); err != nil {
			f.t.Fatalf("%s: %v", method, err)
		}
		if answer.Type == "event" {
			f.note(answer.Params)
			continue
		}
		if answer.Type != "success" || answer.ID != f.calls {
			f.t.Fatalf("%s: %s of %d: %s", method, answer.Type, answer.ID, answer.Message)
		}
		if result != nil {
			if err := json.Unmarshal(answer.Result, result); err != nil {
				f.t.Fatalf("%s: %v in %s", method, err, answer.Result)
			}
		}
		return
	}
}

// note keeps an entry of the log, if it is a problem.
func (f *firefoxTab) note(entry json.RawMessage) {
	var said struct{ Level, Text string }
	if json.Unmarshal(entry, &said) == nil && (said.Level == "error" || said.Level == "warn") {
		f.errors = append(f.errors, said.Text)
	}
}

// eval returns the value of a JavaScript expression as a string.
func (f *firefoxTab) eval(expression string) string {
	f.t.Helper()
	var evaluated struct {
		Type             string
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	f.call("script.evaluate", map[string]any{
		"expression": "String(" + expression + ")", "target": map[string]string{"context": f.context}, "awaitPromise": true,
	}, &evaluated)
	if evaluated.Type != "success" {
		f.t.Fatalf("%s: %s", expression, evaluated.ExceptionDetails.Text)
	}
	return evaluated.Result.Value
}

// Wait waits until the JavaScript expression is true.
func (f *firefoxTab) Wait(expression string) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); f.eval("!!("+expression+")") != "true"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("never true: %s\n%q\n%s", expression, f.errors, f.eval("document.body.innerText"))
		}
	}
}

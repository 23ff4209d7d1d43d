package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLiveQueryKeepsItsIdentity has PocketBase take the identity from the stream of a
// viewer who then signs in again, as the same person and in the same tab.
func TestLiveQueryKeepsItsIdentity(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	ann := s.user(token, "ann@example.com")
	s.create(token, "Secret of ann", "a", ann)
	email, password := "ann@example.com", testPassword

	p := openHarness(t, s.URL)
	signIn := func() {
		t.Helper()
		eval[bool](p, fmt.Sprintf(`pb.collection("users").authWithPassword(%q, %q).then(() => true)`, email, password))
	}
	signIn()
	p.Live(`"plain", {limit: 10}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 10}`)
	p.Converges("plain", "filtered")
	// From here on it is the same person: the list is never empty. The filtered one lists
	// on its own time, with a token that may be dead, and gets what a guest gets.
	eval[bool](p, `(() => {
		let { result } = queries.plain;
		Object.defineProperty(queries.plain, "result", {
			get: () => result,
			set: (next) => { if (!(result = next).items.length) wrong.push("plain: emptied"); },
		});
		return true;
	})()`)
	heard := func(title string) {
		t.Helper()
		s.create(token, title, "a", ann)
		p.Wait(fmt.Sprintf(`Object.values(queries).every((q) => q.result.items[0]?.title === %q)`, title))
		p.Converges("plain", "filtered")
	}
	patch := func(path string, fields map[string]any) {
		t.Helper()
		s.API(token, http.MethodPatch, "/api/collections/"+path, fields, nil)
	}
	heard("Before")
	streams := p.Requests("GET /api/realtime")

	for _, change := range []struct {
		name string
		do   func()
	}{
		{"nothing, but a new token", func() {
			eval[bool](p, `pb.collection("users").authRefresh().then(() => true)`)
		}},
		{"the password", func() {
			old := password
			password = "another password"
			eval[bool](p, fmt.Sprintf(`pb.collection("users").update(%q, {oldPassword: %q, password: %[3]q, passwordConfirm: %[3]q}).then(() => true)`, ann, old, password))
			signIn()
		}},
		{"the e-mail address", func() {
			email = "anne@example.com"
			patch("users/records/"+ann, map[string]any{"email": email})
			signIn()
		}},
		{"the key of all tokens", func() {
			patch("users/records/"+ann, map[string]any{"tokenKey": strings.Repeat("k", 50)})
			signIn()
		}},
		{"the secret of the collection", func() {
			patch("users", map[string]any{"authToken": map[string]any{"duration": 3600, "secret": strings.Repeat("s", 50)}})
			signIn()
		}},
	} {
		change.do()
		heard("After: " + change.name)
		if change.name == "nothing, but a new token" && p.Requests("GET /api/realtime") != streams {
			t.Error("a new token ended the stream")
		}
	}
	p.Clean(true)
}

// TestLiveQueryKeepsPaceWhenTheClockIsSet sets the clock back and forward.
func TestLiveQueryKeepsPaceWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	p := openHarness(t, s.URL)
	p.Live(`"plain", {limit: 10}`)
	p.Live(`"filtered", {filter: 'category = "a"', limit: 10}`)
	p.Converges("plain", "filtered")
	eval[bool](p, `(() => {
		const now = Date.now;
		window.hours = 0;
		Date.now = () => now() + hours * 3600_000;
		return true;
	})()`)
	for _, hours := range []int{-1, 0, 1, -24} {
		eval[int](p, fmt.Sprintf("hours = %d", hours))
		for i := range 3 {
			s.create(token, fmt.Sprint("Row ", i), "a", "")
			p.Converges("plain", "filtered")
		}
	}
	p.Clean(true)
}

func TestLiveQueryThatCannotBeHeardFailsAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	token := s.Superuser()
	p := openHarness(t, s.URL)
	p.Live(`"plain", {limit: 10}`)
	p.Converges("plain")

	eval[bool](p, `live("long", {}, "é".repeat(1250))`)
	p.Wait(`queries.long.result.status === "failed" && queries.long.result.error.message.includes("2500 bytes")`)
	s.create(token, "After the long one", "a", "")
	p.Converges("plain")

	// A collection that there is none of is refused by its list, but it is heard.
	eval[bool](p, `Array.from({length: 1000}, (_, i) => live("many" + i, {}, "none" + i)).every((ok) => ok)`)
	p.Wait(`queries.many999.result.status === "failed" && queries.many999.result.error.message.includes("1000 collections")`)
	p.Live(`"same", {limit: 5}`)
	s.create(token, "After the many", "a", "")
	p.Converges("plain", "same")
	p.Clean(false)
}

// TestLiveQueryInNode runs the module where there is no EventSource.
func TestLiveQueryInNode(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	s.Send(payload("c0", "A row", ""))
	folder, err := filepath.Abs("pb_public")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "live.mjs")
	text := fmt.Sprintf(`
		import PocketBase from %q;
		import { liveQuery } from %q;
		const stop = liveQuery(new PocketBase(%q), "aiContent", {}, ({ items, status, error }) => {
			console.log(JSON.stringify({ rows: items.length, status, error: error?.message }));
			stop(); // without it, the process would not end
		});`, "file://"+folder+"/vendor/pocketbase.es.mjs", "file://"+folder+"/live-query.js", s.URL)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("node", "--no-warnings", script).CombinedOutput()
	var got struct {
		Rows          int
		Status, Error string
	}
	if err != nil || json.Unmarshal(out, &got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got.Rows != 0 || got.Status != "failed" || !strings.Contains(got.Error, "EventSource") || !strings.Contains(got.Error, "npm install eventsource") {
		t.Errorf("got %s, want a failed status with the remedy", out)
	}
}

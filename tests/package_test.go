package tests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/tests"
)

// The npm package has its modules, their types, and what npm always takes; nothing else.
func TestPackageHasWhatIsMeant(t *testing.T) {
	t.Parallel()
	var want []string
	for _, name := range []string{"LICENSE", "README.md", "package.json"} {
		want = append(want, "package/"+name)
	}
	for pattern, least := range map[string]int{"npm/*.js": 4, "pb_public/live-*.js": 4, "pb_public/ask.js": 1} {
		modules, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(modules) < least {
			t.Fatalf("%s: got %q (%v)", pattern, modules, err)
		}
		for _, module := range modules {
			name := filepath.Base(filepath.Dir(module)) + "/" + filepath.Base(module)
			want = append(want, "package/"+name, "package/npm/types/"+strings.TrimSuffix(name, "js")+"d.ts")
		}
	}
	slices.Sort(want)
	files := packedFiles(t, packPackage(t))
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("files: got %q\nwant %q", got, want)
	}
	for _, module := range []string{"live-query.js", "live-stream.js"} {
		if files["package/pb_public/"+module] != repositoryFile(t, "pb_public/"+module) {
			t.Errorf("%s is not what the server has", module)
		}
	}
	for _, adapter := range []string{"react", "vue", "svelte"} {
		if size := len(files["package/npm/"+adapter+".js"]); size > 3<<10 {
			t.Errorf("%s.js: got %d bytes, want 3 KB at most", adapter, size)
		}
	}
	if _, ours, ok := strings.Cut(files["package/package.json"], `"dependencies"`); ok {
		t.Errorf("the package has dependencies%s", ours)
	}
}

// The package's version is the one that was released last, and no lock file says where
// somebody's npm gets packages from.
func TestPackageFiles(t *testing.T) {
	t.Parallel()
	released := regexp.MustCompile(`(?m)^## \[(\d[^]]*)\]`).FindStringSubmatch(repositoryFile(t, "CHANGELOG.md"))
	if released == nil || !strings.Contains(repositoryFile(t, "package.json"), `"version": "`+released[1]+`"`) {
		t.Errorf("package.json has not the version of CHANGELOG.md, %q", released)
	}
	for _, name := range []string{"package-lock.json", "tests/testdata/app/package-lock.json"} {
		if found := regexp.MustCompile(`.*(https?:|[a-z]+\.[a-z]+/).*\.tgz.*`).FindString(repositoryFile(t, name)); found != "" {
			t.Errorf("%s: names a host: %s", name, found)
		}
	}
}

// The types AiContent and AiRequest have their collections' fields.
func TestPackageNamesTheFields(t *testing.T) {
	t.Parallel()
	app, err := tests.NewTestApp(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Cleanup()
	types := strings.Split(repositoryFile(t, "npm/index.js"), "@typedef {object} ")
	for name, collection := range map[string]string{"AiContent": "aiContent", "AiRequest": "aiRequests"} {
		found, err := app.FindCollectionByNameOrId(collection)
		if err != nil {
			t.Fatal(err)
		}
		want := append(found.Fields.FieldNames(), "collectionId", "collectionName")
		var got []string
		for _, text := range types {
			if !strings.HasPrefix(text, name+"\n") {
				continue
			}
			for _, match := range regexp.MustCompile(`@property \{[^}]+\} (\w+)`).FindAllStringSubmatch(text, -1) {
				got = append(got, match[1])
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("fields of %s: got %q\nwant %q", name, got, want)
		}
	}
}

// The packed package in a fresh Vite app with React, Vue and Svelte.
func TestPackageInApp(t *testing.T) {
	t.Parallel()
	app := installApp(t)
	snippet := regexp.MustCompile("(?s)\n```tsx\n(.*?)\n```").FindStringSubmatch(repositoryFile(t, "README.md"))
	if snippet == nil {
		t.Fatal("README.md has no tsx")
	}
	if err := os.WriteFile(filepath.Join(app.Dir, "src", "readme.tsx"), []byte(snippet[1]), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(t *testing.T){
		"types":                         func(t *testing.T) { app.Tool(t, "tsc") },
		"types with the oldest SDK":     func(t *testing.T) { app.Tool(t, "tsc", "-p", "tsconfig.node.json") },
		"rules of hooks":                func(t *testing.T) { app.Tool(t, "eslint", "--max-warnings=0", "node_modules/pocketriver/npm") },
		"a server renders":              func(t *testing.T) { rendersOnServer(t, app) },
		"a browser shows what has come": func(t *testing.T) { showsInBrowser(t, app) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func rendersOnServer(t *testing.T, app npmApp) {
	want := "function\n<p>0 connecting, 0 LoadingFirstPage</p>\n<p>0 connecting</p>\n{\"items\":[],\"status\":\"connecting\",\"error\":null}\n"
	if got := app.Run(t, "node", "server.js"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func showsInBrowser(t *testing.T, app npmApp) {
	app.Tool(t, "vite", "build")
	// React's strict mode does nothing in a build for production.
	app.Run(t, "env", "NODE_ENV=development", "node_modules/.bin/vite", "build", "--mode", "development", "--outDir", "dist/development")
	s, _ := startAsking(t, "--delay", "500ms", "--fail", "error:every=2")
	s.args = []string{"--publicDir", filepath.Join(app.Dir, "dist")}
	s.Restart()

	stories := 0
	send := func() string {
		stories++
		title := fmt.Sprint("Story ", stories)
		s.mustSend(payload(strconv.Itoa(stories), title, ""))
		return title
	}
	p := openTab(t, s.URL+"/development/react.html")
	reactIsStrict(t, p, send)
	reactLoadsMore(t, p, stories)
	reactAsks(t, s, p)
	p.Clean(true)

	for _, page := range []string{"/react.html", "/vue.html", "/svelte.html", "/development/vue.html", "/development/svelte.html"} {
		other := openTab(t, s.URL+page) // in a browser of its own, or the tabs would share a stream
		other.Wait(fmt.Sprintf(`document.querySelectorAll("#feed.live li").length === %d`, stories))
		shows(other, send())
		if n := other.Requests("GET /api/realtime"); n != 1 {
			t.Errorf("%s: got %d streams, want 1", page, n)
		}
		switch {
		case strings.HasSuffix(page, "vue.html"):
			other.Click("#other") // a query that changes
			other.Wait(`document.querySelector("#feed.live") && !document.querySelector("#feed li")`)
			other.Click("#hide")
			other.StreamEnded()
		case strings.HasSuffix(page, "svelte.html"):
			eval[bool](other, `(hide(), true)`)
			other.StreamEnded()
		}
		other.Clean(true)
	}
}

// shows waits until the newest row of the page's feed is the one of a title.
func shows(p *tab, title string) {
	p.t.Helper()
	p.Wait(fmt.Sprintf(`document.querySelector("#feed.live li")?.textContent === %q`, title))
}

// Under strict mode React starts and stops everything twice. Rendering again, with a query
// that is equal, asks nothing.
func reactIsStrict(t *testing.T, p *tab, send func() string) {
	p.Wait(`document.querySelector("#feed.live") && document.querySelector("#pages.Exhausted")`)
	if n := eval[int](p, "seen.effects"); n != 2 {
		t.Errorf("effects: got %d, want 2 of strict mode", n)
	}
	if text := eval[string](p, `document.querySelector("#skipped").textContent`); text != "0 connecting" {
		t.Errorf("without a query: got %s", text)
	}
	for range 5 {
		shows(p, send())
	}
	p.Wait(`document.querySelectorAll("#pages.CanLoadMore li").length === 2`)
	lists := p.Requests("/records?page=")
	for range 3 {
		p.Click("#again")
	}
	p.Wait(`document.querySelector("#again").textContent === "Rendered 4 times"`)
	shows(p, send())
	if n := p.Requests("/records?page=") - lists; n != 0 {
		t.Errorf("lists after rendering again: got %d, want none", n)
	}
	p.Click("#other")
	p.Wait(`document.querySelector("#feed.live") && !document.querySelector("#feed li")`)
	if n := p.Requests("GET /api/realtime"); n != 1 {
		t.Errorf("streams: got %d, want 1", n)
	}
}

// Rows stay while more are loaded, until all are there.
func reactLoadsMore(t *testing.T, p *tab, stories int) {
	eval[bool](p, "(seen.pages.length = 0, true)")
	p.Click("#more")
	p.Wait(`document.querySelectorAll("#pages.CanLoadMore li").length === 4`)
	p.Click("#more")
	p.Wait(fmt.Sprintf(`document.querySelectorAll("#pages.Exhausted li").length === %d`, stories))
	want := []string{"2 LoadingMore", "4 CanLoadMore", "4 LoadingMore", "6 Exhausted"}
	if got := slices.Compact(eval[[]string](p, "seen.pages")); !slices.Equal(got, want) {
		t.Errorf("pages: got %q, want %q", got, want)
	}
}

// Who asks gets the answer, or why there is none, and nobody else on the page after them.
func reactAsks(t *testing.T, s *server, p *tab) {
	s.user(s.Superuser(), "ann@example.com")
	p.SignIn("ann@example.com", testPassword)
	shown := `document.querySelector("#asker span").textContent`
	p.Click("#ask")
	p.Wait(`document.querySelector("#asker.asking")`)
	p.Wait(`document.querySelector("#asker.answered") && ` + shown + `.includes("Why?")`)
	p.Click("#ask")
	p.Wait(`document.querySelector("#asker.failed") && ` + shown + `.includes("providers")`)
	eval[bool](p, `(pb.authStore.clear(), true)`)
	p.Wait(`document.querySelector("#asker.idle") && ` + shown + ` === ""`)
}

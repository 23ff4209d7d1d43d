package tests

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks"
)

// snippet returns the code that a page has under a heading.
func snippet(t testing.TB, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s: has no heading %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	code := regexp.MustCompile("(?s)\n```[a-z]+\n(.*?)\n```").FindStringSubmatch(section)
	if code == nil {
		t.Fatalf("%s: no code under %q", page, heading)
	}
	return code[1]
}

// writeFile writes a file of the folder that the server's data directory is in.
func writeFile(t testing.TB, s *server, name, text string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(s.Dir), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// bodies returns a server that takes POSTs, and what they bring.
func bodies(t testing.TB, status int) (string, <-chan string) {
	received := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(status)
		received <- string(body)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}

func wantBody(t testing.TB, received <-chan string, part string) {
	t.Helper()
	select {
	case body := <-received:
		if !strings.Contains(body, part) {
			t.Errorf("got %s, want %s in it", body, part)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("nothing came, want %s", part)
	}
}

func event(channel, title, body, user, callbackURL string) []byte {
	return fmt.Appendf(nil, `{"type":"task.ai_generated","channel_id":%q,"ai_response":{"data":{"title":%q,"body":%q}},"callback_url":"%s/v1/callback/%[1]s","customer_data":{"user_id":%[5]q}}`,
		channel, title, body, callbackURL, user)
}

// titles lists what the holder of the token sees.
func (s *server) titles(token string) string {
	s.t.Helper()
	var list struct{ Items []struct{ Title string } }
	s.API(token, http.MethodGet, "/api/collections/aiContent/records?sort=title", nil, &list)
	var titles []string
	for _, item := range list.Items {
		titles = append(titles, item.Title)
	}
	return strings.Join(titles, " ")
}

func (s *server) mustSend(payload []byte) {
	s.t.Helper()
	if status := s.Send(payload); status != http.StatusOK {
		s.t.Fatalf("webhook: got %d, want 200", status)
	}
}

// The reference has every setting and every field.
func TestReference(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(heading string) string {
		_, s, _ := strings.Cut(string(page), "\n## "+heading+"\n")
		s, _, _ = strings.Cut(s, "\n## ")
		return s
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[hooks.Config]()) {
		if !field.IsExported() {
			continue
		}
		if want := "`" + field.Name + " " + field.Type.String() + "`"; !strings.Contains(section("Settings"), want) {
			t.Errorf("Settings lacks %s", want)
		}
	}
	source, err := os.ReadFile("hooks/env.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`MODELRIVER_[A-Z_]+`).FindAllString(string(source), -1) {
		if !strings.Contains(section("Settings"), "`"+name+"`") {
			t.Errorf("Settings lacks %s", name)
		}
	}
	app, err := tests.NewTestApp(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Cleanup()
	for _, name := range []string{"aiContent", "modelriverCallbacks"} {
		collection, err := app.FindCollectionByNameOrId(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range collection.Fields.FieldNames() {
			if field != "id" && !strings.Contains(section("Collection `"+name+"`"), "`"+field+"`") {
				t.Errorf("%s lacks %s", name, field)
			}
		}
	}
	help, err := exec.Command(buildBinary(t), "modelriver", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`(?m)^  ([a-z]+) {2,}[A-Z]`).FindAllStringSubmatch(string(help), -1) {
		if !strings.Contains(section("Commands"), "`"+match[1]+"`") && match[1] != "send" {
			t.Errorf("Commands lacks %s", match[1])
		}
	}
}

func TestRecipes(t *testing.T) {
	t.Parallel()
	const page = "docs/recipes.md"
	const long = "A text that is long enough for it to be published."
	restarted := func(t *testing.T, file, code string, env ...string) *server {
		s := startServer(t, filepath.Join(t.TempDir(), "pb_data"), env...)
		s.Stop()
		writeFile(t, s, file, code)
		s.Start()
		return s
	}

	t.Run("enrich the callback", func(t *testing.T) {
		t.Parallel()
		callback, received := bodies(t, 200)
		s := restarted(t, "pb_hooks/enrich.pb.js", snippet(t, page, "Enrich the callback"))
		s.mustSend(event("c1", "T", "four words of text", "", callback))
		wantBody(t, received, `"url":"https://example.com/stories/`)
		s.mustSend(event("c2", "T", "four words of text", "", callback))
		wantBody(t, received, `"words":4`)
	})
	t.Run("refuse content", func(t *testing.T) {
		t.Parallel()
		callback, received := bodies(t, 200)
		s := restarted(t, "pb_hooks/refuse.pb.js", snippet(t, page, "Refuse content"))
		s.mustSend(event("c1", "Short", "Too short.", "", callback))
		wantBody(t, received, `{"error":"processing_failed","message":"refused: The text is too short to publish."}`)
		s.mustSend(event("c2", "Long", long, "", callback))
		wantBody(t, received, `"title":"Long"`)
		if got := s.titles(""); got != "Long" {
			t.Errorf("stored: got %q, want Long", got)
		}
	})
	t.Run("a private feed", func(t *testing.T) {
		t.Parallel()
		callback, _ := bodies(t, 200)
		s := startServer(t, "")
		root := s.Superuser()
		rule := snippet(t, page, "A private feed")
		s.API(root, http.MethodPatch, "/api/collections/aiContent", map[string]string{"listRule": rule, "viewRule": rule}, nil)
		var user struct{ Id string }
		s.API(root, http.MethodPost, "/api/collections/users/records", map[string]string{
			"email": "a@example.com", "password": "correct horse", "passwordConfirm": "correct horse"}, &user)
		s.mustSend(event("c1", "Mine", long, user.Id, callback))
		s.mustSend(event("c2", "Another's", long, "someone", callback))
		s.mustSend(event("c3", "Nobody's", long, "", callback))
		if got := s.titles(""); got != "" {
			t.Errorf("a guest sees %q, want nothing", got)
		}
		if got := s.titles(s.SignIn("users", "a@example.com", "correct horse")); got != "Mine" {
			t.Errorf("the user sees %q, want Mine", got)
		}

		// Sign-up is open, until the create rule of users is locked.
		signUp := func() int {
			response, err := http.Post(s.URL+"/api/collections/users/records", "application/json",
				strings.NewReader(`{"password":"correct horse","passwordConfirm":"correct horse","email":"`+rand.Text()+`@example.com"}`))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			return response.StatusCode
		}
		if got := signUp(); got != http.StatusOK {
			t.Errorf("sign-up by default: got %d, want 200", got)
		}
		s.API(root, http.MethodPatch, "/api/collections/users", map[string]any{"createRule": nil}, nil)
		if got := signUp(); got != http.StatusForbidden {
			t.Errorf("sign-up with a locked create rule: got %d, want 403", got)
		}
	})
	t.Run("delete a user's content", func(t *testing.T) {
		t.Parallel()
		callback, received := bodies(t, 200)
		s := restarted(t, "pb_hooks/forget.pb.js", snippet(t, page, "Delete a user's content with the user"))
		root := s.Superuser()
		signUp := map[string]string{"email": "a@example.com", "password": "correct horse", "passwordConfirm": "correct horse"}
		var user struct{ Id string }
		s.API("", http.MethodPost, "/api/collections/users/records", signUp, &user)
		mine := event("c1", "Mine", long, user.Id, callback)
		s.mustSend(mine)
		wantBody(t, received, `"title":"Mine"`)
		s.mustSend(bytes.Replace(event("c2", "Too", long, user.Id, ""), []byte(`"/v1/callback/c2"`), []byte(`""`), 1))
		s.mustSend(event("c3", "Another's", long, "someone", callback))
		wantBody(t, received, `"title":"Another's"`)
		token := s.SignIn("users", "a@example.com", "correct horse")
		if got := s.titles(token); got != "Mine Too" {
			t.Errorf("the user sees %q, want Mine Too", got)
		}

		s.API(token, http.MethodDelete, "/api/collections/users/records/"+user.Id, nil, nil)
		s.mustSend(mine)
		if got := s.titles(root); got != "Another's" {
			t.Errorf("left: got %q, want Another's", got)
		}
		var rows struct {
			Items []struct{ Body, State string }
		}
		s.API(root, http.MethodGet, "/api/collections/modelriverCallbacks/records", nil, &rows)
		states := map[string]int{}
		for _, row := range rows.Items {
			states[row.State]++
			if strings.Contains(row.Body, "Mine") || strings.Contains(row.Body, "Too") {
				t.Errorf("a callback holds %s", row.Body)
			}
		}
		if states["deleted"] != 2 || len(rows.Items) != 3 {
			t.Errorf("callback rows: got %v, want 2 deleted beside the one of another", states)
		}
		signUp["id"] = user.Id
		payload, _ := json.Marshal(signUp)
		response, err := http.Post(s.URL+"/api/collections/users/records", "application/json", bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("a sign-up with the user's id: got %d, want 400", response.StatusCode)
		}
		delete(signUp, "id")
		s.API("", http.MethodPost, "/api/collections/users/records", signUp, &user)
	})
	t.Run("approval before publishing", func(t *testing.T) {
		t.Parallel()
		callback, received := bodies(t, 200)
		s := restarted(t, "pb_migrations/1800000000_approval.js", snippet(t, page, "Approval before publishing"))
		s.mustSend(event("c1", "T", long, "", callback))
		wantBody(t, received, `"title":"T"`)
		if got := s.titles(""); got != "" {
			t.Errorf("before approval a guest sees %q, want nothing", got)
		}
		root := s.Superuser()
		var list struct{ Items []struct{ Id string } }
		s.API(root, http.MethodGet, "/api/collections/aiContent/records", nil, &list)
		s.API(root, http.MethodPatch, "/api/collections/aiContent/records/"+list.Items[0].Id, map[string]bool{"approved": true}, nil)
		if got := s.titles(""); got != "T" {
			t.Errorf("after approval a guest sees %q, want T", got)
		}
	})
	t.Run("a Slack message", func(t *testing.T) {
		t.Parallel()
		callback, _ := bodies(t, http.StatusUnauthorized)
		slack, received := bodies(t, 200)
		s := restarted(t, "pb_hooks/alarm.pb.js", snippet(t, page, "A Slack message on a failed callback"), "SLACK_WEBHOOK_URL="+slack)
		s.mustSend(event("c1", "T", long, "", callback))
		wantBody(t, received, `failed: answered 401 Unauthorized`)
	})
}

// buildHost builds an app from the source of its main.go and returns its path.
func buildHost(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	repository, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(repository, "readme", "main.go"): filepath.Join(dir, "main.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"main.go": source, "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "app"), "./readme")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "app")
}

// The README's embedding example builds, reads the variables, and its commands work before
// they are set.
func TestReadmeEmbeds(t *testing.T) {
	t.Parallel()
	app, data := buildHost(t, snippet(t, "README.md", "Embed it in your PocketBase app")), filepath.Join(t.TempDir(), "pb_data")
	unset := []string{"MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY="}
	if _, stderr, ok := runOn(t, app, data, unset, "modelriver", "status"); ok || strings.Count(stderr, "no data was found in "+data) != 1 {
		t.Errorf("status before the first start: success %t, error %q", ok, stderr)
	}
	if stdout, _, ok := runOn(t, app, data, unset, "superuser", "upsert", testEmail, testPassword); !ok {
		t.Fatalf("superuser: %s", stdout)
	}
	if stdout, stderr, ok := runOn(t, app, data, unset, "modelriver", "status"); !ok || !strings.Contains(stdout, "received   0") {
		t.Errorf("status: success %t\n%s%s", ok, stdout, stderr)
	}
	if _, stderr, ok := runOn(t, app, data, unset, "modelriver", "send"); ok || strings.Count(stderr, "set MODELRIVER_WEBHOOK_SECRET") != 1 {
		t.Errorf("send: success %t, error %q", ok, stderr)
	}
	broken := []string{"MODELRIVER_API_KEY=first\nsecond"}
	if _, stderr, ok := runOn(t, app, data, broken, "serve", "--http", "127.0.0.1:0"); ok || strings.Count(stderr, "MODELRIVER_API_KEY: ") != 1 || strings.Contains(stderr, "panic") {
		t.Errorf("serve with a key that is none: success %t, error %q", ok, stderr)
	}
	if stdout, stderr, ok := runOn(t, app, data, broken, "--help"); !ok || stderr != "" || !strings.Contains(stdout, "modelriver") {
		t.Errorf("--help with a key that is none: success %t, error %q\n%s", ok, stderr, stdout)
	}

	s := startServerBinary(t, app, "", "MODELRIVER_WEBHOOK_SECRET=another-secret, "+testSecret+"\n", "MODELRIVER_API_KEY=key\n", "MODELRIVER_CALLBACK_HOSTS=127.0.0.1\n")
	callback, received := bodies(t, 200)
	s.mustSend(event("c1", "T", "B", "", callback))
	wantBody(t, received, `"title":"T"`)
}

// An app as in the README runs the README's pb_hooks, once it has what the README says
// they need, and serves live-query.js where the README says.
func TestReadmeEmbedsHooksAndPage(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindSubmatch(readme)
		if found == nil {
			t.Fatalf("README.md has no %s", pattern)
		}
		return string(found[1])
	}
	source := snippet(t, "README.md", "Embed it in your PocketBase app")
	for old, with := range map[string]string{
		"import (\n":                "import (\n\t\"" + find("`(github.com/pocketbase/pocketbase/plugins/jsvm)`") + "\"\n",
		"app := pocketbase.New()\n": "app := pocketbase.New()\n\t" + find("`(jsvm.MustRegister[^`]+)`") + "\n",
	} {
		if !strings.Contains(source, old) {
			t.Fatalf("the example has no %q", old)
		}
		source = strings.Replace(source, old, with, 1)
	}
	dir := filepath.Join(t.TempDir(), "pb_data")
	writeFile(t, &server{Dir: dir}, "pb_hooks/main.pb.js", find("(?s)\n```js\n(// Shape or enrich.*?)\n```"))
	s := startServerBinary(t, buildHost(t, source), dir)
	s.mustSend([]byte(`{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":{"body":"B"}}}`))
	s.mustSend([]byte(`{"type":"task.ai_generated","channel_id":"c2","ai_response":{"data":{"title":"T"}},"customer_data":{"category":"NEWS"}}`))
	var list struct {
		Items []struct{ Title, Category string }
	}
	s.API("", http.MethodGet, "/api/collections/aiContent/records", nil, &list)
	if got := fmt.Sprint(list.Items); got != "[{T news}]" {
		t.Errorf("stored: got %s, want [{T news}]", got)
	}

	response, err := http.Get(s.URL + find("your own app[^`]*`(/[^`]+/live-query.js)`"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("pb_public/live-query.js")
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || string(got) != string(want) {
		t.Errorf("live-query.js: got %s, %d bytes, want %d", response.Status, len(got), len(want))
	}
}

// The quick start's refusal, and its callback that fails and is sent again.
func TestReadmeFailures(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=dev-secret", "MODELRIVER_API_KEY=dev-key")
	target := func(name, args string) *exec.Cmd {
		args += " --dev=false --dir " + t.TempDir()
		cmd := exec.Command("make", "-s", name, "-o", "pocketriver", "BINARY="+s.binary, "ARGS="+args)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	if out, err := target("send", "--tamper --url "+s.URL+"/webhooks/modelriver").CombinedOutput(); err != nil || !strings.Contains(string(out), "401 Unauthorized") {
		t.Errorf("make send: %v\n%s", err, out)
	}

	simulate := target("simulate", "--every 1h --refuse-callbacks 1 --delay 1ms --listen "+freeAddress(t)+" --target "+s.URL+"/webhooks/modelriver")
	log := &output{}
	simulate.Stdout, simulate.Stderr = log, log
	if err := simulate.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-simulate.Process.Pid, syscall.SIGKILL)
		simulate.Wait()
	})
	waitFor(t, "the callback has failed", func() bool {
		out, ok := s.run("modelriver", "status")
		return !ok && strings.Contains(out, "failed     1")
	})
	if out, ok := s.run("modelriver", "retry", "--all-failed"); !ok {
		t.Errorf("retry: %s", out)
	}
	waitFor(t, "it is accepted", func() bool {
		_, ok := s.run("modelriver", "status")
		return ok && strings.Contains(log.String(), "completed")
	})
}

// What the README says is guaranteed names the test that proves it.
func TestReadmeNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, pattern := range []string{"tests/*_test.go", "hooks/*_test.go", "hooks/internal/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(source)
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(readme), -1)
	if len(named) < 10 {
		t.Fatalf("tests named: got %d", len(named))
	}
	for _, match := range named {
		if !strings.Contains(tests.String(), "func "+match[1]+"(") {
			t.Errorf("%s is named, but there is no such test", match[1])
		}
	}
}

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

package tests

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// recipes is the page whose code the tests run.
const recipes = "docs/recipes.md"

// longText passes the recipe that refuses short ones.
const longText = "A text that is long enough for it to be published."

func TestRecipes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(t *testing.T){
		"enrich the callback":        recipeEnriches,
		"refuse content":             recipeRefuses,
		"a private feed":             recipeKeepsPrivate,
		"delete a user's content":    recipeForgets,
		"approval before publishing": recipeAwaitsApproval,
		"a Slack message":            recipeTellsSlack,
		"asking some workflows only": recipeOpensAsking,
		"a quota for each user":      recipeCountsRequests,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// startWithFile starts a server that has the code of a recipe in a file beside its data,
// on data that a server without it has made.
func startWithFile(t *testing.T, file, heading string, env ...string) *server {
	t.Helper()
	s := startServer(t, filepath.Join(t.TempDir(), "pb_data"), env...)
	s.Stop()
	writeBeside(t, s.Dir, file, snippet(t, recipes, heading))
	s.Start()
	return s
}

func recipeEnriches(t *testing.T) {
	callback, received := receivePosts(t, 200)
	s := startWithFile(t, "pb_hooks/enrich.pb.js", "Enrich the callback")
	s.mustSend(userPayload("c1", "T", "four words of text", "", callback))
	wantBody(t, received, `"url":"https://example.com/stories/`)
	s.mustSend(userPayload("c2", "T", "four words of text", "", callback))
	wantBody(t, received, `"words":4`)
}

func recipeRefuses(t *testing.T) {
	callback, received := receivePosts(t, 200)
	s := startWithFile(t, "pb_hooks/refuse.pb.js", "Refuse content")
	s.mustSend(userPayload("c1", "Short", "Too short.", "", callback))
	wantBody(t, received, `{"error":"processing_failed","message":"refused: The text is too short to publish."}`)
	s.mustSend(userPayload("c2", "Long", longText, "", callback))
	wantBody(t, received, `"title":"Long"`)
	if got := s.titles(""); got != "Long" {
		t.Errorf("stored: got %q, want Long", got)
	}
}

func recipeKeepsPrivate(t *testing.T) {
	callback, _ := receivePosts(t, 200)
	s := startServer(t, "")
	root := s.Superuser()
	rule := snippet(t, recipes, "A private feed")
	s.API(root, http.MethodPatch, "/api/collections/aiContent", map[string]string{"listRule": rule, "viewRule": rule}, nil)
	var user struct{ Id string }
	s.API(root, http.MethodPost, "/api/collections/users/records", map[string]string{
		"email": "a@example.com", "password": "correct horse", "passwordConfirm": "correct horse"}, &user)
	s.mustSend(userPayload("c1", "Mine", longText, user.Id, callback))
	s.mustSend(userPayload("c2", "Another's", longText, "someone", callback))
	s.mustSend(userPayload("c3", "Nobody's", longText, "", callback))
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
}

func recipeForgets(t *testing.T) {
	callback, received := receivePosts(t, 200)
	s := startWithFile(t, "pb_hooks/forget.pb.js", "Delete a user's content with the user")
	root := s.Superuser()
	signUp := map[string]string{"email": "a@example.com", "password": "correct horse", "passwordConfirm": "correct horse"}
	var user struct{ Id string }
	s.API("", http.MethodPost, "/api/collections/users/records", signUp, &user)
	mine := userPayload("c1", "Mine", longText, user.Id, callback)
	s.mustSend(mine)
	wantBody(t, received, `"title":"Mine"`)
	s.mustSend(bytes.Replace(userPayload("c2", "Too", longText, user.Id, ""), []byte(`"/v1/callback/c2"`), []byte(`""`), 1))
	s.mustSend(userPayload("c3", "Another's", longText, "someone", callback))
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
}

func recipeAwaitsApproval(t *testing.T) {
	callback, received := receivePosts(t, 200)
	s := startWithFile(t, "pb_migrations/1800000000_approval.js", "Approval before publishing")
	s.mustSend(userPayload("c1", "T", longText, "", callback))
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
}

func recipeTellsSlack(t *testing.T) {
	callback, _ := receivePosts(t, http.StatusUnauthorized)
	slack, received := receivePosts(t, 200)
	s := startWithFile(t, "pb_hooks/alarm.pb.js", "A Slack message on a failed callback", "SLACK_WEBHOOK_URL="+slack)
	s.mustSend(userPayload("c1", "T", longText, "", callback))
	wantBody(t, received, `failed: answered 401 Unauthorized`)
}

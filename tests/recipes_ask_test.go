package tests

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const requestsPath = "/api/collections/aiRequests/records"

// startRecipes starts a server with the code of recipes in files beside its data. It asks a
// server that answers as told.
func startRecipes(t *testing.T, answer http.HandlerFunc, files map[string]string) *server {
	t.Helper()
	river := httptest.NewServer(answer)
	t.Cleanup(river.Close)
	s := startServer(t, filepath.Join(t.TempDir(), "pb_data"), "MODELRIVER_API_URL="+river.URL)
	s.Stop()
	for file, heading := range files {
		writeBeside(t, s.Dir, file, snippet(t, recipes, heading))
	}
	s.Start()
	return s
}

// askerToken makes a user and returns a token of theirs.
func (s *server) askerToken(root, email string) string {
	s.t.Helper()
	s.user(root, email)
	return s.SignIn("users", email, testPassword)
}

func recipeOpensAsking(t *testing.T) {
	s := startRecipes(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, map[string]string{
		"pb_migrations/1767300100_ask.js": "Let users ask, some workflows only",
		"pb_hooks/ask_alarm.pb.js":        "An alarm on a failed request",
	})
	root := s.Superuser()
	token := s.askerToken(root, "asker@example.com")
	for body, want := range map[string]int{
		`{"workflow":"story","input":{}}`: 200, `{"workflow":"other","input":{}}`: 400,
	} {
		if status, answer := s.request(token, http.MethodPost, requestsPath, body); status != want {
			t.Errorf("%s: got %d %s, want %d", body, status, answer, want)
		}
	}
	if status, _ := s.request("", http.MethodPost, requestsPath, `{"workflow":"story","input":{}}`); status != 400 {
		t.Errorf("a guest: got %d, want 400", status)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, logs := s.request(root, http.MethodGet, "/api/logs?perPage=500", "")
		if strings.Contains(logs, "A request failed") && strings.Contains(logs, "ModelRiver refused the request: 400 Bad Request") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no alarm: %s", logs)
		}
	}
}

func recipeCountsRequests(t *testing.T) {
	var sent atomic.Int32
	s := startRecipes(t, func(w http.ResponseWriter, _ *http.Request) { sent.Add(1); w.WriteHeader(http.StatusBadRequest) }, map[string]string{
		"pb_migrations/1767300100_ask.js": "Let users ask, some workflows only",
		"pb_hooks/quota.pb.js":            "A quota for each user",
	})
	root := s.Superuser()
	tokens := []string{s.askerToken(root, "one@example.com"), s.askerToken(root, "two@example.com")}
	statuses := make(chan int, 60)
	for i := range cap(statuses) {
		go func() {
			status, _ := s.request(tokens[i%2], http.MethodPost, requestsPath, `{"workflow":"story","input":{}}`)
			statuses <- status
		}()
	}
	got := map[int]int{}
	for range cap(statuses) {
		got[<-statuses]++
	}
	if got[200] != 40 || got[429] != 20 {
		t.Errorf("two users with 30 requests each: got %v, want 40 of 200 and 20 of 429", got)
	}
	var list struct{ TotalItems int }
	s.API(root, http.MethodGet, requestsPath, nil, &list)
	if list.TotalItems != 40 || sent.Load() > 40 {
		t.Errorf("got %d requests, %d sent, want 40", list.TotalItems, sent.Load())
	}

	// Whoever deletes requests that ended has asked all the same.
	const ended = `?perPage=100&filter=state='failed'`
	var mine struct{ Items []struct{ Id string } }
	await(t, "all have ended", func() bool {
		s.API(tokens[0], http.MethodGet, requestsPath+ended, nil, &mine)
		return len(mine.Items) == 20
	})
	for _, request := range mine.Items {
		s.API(tokens[0], http.MethodDelete, requestsPath+"/"+request.Id, nil, nil)
	}
	if status, answer := s.request(tokens[0], http.MethodPost, requestsPath, `{"workflow":"story","input":{}}`); status != 429 {
		t.Errorf("after all were deleted: got %d %s, want 429", status, answer)
	}
}

package tests

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// API calls PocketBase's API and decodes the answer into result, unless that is nil.
// It fails the test if the status is not 2xx.
func (s *server) API(token, method, path string, body, result any) {
	s.t.Helper()
	payload, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	status, answer := s.request(token, method, path, string(payload))
	if status >= 300 {
		s.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if result != nil {
		if err := json.Unmarshal([]byte(answer), result); err != nil {
			s.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
}

// request calls PocketBase's API with a JSON body and returns the answer, whatever it is.
func (s *server) request(token, method, path, body string) (status int, answer string) {
	s.t.Helper()
	request, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// Superuser creates the superuser testEmail and returns a token of theirs.
func (s *server) Superuser() string {
	s.t.Helper()
	out, err := exec.Command(s.binary, "superuser", "upsert", testEmail, testPassword, "--dir", s.Dir).CombinedOutput()
	if err != nil {
		s.t.Fatalf("superuser upsert: %v\n%s", err, out)
	}
	return s.SignIn("_superusers", testEmail, testPassword)
}

// SignIn returns a token of a record of an auth collection.
func (s *server) SignIn(collection, identity, password string) string {
	s.t.Helper()
	var auth struct{ Token string }
	s.API("", http.MethodPost, "/api/collections/"+collection+"/auth-with-password",
		map[string]string{"identity": identity, "password": password}, &auth)
	return auth.Token
}

// user creates a user with testPassword and returns the id.
func (s *server) user(token, email string) string {
	s.t.Helper()
	var user struct{ ID string }
	s.API(token, http.MethodPost, "/api/collections/users/records", map[string]any{
		"email": email, "password": testPassword, "passwordConfirm": testPassword, "verified": true,
	}, &user)
	return user.ID
}

// create stores a record through the API and returns its id.
func (s *server) create(token, title, category, user string) string {
	s.t.Helper()
	var record struct{ ID string }
	s.API(token, http.MethodPost, "/api/collections/aiContent/records",
		map[string]any{"title": title, "category": category, "userId": user}, &record)
	return record.ID
}

func (s *server) update(token, id string, fields map[string]any) {
	s.t.Helper()
	s.API(token, http.MethodPatch, "/api/collections/aiContent/records/"+id, fields, nil)
}

func (s *server) delete(token, id string) {
	s.t.Helper()
	s.API(token, http.MethodDelete, "/api/collections/aiContent/records/"+id, nil, nil)
}

// shortenSessions makes tokens that users get from now on expire within seconds.
func (s *server) shortenSessions(token string) {
	s.t.Helper()
	var users struct{ AuthToken map[string]any }
	s.API(token, http.MethodGet, "/api/collections/users", nil, &users)
	users.AuthToken["duration"] = 10
	s.API(token, http.MethodPatch, "/api/collections/users", map[string]any{"authToken": users.AuthToken}, nil)
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

// A stream is a realtime connection and what it was sent.
type stream struct {
	clientID string
	mu       sync.Mutex
	events   []string
}

func (s *stream) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, "\n")
}

func subscribe(t testing.TB, s *server, token string, topics ...string) *stream {
	t.Helper()
	response, err := http.Get(s.URL + "/api/realtime")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	st := &stream{}
	connected := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<24)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id:"); ok {
				select {
				case connected <- id:
				default:
				}
			}
			st.mu.Lock()
			st.events = append(st.events, lines.Text())
			st.mu.Unlock()
		}
	}()
	select {
	case st.clientID = <-connected:
	case <-time.After(20 * time.Second):
		t.Fatal("realtime does not connect")
	}
	s.API(token, http.MethodPost, "/api/realtime", map[string]any{"clientId": st.clientID, "subscriptions": topics}, nil)
	return st
}

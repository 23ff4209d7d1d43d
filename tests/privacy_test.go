package tests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

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

// What was made for a user is seen by that user alone, and callbacks by superusers.
func TestOthersSeeNothing(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	receiver := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, _ *http.Request, _ func()) { io.WriteString(w, `{}`) })
	s := startServer(t, "")
	root := s.Superuser()
	s.API(root, http.MethodPatch, "/api/settings", map[string]any{"batch": map[string]any{"enabled": true, "maxRequests": 10, "timeout": 10}}, nil)
	tokens, ids := map[string]string{"guest": ""}, map[string]string{}
	for _, name := range []string{"owner", "other"} {
		var user struct{ ID string }
		s.API(root, http.MethodPost, "/api/collections/users/records", map[string]any{
			"email": name + "@example.com", "password": testPassword, "passwordConfirm": testPassword, "verified": true,
		}, &user)
		ids[name] = user.ID
		tokens[name] = s.SignIn("users", name+"@example.com", testPassword)
	}
	topics := []string{"aiContent/*", "aiContent", "modelriverCallbacks/*", `aiContent/*?options={"query":{"filter":"userId='` + ids["owner"] + `'","expand":"modelriverCallbacks_via_record"}}`}
	streams := map[string]*stream{}
	for name, token := range tokens {
		streams[name] = subscribe(t, s, token, topics...)
	}

	const marker = "PRIVATE-c0ffee"
	private := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"private","callback_url":%q,"ai_response":{"data":{"title":%q}},"customer_data":{"user_id":%q}}`, receiver.url+"/"+marker, marker, ids["owner"])
	public := fmt.Sprintf(`{"type":"task.ai_generated","channel_id":"public","callback_url":%q,"ai_response":{"data":{"title":"PUBLIC"}}}`, receiver.url+"/"+marker)
	for _, payload := range []string{private, public} {
		if status := s.Send([]byte(payload)); status != 200 {
			t.Fatalf("webhook: got %d", status)
		}
	}
	var list struct {
		Items []struct{ ID, ChannelID string }
	}
	s.API(root, http.MethodGet, "/api/collections/aiContent/records", nil, &list)
	recordID := map[string]string{}
	for _, item := range list.Items {
		recordID[item.ChannelID] = item.ID
	}
	db := openDatabase(t, s.Dir)
	await(t, "both are delivered", func() bool { return count(t, db, "modelriverCallbacks WHERE state = 'delivered'") == 2 })

	get := func(token, path string) (int, string) {
		request, _ := http.NewRequest(http.MethodGet, s.URL+path, nil)
		request.Header.Set("Authorization", token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(b)
	}
	const content, callbacks = "/api/collections/aiContent/records", "/api/collections/modelriverCallbacks/records"
	q := url.QueryEscape
	for _, who := range []string{"guest", "other"} {
		token := tokens[who]
		for _, path := range []string{
			content, content + "?perPage=500&sort=-created,-id", content + "?sort=userId", content + "?expand=modelriverCallbacks_via_record,userId",
			content + "/" + recordID["private"], content + "/" + recordID["private"] + "?expand=modelriverCallbacks_via_record",
			content + "?filter=" + q(`userId="`+ids["owner"]+`"`), content + "?filter=" + q(`title~"PRIVATE"`), content + "?filter=" + q(`channelId="private" || 1=1`),
			content + "?filter=" + q(`id="`+recordID["private"]+`"`), content + "?fields=*,expand&skipTotal=1",
			content + "/" + recordID["public"] + "?expand=modelriverCallbacks_via_record", content + "?filter=" + q(`channelId="public"`) + "&expand=modelriverCallbacks_via_record",
			callbacks, callbacks + "/" + recordID["public"], callbacks + "/" + recordID["private"], callbacks + "?filter=" + q(`state="delivered"`), callbacks + "?expand=record",
		} {
			if _, answer := get(token, path); strings.Contains(answer, marker) {
				t.Errorf("%s sees another's content in %s: %s", who, path, answer)
			}
		}
		// Not even whether it exists: a filter or sort must not tell.
		for filter, atMost := range map[string]int{
			`userId="` + ids["owner"] + `"`:                        0,
			`modelriverCallbacks_via_record.url ~ "c0ffee"`:        0,
			`modelriverCallbacks_via_record.state ?= "delivered"`:  0,
			`@collection.modelriverCallbacks.state ?= "delivered"`: 0,
			`@collection.aiContent.title ?= "` + marker + `"`:      0,
			`channelId = "private"`:                                0,
			`id != ""`:                                             1,
		} {
			status, answer := get(token, content+"?filter="+q(filter))
			var got struct{ TotalItems int }
			json.Unmarshal([]byte(answer), &got)
			if status == 200 && got.TotalItems > atMost {
				t.Errorf("%s: filter %s: got %d items, want at most %d: %s", who, filter, got.TotalItems, atMost, answer)
			}
		}
		if status, answer := get(token, content+"/"+recordID["private"]); status != 404 {
			t.Errorf("%s: view: got %d %s, want 404", who, status, answer)
		}
		if status, answer := get(token, callbacks); status != 403 {
			t.Errorf("%s: callbacks: got %d %s, want 403", who, status, answer)
		}
		// Nothing may be written, one by one or in a batch.
		for _, change := range []struct{ method, path string }{
			{http.MethodPost, content}, {http.MethodPatch, content + "/" + recordID["public"]}, {http.MethodDelete, content + "/" + recordID["private"]},
			{http.MethodPost, callbacks}, {http.MethodPatch, callbacks + "/" + recordID["public"]}, {http.MethodPut, content},
		} {
			for _, batch := range []bool{false, true} {
				method, path, body := change.method, change.path, `{"id":"aaaaaaaaaaaaaaa","title":"Evil","state":"pending"}`
				if batch {
					body = fmt.Sprintf(`{"requests":[{"method":%q,"url":%q,"body":%s}]}`, method, path, body)
					method, path = http.MethodPost, "/api/batch"
				}
				request, _ := http.NewRequest(method, s.URL+path, strings.NewReader(body))
				request.Header.Set("Authorization", token)
				request.Header.Set("Content-Type", "application/json")
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				answer, _ := io.ReadAll(response.Body)
				response.Body.Close()
				if response.StatusCode < 400 || bytes.Contains(answer, []byte(marker)) {
					t.Errorf("%s: %s %s (batch %t): got %d %s", who, change.method, change.path, batch, response.StatusCode, answer)
				}
			}
		}
		await(t, who+" gets the public record live", func() bool { return strings.Contains(streams[who].all(), "PUBLIC") })
		if got := streams[who].all(); strings.Contains(got, marker) {
			t.Errorf("%s gets another's content live: %s", who, got)
		}
	}
	// The control: the owner sees it everywhere.
	if _, answer := get(tokens["owner"], content+"/"+recordID["private"]); !strings.Contains(answer, marker) {
		t.Errorf("the owner does not see their content: %s", answer)
	}
	await(t, "the owner gets it live", func() bool { return strings.Contains(streams["owner"].all(), marker) })
	if strings.Contains(streams["owner"].all(), "modelriverCallbacks\"") {
		t.Error("the owner gets callbacks live")
	}
	if got := count(t, db, "aiContent WHERE title = 'Evil'"); got != 0 {
		t.Errorf("%d records were written from outside", got)
	}
}

// Whatever text a model writes is stored, called back and listed as valid JSON.
func TestHostileText(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	receiver := m.newReceiver(func(_ *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) { io.WriteString(w, `{}`) })
	s := startServer(t, "")
	root := s.Superuser()
	for i, row := range []struct {
		name, title string // as JSON
		want        string // the title's beginning; "" is any
	}{
		{"HTML", `"<script>alert(1)</script><img src=x onerror=alert(1)>"`, "<script>alert(1)</script><img src=x onerror=alert(1)>"},
		{"1 MB", `"` + strings.Repeat("x", 1<<20) + `"`, strings.Repeat("x", 500)},
		{"an escaped NUL", `"a\u0000b"`, "a\uFFFDb"},
		{"invalid UTF-8", "\"a\xff\xfeb\"", "a\uFFFD"},
		{"half a character", "\"a\xe2\x82\"", "a\uFFFD"},
		{"a lone surrogate", `"a\ud800b"`, "a\uFFFDb"},
		{"surrogates in the wrong order", `"a\udc00\ud800b"`, "a\uFFFD\uFFFDb"},
		{"bidirectional controls", `"a\u202Eb\u2066c"`, "a\u202Eb\u2066c"},
		{"line separators and controls", `"a\u2028b\u2029c\u0001\u001b[31m"`, "a\u2028b\u2029c\u0001\u001b[31m"},
		{"emoji and combining marks", `"👩‍👩‍👧 é` + strings.Repeat("\u0301", 100) + `"`, "👩‍👩‍👧 é"},
		{"a number", `12345678901234567890`, "12345678901234567890"},
		{"an object", `{"a":1}`, "Untitled"},
		{"blank", `" \t "`, "Untitled"},
		{"template text", `"{{.}} ${1} {:id} %s '; DROP TABLE aiContent;--"`, "{{.}} ${1} {:id} %s '; DROP TABLE aiContent;--"},
	} {
		channel := fmt.Sprintf("hostile-%d", i)
		payload := fmt.Sprintf(`{"type":"task.ai_generated","event":%[2]s,"channel_id":%[1]q,"callback_url":%[3]q,"ai_response":{"data":{"title":%[2]s,"description":%[2]s,"k":%[2]s}},"customer_data":{"category":"hostile"}}`,
			channel, row.title, receiver.url+"/x")
		if status := s.Send([]byte(payload)); status != 200 {
			t.Errorf("%s: got %d, want 200", row.name, status)
			continue
		}
		request, _ := http.NewRequest(http.MethodGet, s.URL+"/api/collections/aiContent/records?filter="+url.QueryEscape(`channelId="`+channel+`"`), nil)
		request.Header.Set("Authorization", root)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(response.Body)
		response.Body.Close()
		var list struct {
			Items []struct {
				Title string
				Data  map[string]any
			}
		}
		if err := json.Unmarshal(raw, &list); err != nil || !utf8.Valid(raw) || len(list.Items) != 1 {
			t.Errorf("%s: %v, %d items in %.300q", row.name, err, len(list.Items), raw)
			continue
		}
		if got := list.Items[0].Title; !strings.HasPrefix(got, row.want) || !utf8.ValidString(got) || strings.Contains(got, "\x00") {
			t.Errorf("%s: title: got %.100q, want %.100q", row.name, got, row.want)
		}
		if _, ok := list.Items[0].Data["k"]; !ok {
			t.Errorf("%s: data: got %.100v", row.name, list.Items[0].Data)
		}
	}
	settle(t, s.Dir, time.Minute)
	db := openDatabase(t, s.Dir)
	if got, want := count(t, db, "modelriverCallbacks WHERE state = 'delivered'"), 14; got != want {
		t.Errorf("delivered: got %d, want %d", got, want)
	}
	var invalid int
	if err := db.NewQuery("SELECT COUNT(*) FROM aiContent WHERE NOT json_valid(data) OR NOT json_valid(metadata)").Row(&invalid); err != nil || invalid != 0 {
		t.Errorf("records with invalid JSON: got %d, %v", invalid, err)
	}
}

package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Whatever text a model writes is stored, called back and listed as valid JSON.
func TestHostileText(t *testing.T) {
	t.Parallel()
	m := newModelRiver(t, "", 1)
	receiver := m.newReceiver(answersEmpty)
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
		_, answer := s.request(root, http.MethodGet, contentRecords+"?filter="+url.QueryEscape(`channelId="`+channel+`"`), "")
		var list struct {
			Items []struct {
				Title string
				Data  map[string]any
			}
		}
		if err := json.Unmarshal([]byte(answer), &list); err != nil || !utf8.ValidString(answer) || len(list.Items) != 1 {
			t.Errorf("%s: %v, %d items in %.300q", row.name, err, len(list.Items), answer)
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
	if got, want := countRows(t, db, "modelriverCallbacks WHERE state = 'delivered'"), 14; got != want {
		t.Errorf("delivered: got %d, want %d", got, want)
	}
	var invalid int
	if err := db.NewQuery("SELECT COUNT(*) FROM aiContent WHERE NOT json_valid(data) OR NOT json_valid(metadata)").Row(&invalid); err != nil || invalid != 0 {
		t.Errorf("records with invalid JSON: got %d, %v", invalid, err)
	}
}

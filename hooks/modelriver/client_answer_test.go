package modelriver_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// The beginning of an answer is kept, of an accepted callback too, and never the key.
func TestPostCallbackReturnsTheAnswer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"accepted", 200, `{"ok":true}`, `{"ok":true}`},
		{"accepted without a word", 204, "", ""},
		{"refused", 422, "no\n such  channel", "no such channel"},
		{"the key is echoed by who accepts", 200, "got Bearer " + apiKey + "!", "got Bearer [API key]!"},
		{"the key is echoed by who refuses", 500, apiKey + apiKey, "[API key][API key]"},
		{"the key is cut in two by the limit", 200, strings.Repeat(" ", 4<<10-10) + apiKey, ""},
		{"long", 200, strings.Repeat("é", 1000), strings.Repeat("é", 300) + "…"},
		{"no text", 200, "a\x00\xff", "a\uFFFD\uFFFD"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.body)
			})
			client := newClient(t, server.URL, time.Minute)
			answer, err := client.PostCallback(t.Context(), server.URL+"/c", []byte("{}"))
			if answer.Status != row.status || answer.Body != row.want || (err == nil) != (row.status < 300) {
				t.Errorf("got %d %q, %v, want %d %q", answer.Status, answer.Body, err, row.status, row.want)
			}
			var status *modelriver.StatusError
			if errors.As(err, &status) && status.Body != row.want {
				t.Errorf("error: got %q, want %q in it", status.Body, row.want)
			}
		})
	}
	answer, err := newClient(t, "https://a.example", time.Minute).PostCallback(t.Context(), "https://b.example/c", nil)
	if answer != (modelriver.Answer{}) || !errors.Is(err, modelriver.ErrCallbackHost) {
		t.Errorf("a host that is not allowed: got %+v, %v", answer, err)
	}
}

// A connection may end within a key that is echoed: no part of it is kept.
func TestPostCallbackKeepsNoPartOfTheKey(t *testing.T) {
	t.Parallel()
	server := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "no way, Bearer "+apiKey[:len(apiKey)-1])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	answer, err := newClient(t, server.URL, time.Minute).PostCallback(t.Context(), server.URL+"/c", []byte("{}"))
	if want := "no way"; err != nil || !strings.HasPrefix(answer.Body, want) || strings.Contains(answer.Body, apiKey[:8]) {
		t.Errorf("got %q, %v, want %q and nothing of the key", answer.Body, err, want)
	}
}

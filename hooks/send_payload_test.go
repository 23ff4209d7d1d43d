package hooks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// envelope is a webhook as ModelRiver's own servers take it, whose callback goes to url.
func envelope(channel, url string) string {
	return fmt.Sprintf(`{"channel_id":%q,"timestamp":"1767616496","data":{"type":"task.ai_generated","event":"new_chat","channel_id":%[1]q,`+
		`"ai_response":{"data":{"title":"T","n":1.0}},"callback_url":%[2]q,"customer_data":{"plan":"pro"}},"callback_url":%[2]q}`, channel, url)
}

// What the flags ask for reaches the server, and the key goes to nobody else, whatever the
// file's shape is.
func TestSendFile(t *testing.T) {
	t.Parallel()
	const flat = `{"type":"task.ai_generated","channel_id":"file","ai_response":{"data":{"title":"T","n":1.0}},"callback_url":"URL","callback_required":true}`
	enveloped := envelope("file", "URL")
	for _, row := range []struct {
		name, file string
		args       []string
		callbacks  int
	}{
		{"flat", flat, nil, 1},
		{"flat, asked for no callback", flat, []string{"--no-callback"}, 0},
		{"envelope", enveloped, nil, 1},
		{"envelope, asked for no callback", enveloped, []string{"--no-callback"}, 0},
		{"envelope, signed in scheme data", enveloped, []string{"--scheme", "data"}, 1},
		{"envelope with a byte order mark", "\ufeff" + enveloped, nil, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			elsewhere := newReceiver(t, nil) // in place of the real ModelRiver
			s := newTestServer(t, testConfig())
			file := filepath.Join(t.TempDir(), "delivery.json")
			if err := os.WriteFile(file, []byte(strings.ReplaceAll(row.file, "URL", elsewhere.callbackURL("file"))), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"send", "--url", s.url + s.plugin.config.Path, "--user", "someone", "--event", "asked", "--channel", "other", file}
			mustRun(t, s.plugin, append(args, row.args...)...)
			record := only(t, s, store.Content)
			for field, want := range map[string]string{
				"userId": "someone", "eventName": "asked", "channelId": "other", "title": "T", "data": `{"title":"T","n":1.0}`,
			} {
				if got := record.GetString(field); got != want {
					t.Errorf("%s: got %q, want %q", field, got, want)
				}
			}
			if got := len(records(t, s, store.Callbacks)); got != row.callbacks {
				t.Errorf("callbacks: got %d, want %d", got, row.callbacks)
			}
			if got := elsewhere.all(); len(got) > 0 {
				t.Errorf("the key went to the file's callback URL: %v", got)
			}
		})
	}
}

func TestSendManyInSchemeData(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	out := mustRun(t, s.plugin, "send", "--url", s.url+s.plugin.config.Path, "--count", "3", "--scheme", "data")
	wantLines(t, out, `200 OK +3$`, `callbacks +3 of 3`)
	if got := len(records(t, s, store.Content)); got != 3 {
		t.Errorf("stored: got %d, want 3", got)
	}
}

// A redirect would take the signature elsewhere, and show another server's answer.
func TestSendFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer other.Close()
	redirect := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer redirect.Close()
	_, p := newTestApp(t, testConfig())
	_, err := runCommand(p, "send", "--url", redirect.URL)
	wantError(t, err, "302 Found")
	if asked.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

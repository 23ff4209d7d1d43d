package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
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

// Whatever a file holds, the parser finds in what is sent what the flags ask for, and all
// else as in the file.
func TestSentPayloadHasWhatTheFlagsAskFor(t *testing.T) {
	t.Parallel()
	receiver, err := startCallbackReceiver()
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.close()
	text := rapid.SampledFrom([]string{`null`, `""`, `"a"`, `"b c"`, `"https://api.modelriver.com/v1/callback/x"`, `7`, `1.0`, `{}`, `[1]`, `{"user_id":"u"}`,
		`{"metadata.user_id":5}`, `"task.completed"`, `"task.ai_generated"`})
	names := []string{"type", "event", "channel_id", "callback_url", "callback\\u005furl", "customer_data", "cached_data", "ai_response", "data", "meta", "error"}
	object := func(t *rapid.T, nested string) string {
		var members []string
		for range rapid.IntRange(0, 9).Draw(t, "members") {
			members = append(members, `"`+rapid.SampledFrom(names).Draw(t, "name")+`" : `+text.Draw(t, "value"))
		}
		if nested != "" {
			members = append(members, nested)
		}
		return "{" + strings.Join(members, ",\n") + "}"
	}
	flag := rapid.SampledFrom([]string{"", "x", `a&<b>"`, "ü/?%", "550e8400-e29b"})
	rapid.Check(t, func(t *rapid.T) {
		answer := ""
		if rapid.Bool().Draw(t, "answer") {
			answer = `"ai_response":{"data":{"title":"T","n":1.0},"meta":{"model":"m"}}`
		}
		file := object(t, answer)
		if rapid.Bool().Draw(t, "envelope") {
			file = object(t, `"data":`+file)
		}
		options := sendOptions{
			scheme: "body", event: flag.Draw(t, "event"), channel: flag.Draw(t, "channel"), user: flag.Draw(t, "user"),
		}
		to := receiver
		if rapid.Bool().Draw(t, "no callback") {
			to = nil
		}
		before, err := modelriver.ParseEvent(http.Header{}, []byte(file))
		if err != nil {
			t.Fatalf("%v in %s", err, file)
		}
		payload, err := preparePayload([]byte(file), false, options, to)
		if err != nil {
			t.Fatalf("%v in %s", err, file)
		}
		for _, header := range []http.Header{{}, {modelriver.HeaderXSignature: {"x"}}} {
			after, err := modelriver.ParseEvent(header, payload)
			if err != nil {
				t.Fatalf("%v in %s", err, payload)
			}
			callback := ""
			if to != nil {
				callback = to.url(after.ChannelID)
			}
			for _, value := range []struct{ name, asked, before, after string }{
				{"channel", options.channel, before.ChannelID, after.ChannelID},
				{"event", options.event, before.Name, after.Name},
				{"user", options.user, before.UserID, after.UserID},
				{"callback", callback, "", after.CallbackURL},
				{"type", "", before.Type, after.Type},
			} {
				want := value.before
				if value.asked != "" {
					want = value.asked
				}
				if value.after != want {
					t.Fatalf("%s: got %q, want %q from\n%s\nsent as\n%s", value.name, value.after, want, file, payload)
				}
			}
		}
	})
}

// ModelRiver's own servers sign what JavaScript makes of the data member.
func TestOwnPayloadsPassModelRiversVerifier(t *testing.T) {
	t.Parallel()
	const verifier = `
		const crypto = require("node:crypto");
		let wrong = 0;
		for (const { name, payload, signature, timestamp } of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) {
			const signed = timestamp + "." + JSON.stringify(JSON.parse(payload).data);
			if (crypto.createHmac("sha256", process.argv[1]).update(signed).digest("hex") === signature) continue;
			wrong++;
			console.log(name + ": refused: " + payload);
		}
		process.exit(wrong > 0 ? 1 : 0);`
	type signedPayload struct {
		Name      string `json:"name"`
		Payload   string `json:"payload"`
		Signature string `json:"signature"`
		Timestamp string `json:"timestamp"`
	}
	var all []signedPayload
	add := func(name string, payload []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{}
		if err := modelriver.Sign(header, "data", testSecret, time.Now(), payload); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, signedPayload{name, string(payload), header.Get(modelriver.HeaderXSignature), header.Get(modelriver.HeaderXTimestamp)})
	}
	receiver, err := startCallbackReceiver()
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.close()
	for _, options := range []sendOptions{{scheme: "data"}, {scheme: "data", channel: "a b/<c>", event: "x & y", user: "<é>\b\f\n\x01\x7f\""}} {
		payload, err := preparePayload(samplePayload, true, options, receiver)
		add("the sample", payload, err)
		for i := range contents() {
			payload, err := preparePayload(contentPayload(i), true, options, receiver)
			add("content", payload, err)
		}
	}
	s := newSimulator(testConfig(), simulateOptions{scheme: "data"}, &bytes.Buffer{})
	s.base = "http://127.0.0.1:8787"
	for _, c := range contents() {
		r := &aiRequest{channel: "c", workflow: "a & b", event: "<new>", customer: json.RawMessage(`{}`), content: c}
		add("simulated", s.payload(r, time.Now()), nil)
	}

	input, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.Command("node", "-e", verifier, testSecret)
	node.Stdin = bytes.NewReader(input)
	if out, err := node.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
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

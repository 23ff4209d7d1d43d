package simulator

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

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
		options := SendOptions{
			Scheme: "body", Event: flag.Draw(t, "event"), Channel: flag.Draw(t, "channel"), User: flag.Draw(t, "user"),
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
				{"channel", options.Channel, before.ChannelID, after.ChannelID},
				{"event", options.Event, before.Name, after.Name},
				{"user", options.User, before.UserID, after.UserID},
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
	for _, options := range []SendOptions{{Scheme: "data"}, {Scheme: "data", Channel: "a b/<c>", Event: "x & y", User: "<é>\b\f\n\x01\x7f\""}} {
		payload, err := preparePayload(samplePayload, true, options, receiver)
		add("the sample", payload, err)
		for i := range contents() {
			payload, err := preparePayload(contentPayload(i), true, options, receiver)
			add("content", payload, err)
		}
	}
	s := newSimulator(&bytes.Buffer{}, Settings{Secret: testSecret}, Options{Scheme: "data"})
	s.base = "http://127.0.0.1:8787"
	for _, c := range contents() {
		r := &aiRequest{channel: "c", workflow: "a & b", event: "<new>", customer: json.RawMessage(`{}`), content: c}
		add("simulated", s.payload(r, r.event, time.Now()), nil)
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

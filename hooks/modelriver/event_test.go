package modelriver_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

type event = modelriver.Event

func raw(s string) json.RawMessage { return json.RawMessage(s) }

const channelCallback = "https://api.modelriver.com/v1/callback/" + channel

// The shapes that ModelRiver publishes, as files: of its documentation, its guides,
// its example servers and its SDK.
var published = []struct {
	file   string
	stores bool
	want   event
}{
	{"event-driven", true, event{Type: "task.ai_generated", Name: "new_movie_suggestion", ChannelID: channel, CallbackURL: channelCallback,
		Data: raw("{\n      \"title\": \"Inception\",\n      \"year\": 2010\n    }"), Title: "Inception",
		Customer: raw("{\n    \"user_id\": \"user_456\"\n  }"), UserID: "user_456"}},
	{"event-driven-meta", true, event{Type: "task.ai_generated", Name: "new_chat", ChannelID: channel, CallbackURL: channelCallback,
		Data: raw(`{"reply":"Hi","summary":"A greeting","title":"Hello","body":"Hi there"}`), Title: "Hello", Body: "Hi there",
		Customer: raw(`{"conversation_id":"c9"}`), Model: "gpt-4o", Provider: "openai"}},
	{"event-driven-sdk", true, event{Type: "task.ai_generated", Name: "new_chat", ChannelID: "abc-123-def", CallbackURL: "https://api.modelriver.com/v1/callback/abc-123-def",
		Data: raw(`{"title":"T"}`), Title: "T", Model: "claude", Provider: "anthropic"}},
	{"standard", true, event{Type: "task.completed", ChannelID: channel,
		Data:     raw(`{"summary":"...","sentiment":"negative"}`),
		Customer: raw(`{"user_id":"user_789","session_id":"sess_abc123"}`), UserID: "user_789", Model: "gpt-4o", Provider: "openai"}},
	{"standard-without-type", true, event{ChannelID: channel, CallbackURL: channelCallback,
		Data: raw(`{"choices":[{"message":{"role":"assistant","content":"text"}}]}`), Body: "text", Model: "gpt-4o"}},
	{"standard-response", true, event{ChannelID: channel,
		Data: raw(`{"status":"success","response":{"choices":[{"message":{"role":"assistant","content":"nested text"}}]},"usage":{"total_tokens":3}}`), Body: "nested text"}},
	{"envelope", true, event{Type: "task.ai_generated", Name: "new_chat", ChannelID: channel, CallbackURL: channelCallback,
		Data: raw(`{"reply":"R","summary":"S"}`)}},
	{"envelope-number-timestamp", true, event{Name: "new_chat", ChannelID: channel, CallbackURL: channelCallback,
		Data: raw(`{"reply":"R"}`), Model: "m", Provider: "p"}},
	{"envelope-standard", true, event{Type: "task.completed", ChannelID: channel,
		Data: raw(`{"title":"T"}`), Title: "T", Model: "m", Customer: raw(`{"user_id":7}`), UserID: "7"}},
	{"monitoring", true, event{Type: "task.completed", ChannelID: "ch_abc123", Body: "...", Model: "gpt-4o", Provider: "openai",
		Data: raw("{\"channel_id\":\"ch_abc123\",\"request_id\":\"req_xyz789\",\"model\":\"gpt-4o\",\"provider\":\"openai\",\n" +
			`          "response":{"choices":[{"message":{"role":"assistant","content":"..."}}],"usage":{"prompt_tokens":250,"completion_tokens":180}}}`)}},
	{"monitoring-callback", true, event{Type: "task.ai_generated", ChannelID: "ch_abc123", CallbackURL: "https://api.modelriver.com/v1/callback/ch_abc123",
		Data:  raw(`{"channel_id":"ch_abc123","model":"gpt-4o","provider":"openai","callback_url":"https://api.modelriver.com/v1/callback/ch_abc123","response":{"choices":[]}}`),
		Model: "gpt-4o", Provider: "openai"}},
	{"marketing", true, event{Data: raw(`{"title":"T"}`), Title: "T"}},
	{"error-native", false, event{Error: "All providers failed", Customer: raw(`{}`)}},
	{"error-completed", false, event{Type: "task.completed", ChannelID: "c1", Error: "provider failed"}},
	{"error-envelope", false, event{Type: "task.completed", ChannelID: "c1", Error: "provider failed"}},
	{"error-failed", false, event{Type: "task.failed", ChannelID: "c1", Error: "provider failed"}},
	{"test-mode", true, event{Type: "task.ai_generated", Name: "e", ChannelID: "c1", Data: raw(`{"title":"sample"}`), Title: "sample",
		Customer: raw(`{"plan":"free"}`), Model: "test-mode", Provider: "Testing"}},
	{"cached-data", true, event{Type: "task.completed", ChannelID: "c1", Data: raw(`{"title":"T"}`), Title: "T",
		Customer: raw(`{"metadata.user_id":"usr_abc123","category":"news","items[0].sku":42}`), Category: "news", UserID: "usr_abc123"}},
	{"ai-data-with-event-names", true, event{Type: "task.completed", Name: "real", ChannelID: channel, Title: "T",
		Data: raw(`{"type":"task.ai_generated","event":"not this","channel_id":"not-this","callback_url":"https://evil.example/not-this","model":"not this","provider":"not this","customer_data":{"user_id":"not this"},"meta":{"model":"not this"},"ai_response":{"data":{"title":"not this"}},"error":"no","title":"T"}`)}},
	{"ai-data-with-event-names-driven", true, event{Type: "task.ai_generated", Name: "real", ChannelID: channel,
		Data: raw(`{"type":"x","event":"not this","channel_id":"not-this","callback_url":"https://evil.example/not-this","model":"not this","data":{"title":"not this"},"ai_response":{"data":1},"customer_data":{"user_id":"not this"}}`)}},
	{"numbers", true, event{Type: "task.completed", ChannelID: "c1",
		Data: raw(`{"id":9007199254740993,"score":1.0,"huge":123456789012345678901234567890.10,"exp":1E+400,"neg":-0,"10":"x","9":"y"}`)}},
	{"text", true, event{Type: "task.completed", Name: "événement", ChannelID: "c1",
		Data:  raw(`{"title":"<b>T & T<\/b> é \ud83d\ude00 \ud800 \u0000","body":"lone \udc00, line\nbreak","\u0074itle2":"tab\t","漢":"字","":0}`),
		Title: "<b>T & T</b> é 😀 \uFFFD \x00", Body: "lone \uFFFD, line\nbreak"}},
	{"duplicate-keys", true, event{Type: "task.completed", ChannelID: "c1", Data: raw(`{"title":"A","title":"B","body":"x"}`), Title: "B", Body: "x"}},
}

func TestParseEventPublished(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, row := range published {
		listed[row.file+".json"] = true
		t.Run(row.file, func(t *testing.T) {
			t.Parallel()
			payload, err := os.ReadFile(filepath.Join("testdata", row.file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			checkEvent(t, nil, payload, row.want, row.stores)
		})
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata: %d files, %v", len(files), err)
	}
	for _, file := range files {
		if !listed[filepath.Base(file)] {
			t.Errorf("%s is in no row", file)
		}
	}
}

func checkEvent(t *testing.T, header http.Header, payload []byte, want event, stores bool) {
	t.Helper()
	got, err := modelriver.ParseEvent(header, payload)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %.2000s\nwant %.2000s", show(*got), show(want))
	}
	if got.Stores() != stores {
		t.Errorf("Stores: got %v", !stores)
	}
}

func show(e event) string {
	text, err := json.Marshal(struct {
		event
		Data, Customer string
	}{e, string(e.Data), string(e.Customer)})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Where members may be, may be missing, or may be of another kind than documented.
func TestParseEvent(t *testing.T) {
	t.Parallel()
	headers := http.Header{}
	headers.Set("mr-channel-id", "header-channel")
	headers.Set("X-ModelRiver-Callback-Url", "https://api.modelriver.com/v1/callback/header-url")
	onlyURL := http.Header{"X-Modelriver-Callback-Url": {"https://api.modelriver.com/v1/callback/header-url?x=1"}}
	signedData := http.Header{"X-Modelriver-Signature": {"00"}}

	rows := []struct {
		name    string
		header  http.Header
		payload string
		want    event
		stores  bool
	}{
		{"empty object", nil, `{}`, event{}, false},
		{"white space around it", nil, " \r\n\t{ } \n", event{}, false},
		{"nothing known", nil, `{"hello":"world"}`, event{}, false},
		{"everything null", nil, `{"type":null,"event":null,"channel_id":null,"callback_url":null,"ai_response":null,"data":null,"customer_data":null,"meta":null,"error":null}`, event{}, false},
		{"everything of another kind", nil, `{"type":1,"event":[],"channel_id":{},"callback_url":true,"ai_response":null,"data":{},"customer_data":"x","meta":[1]}`, event{Data: raw(`{}`)}, true},

		{"type unknown", nil, `{"type":"task.progress","data":{"a":1}}`, event{Type: "task.progress", Data: raw(`{"a":1}`)}, false},
		{"type empty", nil, `{"type":"","data":{"a":1}}`, event{Data: raw(`{"a":1}`)}, true},
		{"type empty at the top, in data", nil, `{"type":"","data":{"type":"task.completed","data":1}}`, event{Type: "task.completed", Data: raw(`1`)}, true},
		{"type in other case", nil, `{"Type":"task.completed","TYPE":"task.completed"}`, event{}, false},
		{"type missing, ai_response", nil, `{"ai_response":{"data":{"a":1}}}`, event{Data: raw(`{"a":1}`)}, true},
		{"type unknown in the envelope", nil, `{"data":{"type":"task.failed","data":{"a":1}}}`, event{Type: "task.failed", Data: raw(`{"a":1}`)}, false},
		{"type of its own in AI data", nil, `{"channel_id":"c","data":{"type":"greeting","title":"T"}}`, event{ChannelID: "c", Title: "T", Data: raw(`{"type":"greeting","title":"T"}`)}, true},
		{"text that is called ai_response in AI data", nil, `{"channel_id":"c","data":{"type":"greeting","ai_response":"Hello"}}`, event{ChannelID: "c", Data: raw(`{"type":"greeting","ai_response":"Hello"}`)}, true},
		{"object that is called ai_response in a standard answer", nil, `{"type":"task.completed","channel_id":"c","data":{"type":"greeting","ai_response":{"text":"Hello"}}}`, event{Type: "task.completed", ChannelID: "c", Data: raw(`{"type":"greeting","ai_response":{"text":"Hello"}}`)}, true},
		{"type at the top, the rest in the envelope", nil, `{"type":"task.ai_generated","channel_id":"c","data":{"event":"e","ai_response":{"data":[1]}}}`, event{Type: "task.ai_generated", Name: "e", ChannelID: "c", Data: raw(`[1]`)}, true},
		{"envelope with empty members", nil, `{"channel_id":"c","event":"top","callback_url":"https://h/c","data":{"type":"task.ai_generated","channel_id":"","event":null,"callback_url":"","ai_response":{"data":1}}}`,
			event{Type: "task.ai_generated", Name: "top", ChannelID: "c", CallbackURL: "https://h/c", Data: raw(`1`)}, true},
		{"envelope before the top", nil, `{"type":"task.ai_generated","event":"top","channel_id":"top","callback_url":"https://top/c","customer_data":{"user_id":"top"},"meta":{"model":"top"},` +
			`"data":{"type":"task.completed","event":"in","channel_id":"in","callback_url":"https://in/c","customer_data":{"user_id":"in"},"meta":{"model":"in"},"ai_response":{"data":1}}}`,
			event{Type: "task.completed", Name: "in", ChannelID: "in", CallbackURL: "https://in/c", Customer: raw(`{"user_id":"in"}`), UserID: "in", Model: "in", Data: raw(`1`)}, true},

		{"channel in the header", headers, `{"data":1}`, event{ChannelID: "header-channel", CallbackURL: "https://api.modelriver.com/v1/callback/header-url", Data: raw(`1`)}, true},
		{"payload before the header", headers, `{"channel_id":"c","callback_url":"https://h/x","data":1}`, event{ChannelID: "c", CallbackURL: "https://h/x", Data: raw(`1`)}, true},
		{"channel in the callback URL of the header", onlyURL, `{"data":1}`, event{ChannelID: "header-url", CallbackURL: onlyURL.Get("X-ModelRiver-Callback-Url"), Data: raw(`1`)}, true},
		{"channel in the callback URL", nil, `{"callback_url":"https://api.modelriver.com/v1/callback/ch_1?a=b#c","data":1}`, event{ChannelID: "ch_1", CallbackURL: "https://api.modelriver.com/v1/callback/ch_1?a=b#c", Data: raw(`1`)}, true},
		{"callback URL that ends in a slash", nil, `{"callback_url":"https://h/v1/callback/","data":1}`, event{CallbackURL: "https://h/v1/callback/", Data: raw(`1`)}, true},
		{"callback URL without a channel", nil, `{"callback_url":"https://h/v1/callback","data":1}`, event{CallbackURL: "https://h/v1/callback", Data: raw(`1`)}, true},
		{"callback URL without a path", nil, `{"callback_url":"https://h","data":1}`, event{CallbackURL: "https://h", Data: raw(`1`)}, true},
		{"callback URL that is none", nil, `{"callback_url":"none","data":1}`, event{CallbackURL: "none", Data: raw(`1`)}, true},
		{"callback URL that cannot be one", nil, `{"callback_url":"https://h/%zz","data":1}`, event{CallbackURL: "https://h/%zz", Data: raw(`1`)}, true},
		{"callback URL empty", nil, `{"callback_url":"","channel_id":"c","data":1}`, event{ChannelID: "c", Data: raw(`1`)}, true},
		{"callback URL a number", nil, `{"callback_url":5,"channel_id":"c","data":1}`, event{ChannelID: "c", Data: raw(`1`)}, true},
		{"callback URL on a standard answer", nil, `{"type":"task.completed","callback_url":"https://h/callback/c","data":1}`, event{Type: "task.completed", ChannelID: "c", CallbackURL: "https://h/callback/c", Data: raw(`1`)}, true},

		{"ai_response without data", nil, `{"type":"task.ai_generated","ai_response":{}}`, event{Type: "task.ai_generated"}, false},
		{"ai_response null", nil, `{"type":"task.ai_generated","ai_response":null}`, event{Type: "task.ai_generated"}, false},
		{"ai_response null, data beside it", nil, `{"type":"task.ai_generated","ai_response":null,"data":{"title":"T"}}`, event{Type: "task.ai_generated", Data: raw(`{"title":"T"}`), Title: "T"}, true},
		{"ai_response before data", nil, `{"type":"task.ai_generated","ai_response":{"data":1},"data":{}}`, event{Type: "task.ai_generated", Data: raw(`1`)}, true},
		{"ai_response a string", nil, `{"type":"task.ai_generated","ai_response":"plain"}`, event{Type: "task.ai_generated", Data: raw(`"plain"`), Body: "plain"}, true},
		{"signed data before ai_response", signedData, `{"type":"task.ai_generated","ai_response":{"data":1},"data":{"a":2}}`, event{Type: "task.ai_generated", Data: raw(`{"a":2}`)}, true},
		{"signed envelope before ai_response", signedData, `{"ai_response":{"data":1},"data":{"type":"task.completed","data":{"a":2}}}`, event{Type: "task.completed", Data: raw(`{"a":2}`)}, true},
		{"signed envelope without data", signedData, `{"ai_response":{"data":1},"data":{"type":"task.ai_generated"}}`, event{Type: "task.ai_generated"}, false},
		{"signed body without data", signedData, `{"ai_response":{"data":1}}`, event{Data: raw(`1`)}, true},
		{"AI data an array", nil, `{"ai_response":{"data":[{"title":"T"}]}}`, event{Data: raw(`[{"title":"T"}]`)}, true},
		{"AI data a string", nil, `{"ai_response":{"data":"a \"b\" \u00e9"}}`, event{Data: raw(`"a \"b\" \u00e9"`), Body: `a "b" é`}, true},
		{"AI data an empty string", nil, `{"ai_response":{"data":""}}`, event{Data: raw(`""`)}, true},
		{"AI data JSON in a string", nil, `{"ai_response":{"data":"{\"title\":\"T\"}"}}`, event{Data: raw(`"{\"title\":\"T\"}"`), Body: `{"title":"T"}`}, true},
		{"AI data a number", nil, `{"ai_response":{"data":1.0}}`, event{Data: raw(`1.0`)}, true},
		{"AI data false", nil, `{"ai_response":{"data":false}}`, event{Data: raw(`false`)}, true},
		{"AI data null", nil, `{"type":"task.ai_generated","ai_response":{"data":null}}`, event{Type: "task.ai_generated", Data: raw(`null`)}, true},
		{"AI data null without a type", nil, `{"ai_response":{"data":null}}`, event{}, false},
		{"AI data null with an error", nil, `{"type":"task.ai_generated","ai_response":{"data":null},"error":"x"}`, event{Type: "task.ai_generated", Error: "x"}, false},
		{"AI data with an error beside it", nil, `{"type":"task.ai_generated","ai_response":{"data":{}},"error":"x"}`, event{Type: "task.ai_generated", Data: raw(`{}`)}, true},

		{"title a number", nil, `{"data":{"title":1.50}}`, event{Data: raw(`{"title":1.50}`), Title: "1.50"}, true},
		{"title an object", nil, `{"data":{"title":{"a":1},"text":"x"}}`, event{Data: raw(`{"title":{"a":1},"text":"x"}`), Body: "x"}, true},
		{"title null", nil, `{"data":{"title":null,"content":"x"}}`, event{Data: raw(`{"title":null,"content":"x"}`), Body: "x"}, true},
		{"description before body", nil, `{"data":{"body":"b","description":"d"}}`, event{Data: raw(`{"body":"b","description":"d"}`), Body: "d"}, true},
		{"description empty", nil, `{"data":{"description":"","body":"b","content":"c"}}`, event{Data: raw(`{"description":"","body":"b","content":"c"}`), Body: "b"}, true},
		{"choices empty", nil, `{"data":{"choices":[]}}`, event{Data: raw(`{"choices":[]}`)}, true},
		{"choices of another kind", nil, `{"data":{"choices":[ "x" , {}],"response":{"choices":{"0":1}}}}`, event{Data: raw(`{"choices":[ "x" , {}],"response":{"choices":{"0":1}}}`)}, true},
		{"choices with content of another kind", nil, `{"data":{"choices":[{"message":{"content":[]}}]}}`, event{Data: raw(`{"choices":[{"message":{"content":[]}}]}`)}, true},
		{"choices, the first of two", nil, `{"data":{"choices":[ {"message":{"content":"1"}} ,{"message":{"content":"2"}}]}}`, event{Data: raw(`{"choices":[ {"message":{"content":"1"}} ,{"message":{"content":"2"}}]}`), Body: "1"}, true},

		{"meta beside and in ai_response", nil, `{"meta":{"model":"top"},"ai_response":{"data":1,"meta":{"model":"in"}}}`, event{Data: raw(`1`), Model: "top"}, true},
		{"meta in ai_response", nil, `{"meta":null,"ai_response":{"data":1,"meta":{"used_model":"in","used_provider":"p"}}}`, event{Data: raw(`1`), Model: "in", Provider: "p"}, true},
		{"model of another kind", nil, `{"meta":{"model":4,"used_model":"m","provider":{}},"data":1}`, event{Data: raw(`1`), Model: "m"}, true},
		{"model in AI data", nil, `{"channel_id":"c","data":{"model":"T-800"}}`, event{ChannelID: "c", Data: raw(`{"model":"T-800"}`)}, true},

		{"category a number", nil, `{"customer_data":{"category":1}}`, event{Customer: raw(`{"category":1}`)}, false},
		{"customer_data empty", nil, `{"customer_data":{},"cached_data":{"user_id":"u"}}`, event{Customer: raw(`{}`)}, false},
		{"customer_data an array", nil, `{"customer_data":["user_id"]}`, event{}, false},
		{"customer_data as sent", nil, `{"customer_data":{ "n" : 9007199254740993 , "n" : 1.0 }}`, event{Customer: raw(`{ "n" : 9007199254740993 , "n" : 1.0 }`)}, false},
		{"deep nesting", nil, `{"data":` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000) + `}`, event{Data: raw(strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000))}, true},
		{"invalid UTF-8", nil, "{\"event\":\"a\xffb\",\"data\":{\"title\":\"\xc3\",\"\xfe\":1}}", event{Name: "a\uFFFDb", Title: "\uFFFD", Data: raw("{\"title\":\"\xc3\",\"\xfe\":1}")}, true},
		{"braces and quotes in text", nil, `{"x":"}],\"{[","y\"":"\\","data":{"a":"\\\"}"}}`, event{Data: raw(`{"a":"\\\"}"}`)}, true},
		{"many members", nil, `{` + strings.Repeat(`"x":1,`, 100_000) + `"data":1}`, event{Data: raw(`1`)}, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			checkEvent(t, row.header, []byte(row.payload), row.want, row.stores)
		})
	}
}

// A user's content is never public because their id is of an odd kind.
func TestParseEventUserID(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ customer, want string }{
		{`{"user_id":"u1"}`, "u1"},
		{`{"user_id":"\u00e9"}`, "é"},
		{`{"user_id":9007199254740993}`, "9007199254740993"},
		{`{"user_id":-1.50}`, "-1.50"},
		{`{"user_id":0}`, "0"},
		{`{"user_id":false}`, "false"},
		{`{"user_id":{"id":"u1"}}`, `{"id":"u1"}`},
		{`{"user_id":["u1"]}`, `["u1"]`},
		{`{"user_id":{}}`, `{}`},
		{`{"user_id":" "}`, " "},
		{`{"user_id":"\ud800"}`, "\uFFFD"},
		{`{"metadata.user_id":"u2"}`, "u2"},
		{`{"metadata.user_id":2}`, "2"},
		{`{"metadata.user_id":{"id":2}}`, `{"id":2}`},
		{`{"metadata.user_id":"u2","user_id":"u1"}`, "u1"},
		{`{"metadata.user_id":"u2","user_id":null}`, "u2"},
		{`{"metadata.user_id":"u2","user_id":""}`, "u2"},
		{`{"metadata":{"user_id":"u3"}}`, ""},
		{`{"user_id":null}`, ""},
		{`{"user_id":""}`, ""},
		{`{"USER_ID":"u1"}`, ""},
	} {
		got, err := modelriver.ParseEvent(nil, []byte(`{"data":1,"customer_data":`+row.customer+`}`))
		if err != nil || got.UserID != row.want {
			t.Errorf("%s: got %q, %v, want %q", row.customer, got.UserID, err, row.want)
		}
	}
}

// 1 MB of every kind of text and number comes out byte for byte, also of the callback.
func TestParseEventLarge(t *testing.T) {
	t.Parallel()
	const part = `{"n":9007199254740993,"f":1.0,"é":"\ud83d\ude00 \ud800 \u0000 <&> 漢"},`
	data := `{"title":"T","list":[` + strings.Repeat(part, 1<<20/len(part)) + `null]}`
	payload := []byte(`{"type":"task.ai_generated","channel_id":"c","ai_response":{"data":` + data + `}}`)
	checkEvent(t, nil, payload, event{Type: "task.ai_generated", ChannelID: "c", Data: raw(data), Title: "T"}, true)
	if !json.Valid(payload) {
		t.Error("the payload was changed")
	}
}

func TestParseEventErrors(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string]string{
		"nothing":         "",
		"white space":     " \n",
		"null":            "null",
		"array":           "[{}]",
		"string":          `"{}"`,
		"number":          "1",
		"text":            "hello",
		"form":            "payload=%7B%7D",
		"byte order mark": "\ufeff{}",
		"truncated":       `{"type":"task.completed"`,
		"in a string":     `{"type":"task`,
		"single quotes":   `{'type':1}`,
		"trailing comma":  `{"type":1,}`,
		"comment":         `{/* */}`,
		"NaN":             `{"a":NaN}`,
		"leading zero":    `{"a":01}`,
		"control byte":    "{\"a\":\"\x01\"}",
		"NUL after it":    "{}\x00",
		"two objects":     "{}{}",
		"two lines":       "{}\n{}\n",
		"too deep":        strings.Repeat(`{"a":`, 10_001) + "1" + strings.Repeat("}", 10_001),
		"endless nesting": strings.Repeat(`{"a":`, 1<<18),
	} {
		if got, err := modelriver.ParseEvent(nil, []byte(payload)); err == nil || !strings.HasPrefix(err.Error(), "parse event: ") {
			t.Errorf("%s: got %v, %v, want an error", name, got, err)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("testdata: %d files, %v", len(files), err)
	}
	for _, file := range files {
		payload, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("", payload)
		f.Add("https://api.modelriver.com/v1/callback/c", payload)
	}
	for _, payload := range []string{
		``, `{}`, ` { "a" : [ ] , "b" : { } } `, `{"data":"\ud800\u0000"}`, "{\"\xff\":\"\xff\"}", `{"a":"\\","data":{"b":"\""}}`,
		`{"d\u0061ta":1.0,"data":-0}`, `{"data":[[[{}]]]}`, `{"ai_response":{"data":{"choices":[ {"message":{"content":"x"}}]}}}`,
	} {
		f.Add("x", []byte(payload))
	}
	f.Fuzz(func(t *testing.T, callbackURL string, payload []byte) {
		header := http.Header{}
		header.Set("X-ModelRiver-Callback-Url", callbackURL)
		before := bytes.Clone(payload)
		got, err := modelriver.ParseEvent(header, payload)
		if !bytes.Equal(before, payload) {
			t.Fatal("the payload was changed")
		}

		// encoding/json has the same idea of what an object is, and of its members.
		var members map[string]json.RawMessage
		isObject := json.Unmarshal(payload, &members) == nil && members != nil
		if isObject != (err == nil) {
			t.Fatalf("got %v", err)
		}
		if err != nil {
			if out, err := rawjson.SetMembers(payload); err == nil {
				t.Fatalf("SetMembers took it: %s", out)
			}
			return
		}
		for _, part := range []json.RawMessage{got.Data, got.Customer} {
			if part != nil && (!json.Valid(part) || !bytes.Contains(payload, part)) {
				t.Fatalf("%q is no JSON of the payload", part)
			}
		}
		if got.Stores() && got.Data == nil {
			t.Fatal("stores nothing")
		}

		const name, value = "data", `"\ud800 1.0"`
		out, err := rawjson.SetMembers(payload, rawjson.Member{Name: name, Value: raw(value)})
		if err != nil {
			t.Fatal(err)
		}
		var set map[string]json.RawMessage
		if err := json.Unmarshal(out, &set); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		members[name] = raw(value)
		if !reflect.DeepEqual(members, set) {
			t.Fatalf("got  %s\nwant %s", set, members)
		}
		if got.Data != nil {
			if body, err := modelriver.CallbackBody(got.Data, "c", "r", time.Now()); err != nil || !json.Valid(body) {
				t.Fatalf("callback body: %s, %v", body, err)
			}
		}
	})
}

// An error callback is owed where ModelRiver waits for a callback to nothing.
func TestLacksData(t *testing.T) {
	t.Parallel()
	const callback = `"callback_url":"https://api.modelriver.com/v1/callback/c1"`
	for payload, want := range map[string]bool{
		`{"type":"task.ai_generated",` + callback + `}`:                                                  true,
		`{"type":"task.ai_generated","ai_response":{},` + callback + `}`:                                 true,
		`{"type":"task.completed","data":null,"error":"down",` + callback + `}`:                          true,
		`{"ai_response":null,` + callback + `}`:                                                          true,
		`{"channel_id":"c1","data":{"type":"task.ai_generated",` + callback + `}}`:                       true,
		`{"type":"task.ai_generated"}`:                                                                   false,
		`{"type":"task.ai_generated","callback_url":""}`:                                                 false,
		`{"type":"task.ai_generated","ai_response":{"data":{}},` + callback + `}`:                        false,
		`{"type":"task.ai_generated","ai_response":{"data":null},` + callback + `}`:                      false,
		`{"type":"task.failed","error":"down",` + callback + `}`:                                         false,
		`{"type":"task.completed","data":{"title":"T"},"error":"of the answer before",` + callback + `}`: false,
	} {
		event, err := modelriver.ParseEvent(nil, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		if got := event.LacksData(); got != want || got && event.Stores() {
			t.Errorf("%s: got %v, want %v", payload, got, want)
		}
	}
}

package hooks

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// wantReadable reads the records in every way that an answer is made.
func wantReadable(t *testing.T, server *testServer, want int) {
	t.Helper()
	for _, query := range []string{"", "?fields=*", "?fields=id,data", "?fields=metadata.x,data.n", "?filter=" + url.QueryEscape("data.none != 1 && metadata.none != 1")} {
		status, body := server.call(t, "", http.MethodGet, "/api/collections/aiContent/records"+query, "")
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || len(list.Items) != want {
			t.Errorf("list%s: got %d with %d bytes and %d records, %v; want 200 with %d records", query, status, len(body), len(list.Items), err, want)
		}
	}
	for _, record := range records(t, server, store.Content) {
		status, body := server.call(t, "", http.MethodGet, "/api/collections/aiContent/records/"+record.Id+"?fields=id,data", "")
		if status != 200 || !json.Valid([]byte(body)) {
			t.Errorf("view: got %d %.100s", status, body)
		}
	}
}

// No value that a webhook brings breaks an answer that holds its record, and ModelRiver
// gets it back as it sent it.
func TestIngestStoresWhatReadersCanDecode(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("9", 400)
	deep := strings.Repeat("[", rawjson.MaxNesting) + strings.Repeat("]", rawjson.MaxNesting)
	for _, row := range []struct {
		name, data, stored, callback string
	}{
		{"a number alone", `1e400`, `"1e400"`, `{"content":1e400`},
		{"numbers at any depth", `{"n":1e400,"a":[-1E+999,{"b":1.5e309}]}`, `{"n":"1e400","a":["-1E+999",{"b":"1.5e309"}]}`, `{"n":1e400,"a":[-1E+999,{"b":1.5e309}]`},
		{"many digits", `[` + digits + `,-` + digits + `]`, `["` + digits + `","-` + digits + `"]`, `{"items":[` + digits + `,-` + digits + `]`},
		{"numbers that fit, as sent", `{ "n": [1e308, 1e-400, -0, 12345678901234567890, 1.10, 1E5] }`, `{ "n": [1e308, 1e-400, -0, 12345678901234567890, 1.10, 1E5] }`, `{"n": [1e308, 1e-400, -0, 12345678901234567890, 1.10, 1E5]`},
		{"text and names that look like numbers", `{"1e400":"1e400","\"1e400":"\\\" 1e400 ,"}`, `{"1e400":"1e400","\"1e400":"\\\" 1e400 ,"}`, `{"1e400":"1e400","\"1e400":"\\\" 1e400 ,"`},
		{"names twice, NUL and half a surrogate pair", `{"n":1,"n":2,"x":"\u0000\ud800"}`, `{"n":1,"n":2,"x":"\u0000\ud800"}`, `{"n":1,"n":2,"x":"\u0000\ud800"`},
		{"invalid UTF-8", "{\"x\":\"\xff\",\"n\":1e400}", "{\"x\":\"\uFFFD\",\"n\":\"1e400\"}", "{\"x\":\"\uFFFD\",\"n\":1e400"},
		{"deep nesting", deep, deep, `{"items":` + deep},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			payload := generated("odd", row.data, rec.callbackURL("odd"))
			server.mustPost(t, strings.Replace(payload, `{"type"`, `{"customer_data":{"n":1e999,"x":{"y":[-1e999]}},"type"`, 1))

			record := only(t, server, store.Content)
			if got := record.GetString("data"); got != row.stored {
				t.Errorf("data: got %.200s, want %.200s", got, row.stored)
			}
			if got, want := record.GetString("metadata"), `{"n":"1e999","x":{"y":["-1e999"]}}`; got != want {
				t.Errorf("metadata: got %s, want %s", got, want)
			}
			if got := rec.await(t, 1)[0].body; !strings.HasPrefix(got, `{"data":`+row.callback) {
				t.Errorf("callback: got %.200s, want %.200s", got, row.callback)
			}
			wantReadable(t, server, 1)
		})
	}
}

// What nests so deep that an answer with it could not be made is refused.
func TestIngestRefusesWhatIsTooDeep(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 9990) + strings.Repeat("]", 9990)
	for name, payload := range map[string]string{
		"data":     `{"type":"task.completed","channel_id":"deep","data":` + deep + `}`,
		"metadata": `{"type":"task.completed","channel_id":"deep","data":{},"customer_data":{"x":` + deep + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, testConfig())
			server.mustPost(t, `{"type":"task.completed","channel_id":"fine","data":{}}`)
			server.mustPost(t, payload)
			row := awaitState(t, server, store.Failed)
			if got := row.GetString("lastError"); !strings.HasPrefix(got, "refused: "+name+": ") || !strings.Contains(got, "nested deeper than") {
				t.Errorf("reason: got %s", got)
			}
			wantReadable(t, server, 1)
		})
	}
}

// A hook's own values go through the same, and those of the dashboard.
func TestHooksCannotStoreWhatBreaksReaders(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name             string
		hook             func(e *core.RecordEvent) error
		stored, callback string
	}{
		{"a hook that changes data", func(e *core.RecordEvent) error {
			e.Record.Set("data", types.JSONRaw(`{"n":1e500,"own":true}`))
			return e.Next()
		}, `{"n":"1e500","own":true}`, `{"n":"1e500","own":true,`},
		{"a hook that decodes data", func(e *core.RecordEvent) error {
			var data map[string]any
			if err := e.Record.UnmarshalJSONField("data", &data); err != nil {
				return err
			}
			data["own"] = true
			e.Record.Set("data", data)
			return e.Next()
		}, `{"n":"1e400","own":true}`, `{"n":"1e400","own":true,`},
		{"a hook that changes something else", func(e *core.RecordEvent) error {
			e.Record.Set("metadata", types.JSONRaw(`{"n":-1e500}`))
			return e.Next()
		}, `{"n":"1e400"}`, `{"n":1e400,`},
		{"a hook that saves again", func(e *core.RecordEvent) error {
			if err := e.Next(); err != nil {
				return err
			}
			again, err := e.App.FindRecordById(store.Content, e.Record.Id)
			if err != nil {
				return err
			}
			again.Set("data", types.JSONRaw(`[1e500]`))
			return e.App.Save(again)
		}, `["1e500"]`, `{"n":1e400,`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			server.OnRecordCreate(store.Content).BindFunc(row.hook)
			server.mustPost(t, generated("hooked", `{"n":1e400}`, rec.callbackURL("hooked")))
			if got := only(t, server, store.Content).GetString("data"); got != row.stored {
				t.Errorf("data: got %s, want %s", got, row.stored)
			}
			if got := rec.await(t, 1)[0].body; !strings.HasPrefix(got, `{"data":`+row.callback) {
				t.Errorf("callback: got %s, want %s", got, row.callback)
			}
			wantReadable(t, server, 1)
		})
	}

	t.Run("a superuser", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("edited", `{}`, ""))
		root := superuserToken(t, server)
		path := "/api/collections/aiContent/records/" + only(t, server, store.Content).Id
		if status, body := server.call(t, root, http.MethodPatch, path, `{"data":"{\"n\":1e400}"}`); status != 200 {
			t.Fatalf("edit: got %d %s", status, body)
		}
		if got := only(t, server, store.Content).GetString("data"); got != `{"n":"1e400"}` {
			t.Errorf("data: got %s", got)
		}
		deep, _ := json.Marshal(map[string]string{"data": strings.Repeat("[", 9990) + strings.Repeat("]", 9990)})
		if status, body := server.call(t, root, http.MethodPatch, path, string(deep)); status != 400 {
			t.Errorf("an edit that nests too deep: got %d %.200s, want 400", status, body)
		}
		wantReadable(t, server, 1)
	})
}

// ModelRiver gets its own bytes also from an event that was refused at first.
func TestIngestAgainKeepsNumbers(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	id := server.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("not yet") })
	server.mustPost(t, generated("again", `{"n":1e400}`, rec.callbackURL("again")))
	awaitState(t, server, store.Failed)
	server.OnRecordCreate(store.Content).Unbind(id)
	setPending(t, server, "", nil)
	awaitState(t, server, store.Delivered)
	if got := rec.await(t, 2)[1].body; !strings.HasPrefix(got, `{"data":{"n":1e400,`) {
		t.Errorf("callback: got %s", got)
	}
	wantReadable(t, server, 1)
}

// A page that listens gets every event, however it asks for it.
func TestBroadcastOfWhatReadersCouldNotDecode(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	streams := []*apptest.Stream{
		server.Subscribe(t, "", "aiContent/*"),
		server.Subscribe(t, "", `aiContent/*?options={"query":{"fields":"id,data"}}`),
	}
	server.mustPost(t, generated("live", `{"n":1e400}`, ""))
	for i, s := range streams {
		select {
		case event := <-s.Events:
			if !strings.Contains(event, `"n":"1e400"`) {
				t.Errorf("stream %d: got %s", i, event)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("stream %d: no event", i)
		}
	}
}

var jsonValues = []string{
	`1.10`, `12345678901234567890`, `-0`, `1e5`, `0.1000`, `5`, `true`, `null`, `"text"`, `"5"`, `[1.0, 2]`, `{ "n": 1.50 }`, ` 7 `,
}

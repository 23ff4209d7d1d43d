package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// call sends a request to PocketBase's API and returns the status and body of the
// answer.
func (s *testServer) call(t testing.TB, token, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

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

// Every JSON value is kept byte for byte, those that are no object or array too.
func TestIngestKeepsEveryValue(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	wantValues(t, server, "first")
}

func wantValues(t *testing.T, server *testServer, prefix string) {
	t.Helper()
	for i, value := range jsonValues {
		value = strings.TrimSpace(value)
		channel := fmt.Sprintf("%s-%d", prefix, i)
		server.mustPost(t, fmt.Sprintf(`{"type":"task.completed","channel_id":%q,"data":%s}`, channel, value))
		record, err := server.FindFirstRecordByData(store.Content, "channelId", channel)
		if err != nil {
			t.Fatal(err)
		}
		if got := record.GetString("data"); got != value {
			t.Errorf("%s: data: got %s, want %s", prefix, got, value)
		}
		status, body := server.call(t, "", http.MethodGet, "/api/collections/aiContent/records/"+record.Id, "")
		if want := `"data":` + compact(t, value) + `,`; status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: API: got %s, want %s in it", prefix, body, want)
		}
	}
}

// Filters and sorts read the value of the JSON text, and ?fields= rounds numbers.
func TestDataIsComparedByValue(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	for i, data := range []string{"10", "1.10", "12345678901234567890", "9", `{"n":12345678901234567890}`} {
		server.mustPost(t, fmt.Sprintf(`{"type":"task.completed","channel_id":"c%d","data":%s}`, i, data))
	}
	list := func(query url.Values) string {
		_, body := server.call(t, "", http.MethodGet, "/api/collections/aiContent/records?"+query.Encode(), "")
		var list struct {
			Items []struct{ Data json.RawMessage }
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		var values []string
		for _, item := range list.Items {
			values = append(values, string(item.Data))
		}
		return strings.Join(values, " ")
	}
	for _, row := range []struct {
		query url.Values
		want  string
	}{
		{url.Values{"filter": {"data > 9.5 && data < 100000000000000000000000"}, "sort": {"data"}}, "10 12345678901234567890"},
		{url.Values{"filter": {"data = 1.1"}}, "1.10"},
		{url.Values{"filter": {"data.n > 5"}}, `{"n":12345678901234567890}`},
		{url.Values{"filter": {"data < 100000000000000000000000"}, "sort": {"data"}}, "1.10 9 10 12345678901234567890"},
		{url.Values{"filter": {"data > 10000000000000000000 && data < 100000000000000000000000"}, "fields": {"data"}}, "12345678901234567000"},
	} {
		if got := list(row.query); got != row.want {
			t.Errorf("%v: got %s, want %s", row.query, got, row.want)
		}
	}
	var sorted []string
	if err := server.DB().NewQuery("SELECT data FROM aiContent WHERE data < '~' AND data NOT LIKE '{%' ORDER BY data").Column(&sorted); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(sorted, " "); got != "1.10 10 12345678901234567890 9" {
		t.Errorf("in SQL: got %s", got)
	}
}

// The column stays one of text, whatever the dashboard does with the collection.
func TestDataStaysText(t *testing.T) {
	t.Parallel()
	change := func(do func(c *core.Collection)) func(t *testing.T, server *testServer) {
		return func(t *testing.T, server *testServer) {
			collection, err := server.FindCollectionByNameOrId(store.Content)
			if err != nil {
				t.Fatal(err)
			}
			do(collection)
			if err := server.Save(collection); err != nil {
				t.Fatal(err)
			}
		}
	}
	export := func(t *testing.T, server *testServer) []map[string]any {
		var exported []map[string]any
		for _, name := range []string{store.Content, store.Callbacks} {
			collection, err := server.FindCollectionByNameOrId(name)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := json.Marshal(collection)
			one := map[string]any{}
			if err := json.Unmarshal(raw, &one); err != nil {
				t.Fatal(err)
			}
			exported = append(exported, one)
		}
		return exported
	}
	for _, row := range []struct {
		name   string
		change func(t *testing.T, server *testServer)
	}{
		{"an option of the field", change(func(c *core.Collection) { c.Fields.GetByName("data").(*core.JSONField).MaxSize = 1 << 20 })},
		{"another field is renamed", change(func(c *core.Collection) {
			c.Fields.Add(&core.TextField{Name: "own"})
			c.Fields.GetByName("own").SetName("mine")
		})},
		{"the field is renamed and renamed back", func(t *testing.T, server *testServer) {
			change(func(c *core.Collection) { c.Fields.GetByName("data").SetName("answer") })(t, server)
			change(func(c *core.Collection) { c.Fields.GetByName("answer").SetName("data") })(t, server)
		}},
		{"the field is deleted and added", func(t *testing.T, server *testServer) {
			change(func(c *core.Collection) { c.Fields.RemoveByName("data") })(t, server)
			change(func(c *core.Collection) { c.Fields.Add(&core.JSONField{Name: "data"}) })(t, server)
		}},
		{"an import over what is there", func(t *testing.T, server *testServer) {
			if err := server.ImportCollections(export(t, server), false); err != nil {
				t.Fatal(err)
			}
		}},
		{"an import of what was deleted", func(t *testing.T, server *testServer) {
			exported := export(t, server)
			deleteCollection(t, server, store.Callbacks)
			deleteCollection(t, server, store.Content)
			if err := server.ImportCollections(exported, false); err != nil {
				t.Fatal(err)
			}
		}},
		{"a start on a column that another program made", func(t *testing.T, server *testServer) {
			toJSONColumn(t, server)
			*server = *restarted(t, server)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, testConfig())
			row.change(t, server)
			wantValues(t, server, "after")
		})
	}
}

// toJSONColumn gives the field data the column that PocketBase makes for it.
func toJSONColumn(t testing.TB, app core.App) {
	t.Helper()
	for _, statement := range []string{
		"ALTER TABLE aiContent DROP COLUMN data",
		"ALTER TABLE aiContent ADD COLUMN data JSON DEFAULT NULL",
	} {
		if _, err := app.NonconcurrentDB().NewQuery(statement).Execute(); err != nil {
			t.Fatal(err)
		}
	}
}

// The migration keeps what is there: values, row ids, and what depends on the column.
func TestMigrationMakesDataText(t *testing.T) {
	t.Parallel()
	app := newEmptyApp(t)
	for _, migration := range core.AppMigrations.Items() {
		if strings.Contains(migration.File, "_modelriver_") && migration.File < "1767225800" {
			if err := migration.Up(app); err != nil {
				t.Fatal(err)
			}
		}
	}
	execute := func(statement string, params dbx.Params) {
		t.Helper()
		if _, err := app.NonconcurrentDB().NewQuery(statement).Bind(params).Execute(); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	column := func(query string) string {
		t.Helper()
		var values []string
		if err := app.DB().NewQuery(query).Column(&values); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return strings.Join(values, "\n")
	}
	const declared = "SELECT type FROM pragma_table_info('aiContent') WHERE name = 'data'"
	if got := column(declared); got != "JSON" {
		t.Fatalf("column before: got %s", got)
	}

	// Of a number that PocketBase's column took only the value is there.
	rows := []struct{ value, want string }{
		{`{"n": 1.50}`, `{"n": 1.50}`}, {`5`, `5`}, {`-9223372036854775808`, `-9223372036854775808`}, {`1.5`, `1.5`}, {`0.1`, `0.1`},
		{`0.30000000000000004`, `0.30000000000000004`}, {`12345678901234567890`, `1.2345678901234567e+19`}, {`1e300`, `1.0e+300`},
		{`1e999`, `"Infinity"`}, {`-1e999`, `"-Infinity"`}, {`{"a\\\"1e999":[-1e999,"1e999", 1E400]}`, `{"a\\\"1e999":["-1e999","1e999", "1E400"]}`},
		{strings.Repeat("9", 400), `"Infinity"`}, {`[` + strings.Repeat("9", 400) + `]`, `["` + strings.Repeat("9", 400) + `"]`},
		{`"x"`, `"x"`}, {`null`, `null`}, {`true`, `true`}, {`[]`, `[]`},
	}
	for i, row := range rows {
		execute("INSERT INTO aiContent (rowid, id, title, data, metadata) VALUES ({:row}, {:id}, 'T', {:data}, {:metadata})", dbx.Params{
			"row": 10 * i, "id": fmt.Sprintf("%015d", i), "data": row.value, "metadata": `{"n":1e999}`,
		})
	}
	execute("INSERT INTO aiContent (rowid, id, title) VALUES (9999, 'withoutanyvalue', 'T')", nil)
	execute("CREATE TABLE log (id TEXT)", nil)
	execute("CREATE TRIGGER changed AFTER UPDATE ON aiContent BEGIN INSERT INTO log VALUES (new.data); END", nil)
	execute("CREATE TRIGGER elsewhere AFTER DELETE ON log BEGIN UPDATE aiContent SET title = 'gone' WHERE data = old.id; END", nil)
	content, err := app.FindCollectionByNameOrId(store.Content)
	if err != nil {
		t.Fatal(err)
	}
	content.AddIndex("idx_own_n", false, "json_extract(data, '$.n')", "data != ''")
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
	view := core.NewViewCollection("answers")
	view.ViewQuery = "SELECT id, data FROM aiContent"
	if err := app.Save(view); err != nil {
		t.Fatal(err)
	}
	const schema = "SELECT type || ' ' || name || ' ' || sql FROM sqlite_master WHERE sql IS NOT NULL AND type != 'table' ORDER BY type, name"
	before := column(schema)

	for range 2 { // it can be applied twice
		runner := core.NewMigrationsRunner(app, core.AppMigrations)
		if _, err := runner.Down(len(core.AppMigrations.Items())); err != nil {
			t.Fatal(err)
		}
		if _, err := runner.Up(); err != nil {
			t.Fatal(err)
		}
		if got := column(declared); got != "TEXT" {
			t.Errorf("column: got %s, want TEXT", got)
		}
		for i, row := range rows {
			if got := column(fmt.Sprintf("SELECT data FROM aiContent WHERE rowid = %d AND id = '%015d'", 10*i, i)); got != row.want {
				t.Errorf("%.50s: got %.100s, want %.100s", row.value, got, row.want)
			}
		}
		if got := column("SELECT COUNT(*) FROM aiContent WHERE rowid = 9999 AND data IS NULL AND metadata IS NULL"); got != "1" {
			t.Errorf("rows without any value: got %s, want 1", got)
		}
		if got := column("SELECT DISTINCT metadata FROM aiContent WHERE metadata IS NOT NULL"); got != `{"n":"1e999"}` {
			t.Errorf("metadata: got %s", got)
		}
		if got := column(schema); got != before {
			t.Errorf("views, triggers and indexes: got\n%s\nwant\n%s", got, before)
		}
		// Of metadata in every row, and of data in two.
		if got, want := column("SELECT COUNT(*) FROM log"), fmt.Sprint(len(rows)+2); got != want {
			t.Errorf("a trigger ran %s times, want %s: for what was mended only", got, want)
		}
		if got := column("PRAGMA integrity_check"); got != "ok" {
			t.Errorf("integrity: %s", got)
		}
	}
	if records, err := app.FindAllRecords("answers"); err != nil || len(records) != len(rows)+1 {
		t.Errorf("view: got %d records, %v", len(records), err)
	}
}

// A callback that ModelRiver waits for is not left out because there is no AI data: the
// user's page would wait for it in vain.
func TestIngestWithoutData(t *testing.T) {
	t.Parallel()
	const reason = "refused: the webhook carries no AI data"
	for _, row := range []struct {
		name, aiResponse, more string
		called                 bool
	}{
		{"no ai_response", ``, ``, true},
		{"an empty ai_response", `,"ai_response":{}`, ``, true},
		{"an error", `,"ai_response":{"data":null}`, `,"error":{"message":"the provider is down"}`, true},
		{"no callback URL", ``, ``, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			event := func(aiResponse, more string) string {
				callback := ""
				if row.called {
					callback = fmt.Sprintf(`,"callback_url":%q,"callback_required":true`, rec.callbackURL("none"))
				}
				return `{"type":"task.ai_generated","event":"new_content","channel_id":"none"` + aiResponse + more + callback + `}`
			}
			payload := event(row.aiResponse, row.more)
			server.mustPost(t, payload)
			if got := len(records(t, server, store.Content)); got != 0 {
				t.Errorf("records: got %d, want 0", got)
			}
			if !row.called {
				if got := len(records(t, server, store.Callbacks)); got != 0 {
					t.Errorf("callback rows: got %d, want 0", got)
				}
				return
			}
			if got, want := rec.await(t, 1)[0].body, `{"error":"processing_failed","message":"`+reason+`"}`; got != want {
				t.Errorf("callback: got %s, want %s", got, want)
			}
			failed := awaitState(t, server, store.Failed)
			if failed.GetString("lastError") != reason || failed.GetString("payload") != payload {
				t.Errorf("row: got error %q and payload %s", failed.GetString("lastError"), failed.GetString("payload"))
			}
			s, err := server.plugin.readStatus()
			if err != nil || s.Refused != 1 || s.Received != 1 {
				t.Errorf("status: got %+v, %v; want it among the refused", s, err)
			}

			// It is refused again, and stored once it has data.
			setPending(t, server, "", nil)
			awaitState(t, server, store.Failed)
			server.mustPost(t, event(`,"ai_response":{"data":{"title":"There now"}}`, ""))
			awaitState(t, server, store.Delivered)
			if got := only(t, server, store.Content).GetString("title"); got != "There now" {
				t.Errorf("title: got %s", got)
			}
			server.mustPost(t, payload) // and stays stored
			if got := only(t, server, store.Content).GetString("title"); got != "There now" {
				t.Errorf("title after another one without data: got %s", got)
			}
			if got := only(t, server, store.Callbacks).GetString("state"); got != store.Delivered {
				t.Errorf("state after another one without data: got %s", got)
			}
		})
	}
}

package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

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
		for _, name := range []string{store.Content, store.Callbacks, store.Requests} {
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
			deleteCollection(t, server, store.Requests)
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
	listsMigration(t, app) // its indexes are there in the end
	view := core.NewViewCollection("answers")
	view.ViewQuery = "SELECT id, data FROM aiContent"
	if err := app.Save(view); err != nil {
		t.Fatal(err)
	}
	const schema = "SELECT type || ' ' || name || ' ' || sql FROM sqlite_master WHERE sql IS NOT NULL AND type != 'table' AND tbl_name NOT IN ('aiRequests', 'modelriverChannels', 'modelriverAttempts', 'modelriverRejections') ORDER BY type, name"
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

package hooks

import (
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// newEmptyApp returns an app on which no migration of the plugin has run, as a host's
// that has not yet added it.
func newEmptyApp(t *testing.T) *tests.TestApp {
	t.Helper()
	app := apptest.NewApp(t)
	for _, name := range []string{store.Rejections, store.Attempts, store.Requests, store.Channels, store.Callbacks, store.Content} {
		deleteCollection(t, app, name)
	}
	if _, err := app.NonconcurrentDB().NewQuery("DELETE FROM _migrations WHERE file LIKE '%_modelriver_%'").Execute(); err != nil {
		t.Fatal(err)
	}
	return app
}

func deleteCollection(t *testing.T, app core.App, name string) {
	t.Helper()
	collection, err := app.FindCollectionByNameOrId(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Delete(collection); err != nil {
		t.Fatal(err)
	}
}

func textFields(names ...string) []core.Field {
	var fields []core.Field
	for _, name := range names {
		fields = append(fields, &core.TextField{Name: name})
	}
	return fields
}

func TestMigration(t *testing.T) {
	t.Parallel()
	complete := append(textFields("title", "category", "channelId", "eventName", "userId", "source", "own"),
		&core.EditorField{Name: "body"}, &core.JSONField{Name: "metadata"}, &core.JSONField{Name: "data"},
		&core.AutodateField{Name: "created", OnCreate: true}, &core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true})
	for _, row := range []struct {
		name, collection string
		fields           []core.Field
		errorHas         []string
	}{
		{"adopts a collection that has the needed fields", "aiContent", complete, nil},
		{"names what is missing and of another type", "aiContent", append(textFields("title", "body", "data"), &core.NumberField{Name: "userId"}),
			[]string{"data (json)", "userId (text)", "metadata (json)", "channelId (text)", "created (autodate)"}},
		{"refuses another spelling", "AICONTENT", complete, []string{`"aiContent" in this spelling`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			app := newEmptyApp(t)
			existing := core.NewBaseCollection(row.collection)
			existing.Fields.Add(row.fields...)
			if err := app.Save(existing); err != nil {
				t.Fatal(err)
			}
			record := core.NewRecord(existing)
			record.Set("title", "Here before")
			if err := app.Save(record); err != nil {
				t.Fatal(err)
			}

			err := app.RunAllMigrations()
			for _, want := range row.errorHas {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error: got %v, want %s in it", err, want)
				}
			}
			if _, found := app.FindRecordById(row.collection, record.Id); found != nil {
				t.Errorf("the record that was there: %v", found)
			}
			if len(row.errorHas) > 0 {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			adopted, err := app.FindCollectionByNameOrId("aiContent")
			if err != nil || adopted.Fields.GetByName("own") == nil || adopted.ListRule != nil {
				t.Errorf("adopted collection: got %v, %v; want it as it was", adopted, err)
			}

			// A webhook fits in, with the host's own limits.
			p, err := newPlugin(app, testConfig())
			if err != nil {
				t.Fatal(err)
			}
			p.bind()
			server := serve(t, app, p)
			server.mustPost(t, generated("adopted", `{"title":"`+strings.Repeat("x", 6000)+`","body":"`+strings.Repeat("y", 6000)+`"}`, ""))
			if got := len(records(t, app, store.Content)); got != 2 {
				t.Errorf("records: got %d, want 2", got)
			}
		})
	}
}

func TestMigrationDownKeepsDataAndUpIsRepeatable(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.mustPost(t, generated("kept", `{"title":"Kept"}`, ""))
	runner := core.NewMigrationsRunner(server, core.AppMigrations)
	for range 2 {
		if _, err := runner.Down(len(core.AppMigrations.Items())); err != nil {
			t.Fatal(err)
		}
		if got := only(t, server, store.Content).GetString("title"); got != "Kept" {
			t.Errorf("title after down: got %q", got)
		}
		if _, err := runner.Up(); err != nil {
			t.Fatal(err)
		}
	}
	server.mustPost(t, generated("kept", `{"title":"Kept"}`, ""))
	only(t, server, store.Content)
	for _, migration := range core.AppMigrations.Items() {
		if !strings.Contains(migration.File, "_modelriver_") {
			t.Errorf("migration %s does not carry the plugin's name", migration.File)
		}
	}
}

func TestMigrationIndexes(t *testing.T) {
	t.Parallel()
	app, _ := newTestApp(t, testConfig())
	for _, row := range []struct{ query, index string }{
		{"SELECT * FROM aiContent WHERE channelId = 'x'", "idx_modelriver_channel"},
		{"SELECT * FROM aiContent WHERE eventName = 'x'", "idx_modelriver_event"},
		{"SELECT * FROM aiContent ORDER BY created DESC, id DESC LIMIT 20", "idx_modelriver_created"},
		{"SELECT * FROM aiContent WHERE userId = 'x' ORDER BY created DESC", "idx_modelriver_user"},
		{"SELECT id FROM modelriverCallbacks WHERE state = 'pending' AND host = 'x' AND nextAttempt <= 'x' ORDER BY nextAttempt LIMIT 9", "idx_modelriver_due"},
		{"SELECT MIN(host) FROM modelriverCallbacks WHERE state = 'pending' AND host > 'x'", "idx_modelriver_due"},
		{"SELECT id FROM modelriverCallbacks WHERE state = 'delivered' AND deliveredAt < 'x'", "idx_modelriver_delivered"},
		{"SELECT id FROM aiRequests WHERE record = 'x'", "idx_modelriver_request_record"},
		{"SELECT id FROM aiRequests WHERE channelId = 'x'", "idx_modelriver_request_channel"},
		{"SELECT id FROM aiRequests WHERE state = 'queued' AND nextAttempt > 'x'", "idx_modelriver_request_due"},
		{"SELECT created FROM aiRequests WHERE state = 'answered' AND nextAttempt = '' ORDER BY rowid DESC LIMIT 9", "idx_modelriver_request_due"},
		{"SELECT * FROM aiRequests WHERE userId = 'x' ORDER BY created DESC", "idx_modelriver_request_user"},
		{"SELECT rowid FROM aiRequests WHERE created < 'x'", "COVERING INDEX idx_modelriver_request_user"},
		{"SELECT userId FROM modelriverChannels WHERE channelId = 'x'", "idx_modelriver_channel_id"},
		{"SELECT userId FROM modelriverChannels WHERE request = 'x'", "idx_modelriver_channel_request"},
		{"SELECT id FROM modelriverChannels WHERE userId = 'x'", "idx_modelriver_channel_user"},
		{"DELETE FROM modelriverChannels WHERE created < 'x'", "idx_modelriver_channel_created"},
		{"SELECT * FROM modelriverAttempts WHERE callback = 'x' ORDER BY at, rowid", "idx_modelriver_attempt_callback"},
		{"SELECT * FROM modelriverRejections WHERE hour >= 'x' ORDER BY hour, reason", "idx_modelriver_rejections"},
	} {
		var plan []struct {
			Detail string `db:"detail"`
		}
		if err := app.DB().NewQuery("EXPLAIN QUERY PLAN " + row.query).All(&plan); err != nil {
			t.Fatal(err)
		}
		if len(plan) != 1 || !strings.Contains(plan[0].Detail, row.index) {
			t.Errorf("%s: got plan %v, want %s", row.query, plan, row.index)
		}
	}
}

// A collection that was changed under a running server costs nothing that was
// acknowledged, and once it is mended, webhooks are stored again.
func TestSchemaProblems(t *testing.T) {
	t.Parallel()
	removeData := func(t *testing.T, app core.App) {
		collection, _ := app.FindCollectionByNameOrId(store.Content)
		collection.Fields.RemoveByName("data")
		if err := app.Save(collection); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) func(*testing.T, core.App) {
		return func(t *testing.T, app core.App) {
			collection, _ := app.FindCollectionByNameOrId(from)
			collection.Name = to
			if err := app.Save(collection); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name   string
		breaks func(t *testing.T, app core.App)
		answer string
		mends  func(t *testing.T, app core.App)
	}{
		{"a field is removed", removeData, `lacks fields: add data (json) in the dashboard`, func(t *testing.T, app core.App) {
			collection, _ := app.FindCollectionByNameOrId(store.Content)
			collection.Fields.Add(&core.JSONField{Name: "data"})
			if err := app.Save(collection); err != nil {
				t.Fatal(err)
			}
		}},
		{"the collection is renamed", rename(store.Content, "posts"), `was renamed to \"posts\": rename it back`, rename("posts", store.Content)},
		{"the callbacks are deleted", func(t *testing.T, app core.App) { deleteCollection(t, app, store.Callbacks) },
			`\"modelriverCallbacks\" was deleted: restart`, nil},
		{"the requests are deleted", func(t *testing.T, app core.App) { deleteCollection(t, app, store.Requests) },
			`\"aiRequests\" was deleted: restart`, nil},
		{"the channels are renamed", rename(store.Channels, "mine"), `was renamed to \"mine\": rename it back`, rename("mine", store.Channels)},
		{"the attempts are renamed", rename(store.Attempts, "mine"), `was renamed to \"mine\": rename it back`, rename("mine", store.Attempts)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			app, p := newTestApp(t, testConfig())
			server := serve(t, app, p)
			payload := generated("schema", `{"n":1}`, "")
			row.breaks(t, app)
			if status, body := server.post(t, payload, nil); status != 503 || !strings.Contains(body, row.answer) {
				t.Errorf("got %d %s, want 503 with %s", status, body, row.answer)
			}
			if row.mends != nil {
				row.mends(t, app)
			} else {
				server = restarted(t, app)
			}
			server.mustPost(t, payload)
			if got := only(t, server, store.Content).GetString("data"); got != `{"n":1}` {
				t.Errorf("data: got %s", got)
			}
		})
	}
}

// restarted serves a copy of the app's data.
func restarted(t *testing.T, app core.App) *testServer {
	t.Helper()
	copied, err := tests.NewTestApp(app.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(copied.Cleanup)
	p, err := newPlugin(copied, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	p.bind()
	return serve(t, copied, p)
}

// A field that is not in the table any more, as the moment after somebody removed it, is no
// reason to refuse content for good.
func TestStaleSchemaRefusesNothing(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	content := mustFindCollection(t, server, store.Content)
	content.Fields.Add(&core.TextField{Name: "extra"})
	if err := server.Save(content); err != nil {
		t.Fatal(err)
	}
	if _, err := server.NonconcurrentDB().NewQuery("ALTER TABLE aiContent DROP COLUMN extra").Execute(); err != nil {
		t.Fatal(err)
	}
	if status, body := server.post(t, generated("c", `{}`, "https://127.0.0.1/c"), nil); status != 503 {
		t.Errorf("got %d %s, want 503", status, body)
	}
	if rows := records(t, server, store.Callbacks); len(rows) != 0 {
		t.Errorf("got %v, want no callback", rows)
	}
}

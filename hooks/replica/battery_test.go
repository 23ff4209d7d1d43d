package replica

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Every kind of change that PocketBase makes, through its API and as an app makes it: after
// each, a database that has only the log is the same.
func TestEveryChangeIsApplied(t *testing.T) {
	t.Parallel()
	for name, newPair := range map[string]func(testing.TB) *pair{"one node": newStreamPair, "three nodes": newClusterPair} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			applyEveryChange(t, newPair(t))
		})
	}
}

func applyEveryChange(t *testing.T, p *pair) {
	app := p.newApp(t)
	p.same(t) // all migrations, from an empty file
	c := &client{Server: apptest.Serve(t, app), token: apptest.SuperuserToken(t, app)}
	app.OnRecordAfterCreateSuccess("posts").BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") != "with a hook" {
			return e.Next()
		}
		if _, err := e.App.DB().Insert("hooked", dbx.Params{"post": e.Record.Id}).Execute(); err != nil {
			return err
		}
		return e.Next()
	})
	for _, step := range steps {
		logged := p.position(t)
		step.do(t, c)
		if t.Failed() {
			t.Fatal(step.name)
		}
		if grown := p.position(t) > logged; grown == step.local {
			t.Fatalf("%s: logged: %v", step.name, grown)
		}
		ok := t.Run(step.name, func(t *testing.T) { p.same(t) })
		if !ok {
			t.FailNow()
		}
	}
	t.Logf("%d changes, position %d", len(steps), p.position(t))
}

type step struct {
	name  string
	local bool // nothing of it is logged
	do    func(t *testing.T, c *client)
}

func api(name, method, path, body string) step {
	return step{name: name, do: func(t *testing.T, c *client) { c.call(t, method, path, body) }}
}

func console(name, statements string) step {
	return step{name: name, do: func(t *testing.T, c *client) { c.sql(t, statements) }}
}

func inApp(name string, do func(app core.App) error) step {
	return step{name: name, do: func(t *testing.T, c *client) {
		if err := do(c.TestApp); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}}
}

func local(s step) step {
	s.local = true
	return s
}

// fields of every type, with fixed ids, so that a changed list of them renames columns.
func fields(more ...string) string {
	all := []string{
		`{"id":"f_title","name":"title","type":"text"}`,
		`{"id":"f_html","name":"html","type":"editor"}`,
		`{"id":"f_count","name":"count","type":"number"}`,
		`{"id":"f_done","name":"done","type":"bool"}`,
		`{"id":"f_mail","name":"mail","type":"email"}`,
		`{"id":"f_link","name":"link","type":"url"}`,
		`{"id":"f_day","name":"day","type":"date"}`,
		`{"id":"f_created","name":"created","type":"autodate","onCreate":true}`,
		`{"id":"f_updated","name":"updated","type":"autodate","onCreate":true,"onUpdate":true}`,
		`{"id":"f_kind","name":"kind","type":"select","values":["a","b","c"],"maxSelect":1}`,
		`{"id":"f_any","name":"any","type":"json"}`,
		`{"id":"f_file","name":"file","type":"file","maxSelect":5}`,
		`{"id":"f_place","name":"place","type":"geoPoint"}`,
	}
	return "[" + strings.Join(append(all, more...), ",") + "]"
}

const posts = "/api/collections/posts/records"

func changeFields(change func(fields string) string) string {
	return `{"fields":` + change(fields()) + `}`
}

func replaced(old, new string) string {
	return changeFields(func(f string) string {
		if !strings.Contains(f, old) {
			panic(old)
		}
		return strings.Replace(f, old, new, 1)
	})
}

var steps = []step{
	// Before what deletes files, which PocketBase does behind the answer, and reads the settings for.
	api("settings", "PATCH", "/api/settings", `{"meta":{"appName":"replicated"},"batch":{"enabled":true,"maxRequests":50,"timeout":30},"rateLimits":{"enabled":false}}`),
	api("create a collection with every type", "POST", "/api/collections", `{"id":"pbc_posts000001","name":"posts","type":"base","listRule":"","fields":`+fields()+`}`),
	{name: "a table for a hook", do: func(t *testing.T, c *client) { c.sql(t, "CREATE TABLE hooked (post TEXT)") }},
	api("a record", "POST", posts, `{"id":"post00000000001","title":"one","html":"<p>é</p>","count":1.5,"done":true,"mail":"a@example.com","link":"https://example.com","day":"2026-01-02 03:04:05.678Z","kind":"a","any":{"b":[1,2,{"c":null}]},"place":{"lon":1.25,"lat":-2}}`),
	api("a record of nothing", "POST", posts, `{}`),
	api("text with a NUL", "POST", posts, `{"id":"post00000000002","title":"before\u0000after"}`),
	api("large numbers", "POST", posts, `{"title":"large","count":9007199254740993,"any":123456789012345678901234567890}`),
	api("small numbers", "POST", posts, `{"title":"small","count":-1e-300}`),
	api("a record whose hook writes too", "POST", posts, `{"title":"with a hook"}`),
	{name: "files", do: func(t *testing.T, c *client) {
		c.upload(t, "PATCH", posts+"/post00000000001", "file", "a.txt", "content")
	}},
	api("update a record", "PATCH", posts+"/post00000000001", `{"title":"another","count+":2,"any":null}`),
	api("an update that changes nothing but the time", "PATCH", posts+"/post00000000002", `{}`),
	api("add a field", "PATCH", "/api/collections/posts", changeFields(func(f string) string { return fields(`{"id":"f_more","name":"more","type":"text"}`) })),
	api("update a record older than its field", "PATCH", posts+"/post00000000001", `{"more":"text"}`),
	api("remove a field", "PATCH", "/api/collections/posts", changeFields(func(f string) string { return f })),
	api("rename a field", "PATCH", "/api/collections/posts", replaced(`"name":"link"`, `"name":"address"`)),
	api("swap two fields", "PATCH", "/api/collections/posts", changeFields(func(f string) string {
		return strings.NewReplacer(`"name":"title"`, `"name":"html"`, `"name":"html"`, `"name":"title"`).Replace(f)
	})),
	api("swap them back", "PATCH", "/api/collections/posts", changeFields(func(f string) string { return f })),
	api("one choice becomes several", "PATCH", "/api/collections/posts", replaced(`"maxSelect":1`, `"maxSelect":3`)),
	api("several become one", "PATCH", "/api/collections/posts", changeFields(func(f string) string { return f })),
	api("add indexes", "PATCH", "/api/collections/posts", `{"indexes":["CREATE INDEX idx_posts_title ON posts (title)","CREATE UNIQUE INDEX idx_posts_mail ON posts (mail) WHERE mail != ''"]}`),
	api("change an index", "PATCH", "/api/collections/posts", `{"indexes":["CREATE INDEX idx_posts_title ON posts (title COLLATE NOCASE, count DESC)"]}`),
	api("rename a collection", "PATCH", "/api/collections/posts", `{"name":"articles"}`),
	api("rename it back", "PATCH", "/api/collections/articles", `{"name":"posts"}`),
	api("rules", "PATCH", "/api/collections/posts", `{"listRule":"@request.auth.id != ''","viewRule":"","createRule":null}`),
	api("remove all fields but one", "PATCH", "/api/collections/posts", `{"indexes":[],"fields":[{"id":"f_title","name":"title","type":"text"}]}`),
	api("add a field of every type", "PATCH", "/api/collections/posts", changeFields(func(f string) string { return f })),
	api("fill them", "PATCH", posts+"/post00000000001", `{"html":"<b>","count":-7,"done":true,"mail":"b@example.com","day":"2026-01-02","kind":"c","any":[1.0],"place":{"lon":1,"lat":2}}`),
	api("a view", "POST", "/api/collections", `{"name":"titles","type":"view","viewQuery":"SELECT id, title, count FROM posts WHERE title != ''"}`),
	api("change a view", "PATCH", "/api/collections/titles", `{"viewQuery":"SELECT p.id, p.title, (SELECT count(*) FROM posts) AS n FROM posts p"}`),
	api("a field below a view", "PATCH", "/api/collections/posts", replaced(`"maxSelect":1`, `"maxSelect":2`)),
	api("delete a view", "DELETE", "/api/collections/titles", ""),

	api("a collection that refers to another", "POST", "/api/collections", `{"name":"comments","type":"base","fields":[{"name":"text","type":"text"},{"name":"post","type":"relation","collectionId":"pbc_posts000001","cascadeDelete":true,"maxSelect":1},{"name":"seen","type":"relation","collectionId":"pbc_posts000001","maxSelect":9}]}`),
	api("records that refer", "POST", "/api/collections/comments/records", `{"text":"a","post":"post00000000001","seen":["post00000000001","post00000000002"]}`),
	api("delete with cascade", "DELETE", posts+"/post00000000001", ""),
	api("delete a reference", "DELETE", posts+"/post00000000002", ""),
	{name: "import collections", do: func(t *testing.T, c *client) {
		c.call(t, "PUT", "/api/collections/import", `{"deleteMissing":false,"collections":[
			{"name":"imported","type":"base","fields":[{"name":"n","type":"number"}],"indexes":["CREATE INDEX idx_imported ON imported (n)"]},
			{"name":"members","type":"auth"}]}`)
	}},
	api("an imported collection's record", "POST", "/api/collections/imported/records", `{"n":1}`),
	api("truncate", "DELETE", "/api/collections/imported/truncate", ""),
	api("delete a collection", "DELETE", "/api/collections/imported", ""),

	api("several requests as one", "POST", "/api/batch", `{"requests":[
		{"method":"POST","url":"/api/collections/posts/records","body":{"id":"batch0000000001","title":"a"}},
		{"method":"PATCH","url":"/api/collections/posts/records/batch0000000001","body":{"title":"b"}},
		{"method":"PUT","url":"/api/collections/posts/records","body":{"id":"batch0000000002","title":"c"}},
		{"method":"DELETE","url":"/api/collections/posts/records/batch0000000001"}]}`),
	local(step{name: "a batch that fails", do: func(t *testing.T, c *client) {
		request := `{"requests":[{"method":"POST","url":"/api/collections/posts/records","body":{"title":"a"}},{"method":"PATCH","url":"/api/collections/posts/records/none"}]}`
		if got := c.status(t, "POST", "/api/batch", request); got != 400 {
			t.Errorf("got %d", got)
		}
	}}),

	api("sign up", "POST", "/api/collections/users/records", `{"id":"user00000000001","email":"u@example.com","password":"password1","passwordConfirm":"password1","name":"U"}`),
	api("sign in", "POST", "/api/collections/users/auth-with-password", `{"identity":"u@example.com","password":"password1"}`),
	api("allow one-time passwords", "PATCH", "/api/collections/users", `{"otp":{"enabled":true,"duration":300,"length":8}}`),
	{name: "a one-time password", do: func(t *testing.T, c *client) {
		var asked struct{ OTPId string }
		if err := json.Unmarshal([]byte(c.call(t, "POST", "/api/collections/users/request-otp", `{"email":"u@example.com"}`)), &asked); err != nil {
			t.Fatal(err)
		}
		apptest.Eventually(t, "a mail", func() bool { return c.TestMailer.TotalSend() > 0 })
		code := regexp.MustCompile(`\d{8}`).FindString(c.TestMailer.LastMessage().HTML)
		c.call(t, "POST", "/api/collections/users/auth-with-otp", fmt.Sprintf(`{"otpId":%q,"password":%q}`, asked.OTPId, code))
	}},
	api("change a password", "PATCH", "/api/collections/users/records/user00000000001", `{"password":"password2","passwordConfirm":"password2"}`),
	api("delete a user", "DELETE", "/api/collections/users/records/user00000000001", ""),
	inApp("a superuser", func(app core.App) error {
		superusers, err := app.FindCollectionByNameOrId(core.CollectionNameSuperusers)
		if err != nil {
			return err
		}
		record := core.NewRecord(superusers)
		record.SetEmail("second@example.com")
		record.SetPassword("password1")
		return app.Save(record)
	}),
	inApp("a parameter", func(app core.App) error {
		_, err := app.DB().Insert("_params", dbx.Params{"id": "custom", "value": `{"a":1}`}).Execute()
		return err
	}),
	inApp("a transaction that goes on after a save that fails", func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			insert := func(id string) error {
				_, err := tx.DB().Insert("posts", dbx.Params{"id": id, "title": id}).Execute()
				return err
			}
			if err := insert("transaction0001"); err != nil {
				return err
			}
			if err := insert("transaction0001"); err == nil {
				return fmt.Errorf("it should fail")
			}
			return insert("transaction0002")
		})
	}),
	local(step{name: "a transaction that is rolled back", do: func(t *testing.T, c *client) {
		err := c.RunInTransaction(func(tx core.App) error {
			if _, err := tx.DB().Delete("posts", dbx.NewExp("1=1")).Execute(); err != nil {
				t.Error(err)
			}
			return fmt.Errorf("no")
		})
		if err == nil || err.Error() != "no" {
			t.Error(err)
		}
	}}),
	inApp("a migration's new and changed collections in one transaction", func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			collection := core.NewBaseCollection("migrated")
			collection.Fields.Add(&core.TextField{Name: "a"})
			if err := tx.Save(collection); err != nil {
				return err
			}
			record := core.NewRecord(collection)
			record.Set("a", "x")
			if err := tx.Save(record); err != nil {
				return err
			}
			collection.Fields.Add(&core.NumberField{Name: "b"})
			collection.AddIndex("idx_migrated", true, "a", "b")
			if err := tx.Save(collection); err != nil {
				return err
			}
			record = core.NewRecord(collection)
			record.Set("b", 3)
			return tx.Save(record)
		})
	}),

	console("the console", "INSERT INTO posts (id, title) VALUES ('console00000001', 'a'), ('console00000002', 'b; -- no comment')"),
	console("a script", "CREATE TABLE raw (a INTEGER PRIMARY KEY AUTOINCREMENT, b, c REAL, d TEXT, e BLOB); CREATE INDEX raw_b ON raw (b); INSERT INTO raw (b) VALUES (1), (2); /* ; */ UPDATE raw SET c = a * 1.5; -- the end"),
	console("savepoints", "INSERT INTO raw (b) VALUES ('kept'); SAVEPOINT one; INSERT INTO raw (b) VALUES ('lost'); SAVEPOINT [Two]; UPDATE raw SET b = 'lost'; ROLLBACK TRANSACTION TO SAVEPOINT two; RELEASE \"TWO\"; CREATE TABLE lost (a); ROLLBACK TO one; INSERT INTO raw (b) VALUES ('kept too'); RELEASE one"),
	console("REPLACE", "REPLACE INTO raw (a, b) VALUES (1, 'replaced'); CREATE UNIQUE INDEX raw_d ON raw (d); INSERT INTO raw (d) VALUES ('x'), ('y'); INSERT OR REPLACE INTO raw (a, d) VALUES (2, 'x'); UPDATE OR REPLACE raw SET d = 'y' WHERE a = 2; INSERT INTO raw (d) VALUES ('y') ON CONFLICT (d) DO UPDATE SET b = 'upserted'; INSERT OR IGNORE INTO raw (d) VALUES ('y'), ('z')"),
	console("triggers", "CREATE TABLE seen (what, n DEFAULT (random()), at DEFAULT CURRENT_TIMESTAMP); CREATE TRIGGER raw_seen AFTER INSERT ON raw WHEN new.b IS NOT NULL BEGIN INSERT INTO seen (what) VALUES (CASE WHEN new.b = 1 THEN 'one' ELSE new.b END); UPDATE raw SET c = random() WHERE a = new.a; END; INSERT INTO raw (b) VALUES (1), ('seen'); DROP TRIGGER raw_seen; INSERT INTO raw (b) VALUES ('not seen')"),
	console("AUTOINCREMENT goes on where it was", "DELETE FROM raw WHERE a > 3; INSERT INTO raw (b) VALUES ('after')"),
	console("values that only SQL makes", "INSERT INTO raw (b, c, d, e) VALUES (x'', 9e999, '', zeroblob(3)), (x'00ff', -9e999, CAST(x'61006200' AS TEXT), x''), (9223372036854775807, -0.0, CAST(x'fffe' AS TEXT), NULL), (-9223372036854775808, 0.1, NULL, 1), ('1', 3, 'é', 1.0)"),
	console("rowids", "CREATE TABLE ids (a TEXT UNIQUE); INSERT INTO ids (rowid, a) VALUES (9223372036854775807, 'last'), (-9223372036854775808, 'first'), (0, 'none'); UPDATE ids SET rowid = -5 WHERE a = 'none'"),
	console("columns that hide the rowid", "CREATE TABLE hidden (rowid, _rowid_ TEXT); INSERT INTO hidden VALUES (1, 'a'), (1, 'b'); UPDATE hidden SET rowid = 2; DELETE FROM hidden WHERE _rowid_ = 'a'"),
	console("computed columns", "CREATE TABLE computed (a, b AS (a + 1), c AS (a * 2) STORED, d); INSERT INTO computed (a, d) VALUES (1, 'x'), (2, 'y'); UPDATE computed SET a = 5; UPDATE computed SET d = 'z'; DELETE FROM computed WHERE b = 3; ALTER TABLE computed ADD COLUMN e AS (d || '!')"),
	console("foreign keys", "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL); INSERT INTO parent VALUES (1), (2), (3), (4); INSERT INTO child (parent) VALUES (1), (2), (2), (3), (4); DELETE FROM parent WHERE id = 2; UPDATE parent SET id = 9 WHERE id = 3"),
	console("a dropped table's foreign keys", "DROP TABLE parent"),
	console("columns", "ALTER TABLE raw ADD COLUMN f DEFAULT 'old rows have it too'; INSERT INTO raw (b) VALUES ('new'); UPDATE raw SET f = NULL WHERE b = 'after'; ALTER TABLE raw RENAME COLUMN b TO \"b \"\"2\"\"\"; ALTER TABLE raw DROP COLUMN c; UPDATE raw SET d = d || 'x' WHERE d IS NOT NULL"),
	console("a table's name", "ALTER TABLE raw RENAME TO \"raw; \"\"2\"\"\"; INSERT INTO \"raw; \"\"2\"\"\" (d) VALUES ('renamed')"),
	console("IF NOT EXISTS", "CREATE TABLE IF NOT EXISTS ids (b); CREATE TABLE IF NOT EXISTS other (a CHECK (a != 'never')); DROP TABLE IF EXISTS missing; INSERT INTO other VALUES ('WITHOUT ROWID')"),
	console("WITH", "DELETE FROM other; INSERT INTO other WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i FROM n"),
	console("UPDATE FROM", "UPDATE other SET a = ids.a || other.a FROM ids WHERE other.a < 5"),
	console("a strict table", "CREATE TABLE strict (a ANY, b INT, c REAL) STRICT; INSERT INTO strict VALUES ('1', 2, 3), (1, 2, 3.5), (x'31', NULL, NULL)"),
	console("DELETE without WHERE", "DELETE FROM other"),
	inApp("a statement that fails after some rows", func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			if _, err := tx.DB().NewQuery("INSERT INTO ids (a) VALUES ('b'), ('c'), ('last'), ('d')").Execute(); err == nil {
				return fmt.Errorf("it should fail")
			}
			_, err := tx.DB().NewQuery("INSERT INTO ids (a) VALUES ('e') RETURNING rowid").Execute()
			return err
		})
	}),
	inApp("RETURNING", func(app core.App) error {
		var ids []string
		if err := app.NonconcurrentDB().NewQuery("INSERT INTO ids (a) VALUES ('r'), ('s') RETURNING a").Column(&ids); err != nil {
			return err
		}
		if fmt.Sprint(ids) != "[r s]" {
			return fmt.Errorf("got %v", ids)
		}
		return nil
	}),
	inApp("RETURNING in a transaction", func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			var id string
			return tx.DB().NewQuery("WITH x AS (SELECT 1) UPDATE ids SET a = a || '!' WHERE a != 'r' RETURNING a").Row(&id)
		})
	}),
	inApp("a prepared statement", func(app core.App) error {
		q := app.NonconcurrentDB().NewQuery("INSERT INTO ids (a) VALUES ({:a})").Prepare()
		defer q.Close()
		for i := range 3 {
			if _, err := q.Bind(dbx.Params{"a": fmt.Sprint("prepared ", i)}).Execute(); err != nil {
				return err
			}
		}
		return nil
	}),
	local(inApp("temporary tables", func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			_, err := tx.DB().NewQuery("CREATE TEMP TABLE t AS SELECT * FROM ids; INSERT INTO t VALUES ('x'); DROP TABLE t").Execute()
			return err
		})
	})),
	local(inApp("statistics", func(app core.App) error {
		_, err := app.NonconcurrentDB().NewQuery("ANALYZE; PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)").Execute()
		return err
	})),
	console("a change of a table with statistics", "DELETE FROM ids WHERE a LIKE 'prepared%'; DROP TABLE IF EXISTS sqlite_stat1; DROP TABLE seen"),
	local(inApp("VACUUM that would change rowids", func(app core.App) error {
		if err := app.Vacuum(); err == nil || !strings.Contains(err.Error(), "INTEGER PRIMARY KEY") {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	})),
	console("no table without an index", "DROP TABLE hooked; DROP TABLE hidden; DROP TABLE computed; DROP TABLE other; DROP TABLE strict"),
	local(inApp("VACUUM", func(app core.App) error { return app.Vacuum() })),
	console("after VACUUM", "UPDATE ids SET a = a || '?'; UPDATE posts SET title = 'the end'; INSERT INTO ids (a) VALUES ('x')"),
	api("delete all collections but PocketBase's", "PUT", "/api/collections/import", `{"deleteMissing":true,"collections":[{"name":"last","type":"base"}]}`),
}

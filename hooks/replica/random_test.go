package replica

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random changes")

// Random edits of the schema between random changes of records, in transactions that go
// through and some that don't, through an app and through SQL.
func TestRandomChangesAreApplied(t *testing.T) {
	t.Parallel()
	for i, newPair := range []func(testing.TB) *pair{newStreamPair, newStreamPair, newClusterPair} {
		seed := *seed + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			app := p.newApp(t)
			r := &random{Rand: rand.New(rand.NewPCG(seed, 0)), app: app}
			for range 8 {
				for range 16 {
					r.step()
				}
				p.same(t)
			}
			t.Logf("%d steps: %d done, %d refused by PocketBase or SQLite, position %d", r.steps, r.steps-r.refused, r.refused, p.position(t))
			if r.refused > r.steps/2 {
				t.Errorf("%d of %d steps were refused, the last with %v", r.refused, r.steps, r.last)
			}
		})
	}
}

type random struct {
	*rand.Rand
	app            core.App
	n              int // for names
	steps, refused int
	last           error
}

func (r *random) name(prefix string) string {
	r.n++
	return fmt.Sprint(prefix, r.n)
}

var errUndo = fmt.Errorf("undone on purpose")

func (r *random) step() {
	r.steps++
	do := func(app core.App) error { return r.change(app) }
	var err error
	switch r.IntN(4) {
	case 0:
		err = r.app.RunInTransaction(func(tx core.App) error {
			for range 1 + r.IntN(4) {
				_ = do(tx) // what fails leaves the others
			}
			if r.IntN(4) == 0 {
				return errUndo
			}
			return nil
		})
	case 1:
		err = r.app.RunInTransaction(func(tx core.App) error { return r.savepoint(tx, do) })
	default:
		err = do(r.app)
	}
	if err != nil && !strings.Contains(err.Error(), errUndo.Error()) {
		r.refused++
		r.last = err
	}
}

func (r *random) savepoint(tx core.App, do func(core.App) error) error {
	end := []string{"RELEASE s", "ROLLBACK TO s; RELEASE s", "ROLLBACK TO s"}[r.IntN(3)]
	if _, err := tx.DB().NewQuery("SAVEPOINT s").Execute(); err != nil {
		return err
	}
	_ = do(tx)
	if _, err := tx.DB().NewQuery(end).Execute(); err != nil {
		return err
	}
	return do(tx)
}

func (r *random) change(app core.App) error {
	switch r.IntN(10) {
	case 0:
		return r.newCollection(app)
	case 1, 2:
		return r.editCollection(app)
	case 3:
		return r.raw(app)
	default:
		return r.editRecords(app)
	}
}

// own returns the collections made here.
func (r *random) own(app core.App) []*core.Collection {
	var collections []*core.Collection
	_ = app.CollectionQuery().AndWhere(dbx.NewExp("name LIKE 'c%' AND type = 'base'")).OrderBy("name").All(&collections)
	return collections
}

func (r *random) collection(app core.App) (*core.Collection, error) {
	own := r.own(app)
	if len(own) == 0 {
		return nil, r.newCollection(app)
	}
	return own[r.IntN(len(own))], nil
}

func (r *random) newCollection(app core.App) error {
	if len(r.own(app)) > 5 {
		return nil
	}
	collection := core.NewBaseCollection(r.name("c"))
	for range 1 + r.IntN(3) {
		collection.Fields.Add(r.field(app))
	}
	return app.Save(collection)
}

func (r *random) field(app core.App) core.Field {
	name := r.name("f")
	switch r.IntN(9) {
	case 0:
		return &core.NumberField{Name: name}
	case 1:
		return &core.BoolField{Name: name}
	case 2:
		return &core.JSONField{Name: name}
	case 3:
		return &core.SelectField{Name: name, Values: []string{"a", "b", "c"}, MaxSelect: 1 + r.IntN(3)}
	case 4:
		return &core.DateField{Name: name}
	case 5:
		return &core.AutodateField{Name: name, OnCreate: true, OnUpdate: true}
	case 6:
		if own := r.own(app); len(own) > 0 {
			return &core.RelationField{Name: name, CollectionId: own[r.IntN(len(own))].Id, CascadeDelete: r.IntN(2) == 0, MaxSelect: 1 + r.IntN(3)}
		}
	case 7:
		return &core.GeoPointField{Name: name}
	}
	return &core.TextField{Name: name}
}

func (r *random) editCollection(app core.App) error {
	c, err := r.collection(app)
	if c == nil {
		return err
	}
	switch r.IntN(8) {
	case 0:
		c.Name = r.name("c")
	case 1, 2:
		c.Fields.Add(r.field(app))
	case 3:
		c.Fields.RemoveByName(c.Fields[r.IntN(len(c.Fields))].GetName())
	case 4:
		if f := c.Fields[r.IntN(len(c.Fields))]; !f.GetSystem() {
			f.SetName(r.name("f"))
		}
	case 5:
		for _, f := range c.Fields {
			if s, ok := f.(*core.SelectField); ok {
				s.MaxSelect = 1 + r.IntN(3)
			}
		}
	case 6:
		c.AddIndex(r.name("idx_"), false, "`"+c.Fields[r.IntN(len(c.Fields))].GetName()+"`", "")
	case 7:
		if r.IntN(3) == 0 {
			return app.Delete(c)
		}
		view := core.NewViewCollection(r.name("v"))
		view.ViewQuery = "SELECT id FROM " + c.Name
		return app.Save(view)
	}
	return app.Save(c)
}

func (r *random) editRecords(app core.App) error {
	c, err := r.collection(app)
	if c == nil {
		return err
	}
	record := core.NewRecord(c)
	if r.IntN(2) == 0 {
		if err := app.RecordQuery(c).OrderBy("_rowid_").Offset(int64(r.IntN(5))).Limit(1).One(record); err == nil && r.IntN(3) == 0 {
			return app.Delete(record)
		}
	}
	for _, f := range c.Fields {
		if !f.GetSystem() && r.IntN(3) > 0 {
			record.Set(f.GetName(), r.value())
		}
	}
	return app.Save(record)
}

func (r *random) value() any {
	return []any{"", "a", "b", "a\x00b", strings.Repeat("é", r.IntN(2000)), r.IntN(100), r.NormFloat64(), -1 << 60, true, nil,
		[]string{"a", "c"}, `{"a":[null,1.5]}`, "2026-01-02 03:04:05.678Z"}[r.IntN(13)]
}

func (r *random) raw(app core.App) error {
	c, err := r.collection(app)
	if c == nil {
		return err
	}
	table := quote(c.Name)
	statement := []string{
		"INSERT INTO " + table + " (id) VALUES (hex(randomblob(4))), (hex(randomblob(4))), ('fixed')",
		"INSERT OR REPLACE INTO " + table + " (id) SELECT id FROM " + table + " WHERE random() % 2",
		"INSERT OR IGNORE INTO " + table + " (id) VALUES ('fixed'), (hex(randomblob(4)))",
		"UPDATE " + table + " SET id = id || 'x', rowid = rowid + 1000 WHERE random() % 3 = 0",
		"DELETE FROM " + table + " WHERE random() % 4 = 0",
		"CREATE TRIGGER IF NOT EXISTS trigger_" + c.Name + " AFTER UPDATE ON " + table + " BEGIN INSERT OR IGNORE INTO " + table + " (id) VALUES (old.id); END",
		"DROP TRIGGER IF EXISTS trigger_" + c.Name,
		"CREATE TABLE IF NOT EXISTS raw_" + c.Name + " (a PRIMARY KEY, b DEFAULT (random())); INSERT INTO raw_" + c.Name + " (a) VALUES (random()), ('twice'); INSERT INTO raw_" + c.Name + " (a) VALUES (random()), ('twice')",
		"ALTER TABLE raw_" + c.Name + " ADD COLUMN " + r.name("more") + " DEFAULT 'x'",
		"DROP TABLE IF EXISTS raw_" + c.Name,
		"ANALYZE",
	}[r.IntN(11)]
	_, err = app.NonconcurrentDB().NewQuery(statement).Execute()
	return err
}

// Random edits of the schema, and of records between them, each through any of three nodes by its API: all have the same,
// and each node's API knows the schema that another one's has changed.
func TestRandomSchemasThroughAnyNode(t *testing.T) {
	t.Parallel()
	seed := *seed
	c := newCluster(t)
	_, clients := c.apps(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	name := 0
	next := func(prefix string) string { name++; return fmt.Sprint(prefix, name) }
	type field map[string]any
	type collection struct {
		ID      string   `json:"id"`
		Name    string   `json:"name"`
		Fields  []field  `json:"fields"`
		Indexes []string `json:"indexes"`
	}
	newField := func() field {
		kind := []string{"text", "number", "bool", "json", "date", "email", "autodate"}[rng.IntN(7)]
		f := field{"name": next("f"), "type": kind, "hidden": rng.IntN(4) == 0}
		if kind == "autodate" {
			f["onCreate"] = true
		}
		return f
	}
	refused := 0
	const steps = 200
	for step := range steps {
		i := rng.IntN(3)
		at := clients[i]
		apptest.Eventually(t, "the node has what others wrote", func() bool { return c.nodes[i].reached.at() >= c.nodes[c.leader(t)].reached.at() })
		var list struct{ Items []collection }
		if err := json.Unmarshal([]byte(at.call(t, "GET", "/api/collections?perPage=100&filter="+url.QueryEscape("system=false && type='base'"), "")), &list); err != nil {
			t.Fatal(err)
		}
		method, path, body := "POST", "/api/collections", any(collection{Name: next("c"), Fields: []field{newField(), newField()}})
		if n := len(list.Items); n > 0 && (n > 5 || rng.IntN(6) > 0) {
			of := list.Items[rng.IntN(n)]
			path = "/api/collections/" + of.ID
			i := rng.IntN(len(of.Fields))
			switch method = "PATCH"; rng.IntN(9) {
			case 0:
				method, body = "DELETE", nil
			case 1:
				body = map[string]any{"fields": append(of.Fields, newField())}
			case 2:
				body = map[string]any{"fields": slices.Delete(of.Fields, i, i+1)} // the id's is refused
			case 3:
				of.Fields[i]["name"] = next("f")
				body = map[string]any{"fields": of.Fields}
			case 4:
				body = map[string]any{"name": next("c")}
			case 5:
				body = map[string]any{"indexes": append(of.Indexes, fmt.Sprintf("CREATE %s INDEX %s ON %s (%s)", []string{"", "UNIQUE"}[rng.IntN(2)], next("i"), of.Name, of.Fields[i]["name"]))}
			case 6:
				method, path, body = "DELETE", path+"/truncate", nil
			default:
				record := map[string]any{}
				for _, f := range of.Fields {
					switch f["type"] {
					case "text":
						if f["name"] != "id" {
							record[f["name"].(string)] = fmt.Sprint("text ", rng.IntN(9))
						}
					case "number":
						record[f["name"].(string)] = rng.IntN(9)
					}
				}
				method, path, body = "POST", "/api/collections/"+of.Name+"/records", record
			}
		}
		text := ""
		if body != nil {
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			text = string(raw)
		}
		switch status := at.status(t, method, path, text); {
		case status == http.StatusBadRequest:
			refused++
		case status >= 300:
			t.Errorf("step %d, seed %d: %s %s is answered %d: %s", step, seed, method, path, status, text)
		}
		if step%20 == 19 {
			c.same(t)
		}
	}
	t.Logf("%d steps, %d refused", steps, refused)
	if refused > steps/3 {
		t.Errorf("%d of %d steps were refused", refused, steps)
	}
}

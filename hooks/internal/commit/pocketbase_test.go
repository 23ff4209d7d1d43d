package commit

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// PocketBase's list of functions after a transaction is where we expect it.
func TestAfterFuncs(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	bad := errors.New("bad")
	var got []error
	err := app.RunInTransaction(func(tx core.App) error {
		note := func(err error) error { got = append(got, err); return nil }
		after := afterFuncsOf(tx.TxInfo())
		if after == nil {
			t.Fatal("this PocketBase keeps the functions after a transaction elsewhere: see core/db_tx.go")
		}
		tx.TxInfo().OnComplete(note)
		mark := after.len()
		tx.TxInfo().OnComplete(note)
		tx.TxInfo().OnComplete(func(error) error { panic("oops") })
		after.end(mark, bad)
		mark = after.len()
		tx.TxInfo().OnComplete(note)
		after.end(mark, nil)
		return nil
	})
	if len(got) != 3 || got[0] != nil || !errors.Is(got[1], bad) || got[2] != nil {
		t.Errorf("outcomes: got %v, want none, bad, none", got)
	}
	if err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("error: got %v, want the panic", err)
	}
	if afterFuncsOf(&core.TxAppInfo{}).len() != 0 {
		t.Error("a new transaction has functions")
	}
}

// What the committer inserts in PocketBase's place is the row that PocketBase would have
// inserted, behind every hook.
func TestInsert(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	content := core.NewBaseCollection("content")
	content.Fields.Add(
		&core.TextField{Name: "text"}, &core.NumberField{Name: "number"}, &core.BoolField{Name: "bool"},
		&core.JSONField{Name: "json"}, &core.SelectField{Name: "select", Values: []string{"a", "b"}, MaxSelect: 2},
		&core.DateField{Name: "date"}, &core.TextField{Name: "hooked"},
	)
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
	c := New(app, "content")
	c.Bind()
	app.OnModelCreateExecute("content").BindFunc(func(e *core.ModelEvent) error { // bound later, but outside
		e.Model.(*core.Record).Set("hooked", "yes")
		return e.Next()
	})
	var heard []string
	c.Committed = func(records []*core.Record) {
		for _, record := range records {
			heard = append(heard, record.Id)
		}
	}
	record := func(id string) *core.Record {
		r := core.NewRecord(content)
		r.Load(map[string]any{"id": id, "text": "it's", "number": 1.5, "bool": true, "json": `{"a":1.10}`, "select": []string{"b", "a"}, "date": "2026-01-02 03:04:05.678Z"})
		return r
	}
	if err := c.Do(func(tx core.App) error { return tx.Save(record("ours00000000000")) }); err != nil {
		t.Fatal(err)
	}
	if err := app.Save(record("pocketbase00000")); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(heard, []string{"ours00000000000"}) {
		t.Fatalf("inserted by the committer: got %v; if none, PocketBase calls its own INSERT (core/db.go) elsewhere", heard)
	}
	var rows []dbx.NullStringMap
	if err := app.DB().Select("*").From("content").OrderBy("id").All(&rows); err != nil || len(rows) != 2 {
		t.Fatalf("rows: %v, %v", rows, err)
	}
	delete(rows[0], "id")
	delete(rows[1], "id")
	if !maps.Equal(rows[0], rows[1]) || rows[0]["hooked"].String != "yes" {
		t.Errorf("got %v, PocketBase %v", rows[0], rows[1])
	}
	for _, r := range []*core.Record{record("ours00000000000"), record("pocketbase00000")} {
		if err := c.Do(func(tx core.App) error { return tx.Save(r) }); err == nil {
			t.Errorf("%s a second time: got no error", r.Id)
		}
	}
}

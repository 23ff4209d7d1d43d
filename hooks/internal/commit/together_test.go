package commit

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Records that are created at the same time are inserted by the committer as PocketBase would
// have, each for its own caller and with its own hooks.
func TestInsertTogether(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	asks := core.NewBaseCollection("asks")
	asks.Fields.Add(&core.TextField{Name: "text"}, &core.JSONField{Name: "json"}, &core.TextField{Name: "hooked"})
	if err := app.Save(asks); err != nil {
		t.Fatal(err)
	}
	c := New(app, "asks")
	c.InsertTogether("asks")
	app.OnRecordCreateExecute("asks").BindFunc(func(e *core.RecordEvent) error {
		e.Record.Set("hooked", "yes")
		return e.Next()
	})
	var succeeded, failed atomic.Int64
	app.OnRecordAfterCreateSuccess("asks").BindFunc(func(e *core.RecordEvent) error {
		if _, err := app.FindRecordById("asks", e.Record.Id); err != nil {
			t.Errorf("behind the commit: %v", err)
		}
		succeeded.Add(1)
		return e.Next()
	})
	app.OnRecordAfterCreateError("asks").BindFunc(func(e *core.RecordErrorEvent) error {
		failed.Add(1)
		return e.Next()
	})
	record := func(id string) *core.Record {
		r := core.NewRecord(asks)
		r.Load(map[string]any{"id": id, "text": "it's", "json": `{"a":1.10}`})
		return r
	}
	err := app.RunInTransaction(func(tx core.App) error { return tx.Save(record("pocketbase00000")) })
	if err != nil {
		t.Fatal(err)
	}

	release := hold(c)
	results := make([]error, 10)
	var group sync.WaitGroup
	for i := range results {
		r := record(fmt.Sprintf("together%07d", i))
		if i == 4 {
			r.Id = "pocketbase00000"
		}
		group.Go(func() { results[i] = app.SaveNoValidate(r) })
	}
	for deadline := time.Now().Add(10 * time.Second); len(c.Waiting()) < len(results) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	waiting := len(c.Waiting())
	release()
	group.Wait()
	if waiting != len(results) {
		t.Errorf("for one transaction wait %d records, want %d", waiting, len(results))
	}
	for i, err := range results {
		if (err != nil) != (i == 4) {
			t.Errorf("record %d: got %v", i, err)
		}
	}
	if succeeded.Load() != 10 || failed.Load() != 1 { // with the first
		t.Errorf("hooks heard of %d that were created and %d that were not, want 10 and 1", succeeded.Load(), failed.Load())
	}
	var rows []dbx.NullStringMap
	if err := app.DB().Select("*").From("asks").OrderBy("id").All(&rows); err != nil || len(rows) != 10 {
		t.Fatalf("rows: %v, %v", rows, err)
	}
	for _, row := range rows[1:] {
		row["id"] = rows[0]["id"]
		if !maps.Equal(row, rows[0]) || row["hooked"].String != "yes" {
			t.Errorf("got %v, PocketBase %v", row, rows[0])
		}
	}
}

// What a batch finds and updates is what PocketBase would have, behind every hook.
func TestUpdatePrepared(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	asks := core.NewBaseCollection("asks")
	asks.Fields.Add(
		&core.TextField{Name: "text"}, &core.NumberField{Name: "number"}, &core.JSONField{Name: "json"}, &core.TextField{Name: "hooked"},
		&core.DateField{Name: "date"}, &core.SelectField{Name: "select", Values: []string{"a", "b"}, MaxSelect: 2},
	)
	if err := app.Save(asks); err != nil {
		t.Fatal(err)
	}
	c := New(app, "aiContent")
	c.UpdatePrepared("asks")
	app.OnModelUpdateExecute("asks").BindFunc(func(e *core.ModelEvent) error { // bound later, but outside
		e.Model.(*core.Record).Set("hooked", "yes")
		return e.Next()
	})
	ids := []string{"ours00000000000", "pocketbase00000", "untouched000000"}
	for _, id := range ids {
		r := core.NewRecord(asks)
		r.Set("id", id)
		if err := app.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	var prepared int
	change := func(tx core.App, id string) error {
		found, err := FindRecord(tx, "asks", id)
		if err != nil {
			return err
		}
		if found.Id != id || found.IsNew() || found.Original().GetString("text") != "" {
			t.Errorf("found: got %v", found)
		}
		found.Load(map[string]any{"text": "it's", "number": 1.5, "json": `{"a":1.10}`, "select": []string{"b", "a"}, "date": "2026-01-02 03:04:05.678Z"})
		err = tx.Save(found)
		if b, ok := tx.(*batch); ok {
			prepared = len(b.queries)
		}
		if _, missing := FindRecord(tx, "asks", "gone00000000000"); !errors.Is(missing, sql.ErrNoRows) {
			t.Errorf("one that is not there: got %v", missing)
		}
		return err
	}
	if err := c.Do(func(tx core.App) error { return change(tx, ids[0]) }); err != nil {
		t.Fatal(err)
	}
	if err := app.RunInTransaction(func(tx core.App) error { return change(tx, ids[1]) }); err != nil {
		t.Fatal(err)
	}
	if prepared != 2 {
		t.Errorf("queries of the batch: got %d, want one that finds and one that updates; if less, PocketBase calls its own UPDATE (core/db.go) elsewhere", prepared)
	}
	var rows []dbx.NullStringMap
	if err := app.DB().Select("*").From("asks").OrderBy("id").All(&rows); err != nil || len(rows) != 3 {
		t.Fatalf("rows: %v, %v", rows, err)
	}
	for _, row := range rows {
		delete(row, "id")
	}
	if !maps.Equal(rows[0], rows[1]) || rows[0]["hooked"].String != "yes" || rows[0]["text"].String != "it's" || rows[2]["text"].String != "" {
		t.Errorf("got %v, PocketBase %v, beside them %v", rows[0], rows[1], rows[2])
	}
}

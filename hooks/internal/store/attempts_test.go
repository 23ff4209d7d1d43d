package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func inTransaction(t testing.TB, app core.App, fn func(tx core.App) error) {
	t.Helper()
	if err := app.RunInTransaction(fn); err != nil {
		t.Fatal(err)
	}
}

// However often a callback is sent, a bounded number of rows of bounded size tells of it.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	now := time.Now()
	for _, id := range []string{"callback0000001", "callback0000002"} {
		inTransaction(t, app, func(tx core.App) error {
			return (&Callback{Id: id, Expires: DateTime(now)}).Insert(tx, now, "", "")
		})
		for i := range MaxAttempts + 10 {
			cb := &Callback{Id: id, Expires: DateTime(now), Attempts: i}
			cb.Note(now.Add(time.Duration(i/2)*time.Second), time.Second, Attempt{Status: i, Error: strings.Repeat("é", 5000)}) // two at the same time
			inTransaction(t, app, func(tx core.App) error { return cb.Postpone(tx, now, now, 500, "") })
		}
	}
	var rows []struct {
		Attempt
		Callback string `db:"callback"`
	}
	if err := app.DB().NewQuery("SELECT * FROM modelriverAttempts ORDER BY callback, at, rowid").All(&rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2*MaxAttempts {
		t.Fatalf("got %d, want %d of each", len(rows), MaxAttempts)
	}
	for i, row := range rows {
		if want := 10 + i%MaxAttempts; row.Status != want || len([]rune(row.Error)) != maxAttemptError+1 || row.Duration != 1000 {
			t.Errorf("attempt %d: got %d with %d characters, want the latest", i, row.Status, len([]rune(row.Error)))
		}
	}
	if records, err := app.FindAllRecords(Attempts); err != nil || len(records[0].Id) != 15 {
		t.Errorf("as records: got %v, %v", records, err)
	}
}

// Nothing is left of what is deleted, in few statements.
func TestLostAttempts(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	now := time.Now()
	var ids []string
	inTransaction(t, app, func(tx core.App) error {
		for i := range 5 {
			cb := &Callback{Id: fmt.Sprintf("callback%07d", i), Expires: DateTime(now)}
			ids = append(ids, cb.Id)
			if err := cb.Insert(tx, now, "", ""); err != nil {
				return err
			}
			cb.Note(now, 0, Attempt{})
			if err := cb.Deliver(tx, now, 200); err != nil {
				return err
			}
		}
		_, err := tx.DB().Delete(Callbacks, dbx.In("id", ids[1], ids[3])).Execute()
		return err
	})
	lost, err := FindLostAttempts(app)
	if err != nil || fmt.Sprint(lost) != fmt.Sprint([]string{ids[1], ids[3]}) {
		t.Errorf("lost: got %v, %v", lost, err)
	}
	inTransaction(t, app, func(tx core.App) error { return DeleteAttempts(tx, lost...) })
	if lost, err = FindLostAttempts(app); err != nil || len(lost) != 0 {
		t.Errorf("then: got %v, %v", lost, err)
	}
	inTransaction(t, app, func(tx core.App) error {
		if deleted, err := DeleteOldCallbacks(tx, now.Add(time.Minute)); deleted != 3 || err != nil {
			t.Errorf("old callbacks: got %d, %v", deleted, err)
		}
		return nil
	})
	if rows, err := app.CountRecords(Attempts); rows != 0 || err != nil {
		t.Errorf("attempts: got %d, %v", rows, err)
	}
}

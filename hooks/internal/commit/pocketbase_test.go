package commit

import (
	"errors"
	"strings"
	"testing"

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

package hooks_test

import (
	"path/filepath"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks"
)

func TestDBConnect(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		file        string
		synchronous int
	}{
		{"data.db", 2},      // FULL
		{"auxiliary.db", 1}, // NORMAL, as PocketBase has it
	} {
		db, err := hooks.DBConnect(filepath.Join(t.TempDir(), row.file))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		want, err := core.DefaultDBConnect(filepath.Join(t.TempDir(), row.file))
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		for _, pragma := range []string{"busy_timeout", "journal_mode", "journal_size_limit", "foreign_keys", "temp_store", "cache_size"} {
			var got, def string
			if err := db.NewQuery("PRAGMA " + pragma).Row(&got); err != nil {
				t.Fatal(err)
			}
			if err := want.NewQuery("PRAGMA " + pragma).Row(&def); err != nil {
				t.Fatal(err)
			}
			if got != def {
				t.Errorf("%s: %s: got %s, want PocketBase's %s", row.file, pragma, got, def)
			}
		}
		var synchronous int
		if err := db.NewQuery("PRAGMA synchronous").Row(&synchronous); err != nil || synchronous != row.synchronous {
			t.Errorf("%s: synchronous: got %d (%v), want %d", row.file, synchronous, err, row.synchronous)
		}
	}
}

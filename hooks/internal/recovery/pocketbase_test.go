package recovery

import (
	"errors"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// The connection that writes does not look at the WAL after each commit.
func TestCheckpointsAreLeftToLitestream(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	if err := leaveCheckpoints(app); err != nil {
		t.Fatal(err)
	}
	var pages int
	if err := app.NonconcurrentDB().NewQuery("PRAGMA wal_autocheckpoint").Row(&pages); err != nil || pages < 10_000 {
		t.Errorf("pages in the WAL before SQLite looks at it: got %d (%v), want more than a second has", pages, err)
	}
}

// A restore of a backup that a hook of the app ends, by an error or a panic, which PocketBase survives, leaves all as it was.
func TestRestoreThatAHookEnds(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	before, err := l.local.readIdentity()
	l.must(err)
	panics := false
	l.app.OnBackupRestore().BindFunc(l.restoreBackup)
	l.app.OnBackupRestore().BindFunc(func(*core.BackupEvent) error {
		if panics {
			panic("a hook")
		}
		return errors.New("a hook")
	})
	for _, panics = range []bool{false, true} {
		func() {
			defer func() {
				if got := recover() != nil; got != panics {
					t.Errorf("panicked: %t, want %t", got, panics)
				}
			}()
			_ = l.app.RestoreBackup(t.Context(), "a.zip")
		}()
		l.write()
		if after, err := l.local.readIdentity(); after != before || err != nil {
			t.Errorf("panics: %t: got %+v, %v, want %+v", panics, after, err, before)
		}
	}
}

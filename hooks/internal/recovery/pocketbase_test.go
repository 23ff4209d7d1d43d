package recovery

import (
	"testing"

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

package replica

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// awaitMigrated waits until this node leads, or has all that it would migrate, which only who leads can do.
func (n *Node) awaitMigrated() error {
	if !n.several() {
		return nil
	}
	for said := saying(""); ; {
		if n.ready.Load() {
			return nil
		}
		if n.current.Load() {
			missing, err := n.unmigrated()
			if err != nil {
				return err
			}
			if len(missing) == 0 {
				return n.prepareLogs()
			}
			if text := strings.Join(missing, ", "); said.isNew(text) {
				n.logger().Info("This node waits until the one that leads has migrated the database", "missing", text)
			}
		}
		select {
		case <-n.closed:
			return errNotConnected
		case <-time.After(lookPause):
		}
	}
}

// unmigrated returns the migrations of this program that the database doesn't have.
func (n *Node) unmigrated() ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier == nil {
		return nil, errNotConnected
	}
	var all []string
	for _, m := range slices.Concat(core.SystemMigrations.Items(), core.AppMigrations.Items()) {
		all = append(all, m.File)
	}
	ctx := context.Background()
	var table int
	if err := n.applier.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = ?", core.DefaultMigrationsTable).Scan(&table); err != nil || table == 0 {
		return all, err
	}
	rows, err := n.applier.conn.QueryContext(ctx, "SELECT file FROM "+quote(core.DefaultMigrationsTable))
	if err != nil {
		return nil, err
	}
	has, err := texts(rows)
	return slices.DeleteFunc(all, func(file string) bool { return slices.Contains(has, file) }), err
}

// prepareLogs makes PocketBase's table of logs, which is in a database of each node's own: where it isn't there,
// PocketBase migrates all nodes' database once more.
func (n *Node) prepareLogs() error {
	db, err := core.DefaultDBConnect(filepath.Join(filepath.Dir(n.path), "auxiliary.db"))
	if err != nil {
		return err
	}
	_, err = db.NewQuery(`CREATE TABLE IF NOT EXISTS {{_logs}} (
		[[id]] TEXT PRIMARY KEY DEFAULT ('r'||lower(hex(randomblob(7)))) NOT NULL,
		[[level]] INTEGER DEFAULT 0 NOT NULL,
		[[message]] TEXT DEFAULT "" NOT NULL,
		[[data]] JSON DEFAULT "{}" NOT NULL,
		[[created]] TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%fZ')) NOT NULL
	);
	CREATE INDEX IF NOT EXISTS idx_logs_level on {{_logs}} ([[level]]);
	CREATE INDEX IF NOT EXISTS idx_logs_message on {{_logs}} ([[message]]);
	CREATE INDEX IF NOT EXISTS idx_logs_created_hour on {{_logs}} (strftime('%Y-%m-%d %H:00:00', [[created]]));`).Execute()
	return errors.Join(err, db.Close())
}

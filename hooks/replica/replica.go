// Package replica keeps the databases of several nodes one database: each transaction that
// changes data.db becomes an entry of a log before it is committed, and applying the entries
// in order to another data.db makes that one the same, to every rowid, type and byte.
//
// What is logged are the rows that changed and the statements that changed the schema, in
// their order, whatever made them: an app's hooks, the dashboard, migrations or raw SQL. So
// ids, times and random values travel as values, and nothing is decided twice.
//
//	node, err := replica.Open(replica.Config{Append: log.Append})
//	…
//	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: node.Connect})
//
// It knows PocketBase and SQLite, through the driver modernc.org/sqlite.
//
// A few statements can't be logged and are refused by name: virtual tables, tables WITHOUT
// ROWID, CREATE TABLE AS, ATTACH, BEGIN and COMMIT as statements, OR FAIL, and a PRAGMA that
// writes. PocketBase uses none of them. ANALYZE, VACUUM and checkpoints are of one file only
// and aren't logged. Nor are the ids that AUTOINCREMENT gave to rows that INSERT OR IGNORE
// then ignored: another database may give them to rows of its own.
package replica

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Config is what a node needs to know.
type Config struct {
	// Append puts an entry into the log, at its position: one more than the entry's before,
	// the first is 1. It is called while SQLite commits the transaction, holding the write
	// lock of the database: when it returns nil the entry must be where it can't be lost, and
	// when it returns an error the transaction is rolled back and its caller gets the error.
	//
	// It must refuse a position that the log has an entry for: the database is then behind
	// the log, and nothing may be written to it until [Node.Apply] has caught up. It must not
	// keep the entry's bytes after it has returned. Required.
	Append func(position uint64, entry []byte) error
}

// A Node is one database that writes to the log, or is written from it.
type Node struct {
	append func(position uint64, entry []byte) error

	mu      sync.Mutex
	path    string
	applier *applier // of the database at path
}

// Open returns a node without a database: [Node.Connect] opens it.
func Open(config Config) (*Node, error) {
	if config.Append == nil {
		return nil, errors.New("replica: Config.Append is required")
	}
	if err := checkDriver(sqliteDriver()); err != nil {
		return nil, err
	}
	return &Node{append: config.Append}, nil
}

// Connect opens a database for PocketBase, as its Config.DBConnect. Of data.db, every
// transaction is logged; other files are opened as PocketBase opens them.
//
// A data.db without tables begins at position 0. One that has tables but no position in the
// log is refused: its rows aren't in the log.
func (n *Node) Connect(path string) (*dbx.DB, error) {
	if filepath.Base(path) != "data.db" {
		return core.DefaultDBConnect(path)
	}
	if err := n.openApplier(path); err != nil {
		return nil, err
	}
	return dbx.NewFromDB(newDB(n, path), "sqlite"), nil
}

func (n *Node) openApplier(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier != nil {
		if n.path != path {
			return fmt.Errorf("a node has one database: it has %s, not %s", n.path, path)
		}
		return nil
	}
	a, err := newApplier(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	n.path, n.applier = path, a
	return nil
}

var errNotConnected = errors.New("the node has no database yet")

// Apply plays an entry of the log, in one transaction with its position. Entries come in the
// order of the log, without gaps, from the one after [Node.Position]. An entry that doesn't
// find the rows it changes is an error and changes nothing: this database isn't what the log
// says, and must be replaced.
func (n *Node) Apply(position uint64, entry []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier == nil {
		return errNotConnected
	}
	return n.applier.apply(position, entry)
}

// Position returns the position of the last entry that the database has.
func (n *Node) Position() (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier == nil {
		return 0, errNotConnected
	}
	return n.applier.position()
}

// Close closes what [Node.Apply] writes with. The connections that PocketBase has are closed
// by PocketBase.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier == nil {
		return nil
	}
	err := n.applier.close()
	n.applier = nil
	return err
}

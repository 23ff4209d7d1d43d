// Package replica keeps the databases of several nodes one database: each transaction that
// changes data.db becomes an entry of a log before it is committed, and applying the entries
// in order to another data.db makes that one the same, to every rowid, type and byte.
//
// What is logged are the rows that changed and the statements that changed the schema, in
// their order, whatever made them: an app's hooks, the dashboard, migrations or raw SQL. So
// ids, times and random values travel as values, and nothing is decided twice.
//
//	node, err := replica.Open()
//	…
//	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: node.Connect})
//	node.Register(app)
//
// The log is a stream of NATS JetStream, whose server runs in this process and keeps it in the
// folder data.db-log beside the database. So far there is one node, and its log grows for ever.
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
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// ErrUnavailable is what a write fails with that the log didn't take, or perhaps took: nothing of
// it is in the database, but after a while it may be, if the log has it after all. Until that is
// known, and so is all that the log has, every write fails with it. Whoever wrote may try again.
var ErrUnavailable = errors.New("the log of the database can't take a change now")

// healPause is how long a node waits before it tries again to read its log.
const healPause = 500 * time.Millisecond

// A Node is one database that writes to a log.
type Node struct {
	// The log. It takes an entry that follows the position, and gives those that follow one,
	// each with the position after it. What it takes can't be lost, and it doesn't keep the bytes.
	append func(after uint64, entry []byte) error
	read   func(after uint64, apply func(position uint64, entry []byte) error) error
	log    *streamLog // which that is, but in a test

	app atomic.Value // a core.App, if the node is registered

	ready atomic.Bool // to write: for what is known, the database has all of the log

	mu      sync.Mutex
	path    string
	applier *applier   // of the database at path
	fell    chan error // why it isn't ready any more
	stop    func()     // ends the goroutine that makes it ready again
}

// Open returns a node without a database: [Node.Connect] opens it, and its log.
func Open() (*Node, error) {
	if err := checkDriver(sqliteDriver()); err != nil {
		return nil, err
	}
	n := &Node{}
	n.log = &streamLog{logger: n.logger}
	n.append, n.read = n.log.append, n.log.read
	return n, nil
}

// logger returns the app's, which is the program's until the app has one.
func (n *Node) logger() *slog.Logger {
	if app, ok := n.app.Load().(core.App); ok {
		return app.Logger()
	}
	return slog.Default()
}

// Connect opens a database for PocketBase, as its Config.DBConnect. Of data.db, every
// transaction is logged, and what only the log has is applied before Connect returns; other
// files are opened as PocketBase opens them.
//
// A data.db without tables begins at the beginning of the log. One that has tables but no position
// in a log is refused, since its rows aren't in the log, and so is one whose log isn't there.
func (n *Node) Connect(path string) (*dbx.DB, error) {
	if filepath.Base(path) != "data.db" {
		return core.DefaultDBConnect(path)
	}
	if err := n.open(path); err != nil {
		return nil, err
	}
	return dbx.NewFromDB(newDB(n, path), "sqlite"), nil
}

func (n *Node) open(path string) error {
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
	if err := n.openLog(a, path+logSuffix); err != nil {
		return fmt.Errorf("open %s: %w", path, errors.Join(err, a.close()))
	}
	a.collections, a.settings = false, false // PocketBase reads them now
	n.path, n.applier, n.fell = path, a, make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		n.heal(ctx)
	}()
	n.stop = func() { cancel(); <-healed }
	n.ready.Store(true)
	return nil
}

// openLog opens the log and applies what only it has.
func (n *Node) openLog(a *applier, dir string) error {
	if n.log == nil {
		return n.catchUp(a)
	}
	position, err := a.position()
	if err != nil {
		return err
	}
	if err := n.log.open(dir, position); err != nil {
		return err
	}
	if err = a.follow(n.log.id); err == nil {
		err = n.catchUp(a)
	}
	if err != nil {
		return errors.Join(err, n.log.close())
	}
	return nil
}

// logSuffix follows the database's path in the path of the log's folder.
const logSuffix = "-log"

// catchUp applies what the log has after the database's position.
func (n *Node) catchUp(a *applier) error {
	at, err := a.position()
	if err != nil {
		return err
	}
	return n.read(at, func(position uint64, entry []byte) error {
		if err := a.apply(at, position, entry); err != nil {
			return err
		}
		at = position
		return nil
	})
}

// commit appends a transaction's entry to the log, while SQLite commits it and so with its write
// lock. When it returns an error, SQLite rolls back.
func (n *Node) commit(after uint64, entry []byte) (err error) {
	if !n.ready.Load() {
		return ErrUnavailable
	}
	defer func() {
		if p := recover(); p != nil { // which must not go through SQLite
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		if err != nil {
			err = n.fall(err)
		}
	}()
	return n.append(after, entry)
}

// fall has the node read its log before anything is written again: it may have what the
// database doesn't. It returns what the writer gets.
func (n *Node) fall(cause error) error {
	if n.ready.CompareAndSwap(true, false) {
		n.fell <- cause
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// heal makes the node ready again whenever it isn't any more.
func (n *Node) heal(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case cause := <-n.fell:
			n.logger().Error("The log didn't take a change: nothing is written until it is read again", "error", cause)
		}
		for said := ""; ; {
			err := n.resume()
			if err == nil {
				n.logger().Info("The log takes changes again")
				n.ready.Store(true)
				break
			}
			if text := err.Error(); text != said { // it may go on for long
				n.logger().Error("The log can't be read: nothing is written until it is", "error", err)
				said = text
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(healPause):
			}
		}
	}
}

// resume brings the database to the end of the log, whose answer may have been lost.
func (n *Node) resume() error {
	if n.log != nil {
		if err := n.log.restart(); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.catchUp(n.applier); err != nil {
		return err
	}
	return n.reload()
}

// reload has PocketBase read again what it has in memory, if entries have changed that.
func (n *Node) reload() error {
	app, ok := n.app.Load().(core.App)
	if !ok {
		return nil
	}
	if n.applier.collections {
		if err := app.ReloadCachedCollections(); err != nil {
			return err
		}
	}
	if n.applier.settings {
		if err := app.ReloadSettings(); err != nil {
			return err
		}
	}
	n.applier.collections, n.applier.settings = false, false
	return nil
}

// Position returns how far the database has come in the log.
func (n *Node) Position() (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applier == nil {
		return 0, errNotConnected
	}
	return n.applier.position()
}

var errNotConnected = errors.New("the node has no database yet")

// Close closes the log, after which nothing can be written. The connections that PocketBase
// has are closed by PocketBase. An app that the node is registered with closes it itself, when it
// terminates.
func (n *Node) Close() error {
	n.mu.Lock()
	stop := n.stop
	n.stop = nil
	n.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	n.ready.Store(false)
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.applier.close()
	n.applier = nil
	if n.log != nil {
		err = errors.Join(err, n.log.close())
	}
	return err
}

// Package replica keeps the databases of several nodes one database: each transaction that
// changes data.db becomes an entry of a log before it is committed, and applying the entries
// in order to another data.db makes that one the same, to every rowid, type and byte.
//
// What is logged are the rows that changed and the statements that changed the schema, in
// their order, whatever made them: an app's hooks, the dashboard, migrations or raw SQL. So
// ids, times and random values travel as values, and nothing is decided twice.
//
//	node, err := replica.Open(replica.Config{})
//	…
//	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: node.Connect})
//	node.Register(app, app.RootCmd)
//
// Which node this is, of several, [ConfigFromEnv] reads from the environment, and [AddCommands] adds what an operator needs
// to make nodes, and to end that.
//
// The log is a stream of NATS JetStream, whose server runs in this process and keeps it in the
// folder data.db-log beside the database.
//
// Of several nodes, each has such a server, and what the log takes, most of them have on disk. One of
// them leads: only there can be written. When it dies, another one leads after some seconds, for as long as most
// of the nodes can reach each other; the others apply what it writes, and can be read from.
//
// Every node serves whoever comes to it. It answers reads itself, and has streams of realtime events, which come of
// what it applies: see [Node.Applied]. It passes on what may write to the node that leads, and what is about a stream to the
// one that has it; the answer comes once this node has what was written. Who goes from node to node sees nothing go back if
// each request says how far the last answer was: see [Node.Position].
//
// The log begins with a seed: an id of its own, and the hash of a base snapshot, a copy of the
// database as it was. [Seed] is what a database that has rows needs for that; where there is nothing, one
// node needs none. Of several nodes, one starts with a database that was seeded, and the others with nothing. Whenever the log has grown by a quarter of the database, but by 64 MB at least
// and 512 MB at most, and at each start, the last snapshot and what the log has since then become the
// next one. Two are kept, and the log from the older one on. So beside data.db, there must be room for
// three files of its size, for one more that was put aside, and for up to three times what the log grows
// by; a log of 2 GB takes no more, which it gets to if no snapshot could be made for long.
//
// Each snapshot is compared with the database, row by row. If they differ, somebody has changed that past the
// log, and the server restarts itself, to replace it by the snapshot and the log, as it does at a start with a
// database that is missing, damaged, or an old copy. What was there stays, in a folder superseded-TIME beside
// it, which is never deleted. What was written since the change may build on it, so that the log can't be applied
// without it: then the change stays, and the log goes on from a copy of the database.
//
// It knows PocketBase and SQLite, through the driver modernc.org/sqlite.
//
// A few statements can't be logged and are refused by name: virtual tables, tables WITHOUT
// ROWID, CREATE TABLE AS, ATTACH, BEGIN and COMMIT as statements, OR FAIL, INSERT … SELECT * in a
// trigger, a view of statistics, and a PRAGMA that writes. PocketBase uses none of them. ANALYZE, VACUUM and checkpoints are of one file only
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
	"github.com/spf13/cobra"
)

// ErrUnavailable is what a write fails with that the log didn't take, or perhaps took: nothing of
// it is in the database, but after a while it may be, if the log has it after all. Until that is
// known, and so is all that the log has, every write fails with it. Whoever wrote may try again.
var ErrUnavailable = errors.New("the log of the database can't take a change now")

// A Node is one database that writes to a log.
type Node struct {
	// The log. It takes an entry that follows the position, and gives those that follow one,
	// each with the position after it. What it takes can't be lost, and it doesn't keep the bytes.
	// Before, it is opened with the database, and reports whether it made that or replaced it.
	connect func(path string) (a *applier, made bool, err error)
	append  func(after uint64, entry []byte) error
	read    func(after uint64, apply func(position uint64, entry []byte) error) error
	restart func() error
	shut    func() error
	log     *streamLog // which that is, but in a test

	app     atomic.Value                  // a core.App, if the node is registered
	rootCmd atomic.Pointer[cobra.Command] // which tells what this process does; nil if it serves
	command func() bool                   // findCommand, once
	applied *appliedApp                   // the app, for what is applied

	localJobs []string // ids of cron jobs that run whichever node leads
	secrets   sync.Map // by what they are

	bootstrapped atomic.Bool // the app: it has read what it keeps in memory

	serving  atomic.Bool // the app, so that what is applied is told
	listened moment      // when somebody last had a stream of events

	ready     atomic.Bool // to write: for what is known, the database has all of the log, and this node leads
	starting  atomic.Bool // one of several, whose app looks whether there is something to migrate, in a transaction
	current   atomic.Bool // one of several has come to the end of the log once
	condemned atomic.Bool // nothing is written or applied any more: the database must be replaced, or another machine is this node
	full      atomic.Bool // the log, as far as the last write knows

	asked  chan chan<- error // for a snapshot
	grew   chan struct{}     // the log, by the bound
	growth atomic.Int64      // of the log since the last snapshot, in bytes
	bound  atomic.Int64

	peer     *peer        // of one of several
	leader   atomic.Value // a string, the name of the node that leads, as far as is known
	heard    moment       // when it was
	reached  reached
	caughtUp moment           // of one of several: when the database had all of the log
	watch    watch            // of the others
	handed   moment           // when it had another one lead, because of its clock
	clock    func() time.Time // the time of day, but in a test
	idleRows time.Duration    // how long a command may not read on: peerTimeout, but in a test
	asking   atomic.Int32     // how often it has asked whether it may join

	turnedAway atomic.Value // a string, the last process of a twin of another node

	keeps, newest atomic.Uint64     // the positions of the last snapshot but one, and of the last one
	kept          map[string]uint64 // of all nodes, the first of both

	stop atomic.Pointer[func()] // ends what runs beside the app, which may have mu for long

	mu      sync.Mutex
	path    string
	name    string          // of the log, short
	applier *applier        // of the database at path
	fell    chan error      // why it isn't ready any more
	closed  <-chan struct{} // once what runs beside the app ends
	onLead  []func()
}

// Open returns a node without a database: [Node.Connect] opens it, and its log.
func Open(config Config) (*Node, error) {
	if err := checkDriver(sqliteDriver()); err != nil {
		return nil, err
	}
	config, err := config.check()
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	n := &Node{asked: make(chan chan<- error), grew: make(chan struct{}, 1), kept: map[string]uint64{}, clock: time.Now, idleRows: peerTimeout, watch: watch{others: map[string]*other{}}}
	n.log, n.command = newStreamLog(config, n.logger), sync.OnceValue(n.findCommand)
	n.log.admits = n.admits
	n.connect, n.append, n.read, n.restart, n.shut = n.openDatabase, n.log.append, n.log.read, n.log.restart, n.shutAll
	return n, nil
}

func (n *Node) several() bool { return n.log != nil && n.log.config.several() }

// logger returns the app's, which is the program's until the app has bootstrapped: it gets its own meanwhile.
func (n *Node) logger() *slog.Logger {
	if app, ok := n.app.Load().(core.App); ok && n.bootstrapped.Load() {
		return app.Logger()
	}
	return slog.Default()
}

// Connect opens a database for PocketBase, as its Config.DBConnect. Of data.db, every
// transaction is logged, and what only the log has is applied before Connect returns; other
// files are opened as PocketBase opens them.
//
// Where there is neither a database nor a log, both begin, unless there are several nodes. A data.db that is missing, is older than
// the log begins, is damaged or isn't what the log says is replaced by the newest snapshot that is right and
// what the log has since then, and put aside into a folder superseded-TIME. One is refused that has
// rows and follows no log ([Seed] begins one with it) or another one, or whose log isn't there or is older.
//
// In a command beside the servers of several nodes ([Node.Register] says what that is), nothing is opened here: it is the
// database of the node that leads.
func (n *Node) Connect(path string) (*dbx.DB, error) {
	if filepath.Base(path) != "data.db" {
		return core.DefaultDBConnect(path)
	}
	if n.isCommand() {
		return n.connectLeader()
	}
	if err := n.open(path); err != nil {
		return nil, err
	}
	if err := n.awaitMigrated(); err != nil {
		return nil, err
	}
	return dbx.NewFromDB(newDB(n, path), "sqlite"), nil
}

var (
	errUnseeded = errors.New("it has rows and follows no log: \"cluster init\" begins one with it, if no other node has one")
	errNewLog   = errors.New("end it with \"cluster leave\", and begin a new one with \"cluster init\"")
	errOtherLog = errors.New("its log is another one than the database follows: put the right one back")
	errNoCopy   = errors.New("move data.db away, so that this node gets a copy of another one's")
)

// logSuffix follows the database's path in the path of the log's folder.
const logSuffix = "-log"

var errEnough = errors.New("the position is reached")

// catchUp applies what the log has after the database's position, up to another one, which the log
// may be beyond already.
func (n *Node) catchUp(ctx context.Context, a *applier, to uint64) error {
	at, err := a.position()
	if err != nil {
		return err
	}
	apply := a.apply
	if a == n.applier {
		if err := n.reloadAt(at); err != nil { // if it couldn't before: it decides who is told of what comes
			return err
		}
		apply = n.applyAndTell
	}
	if to != endOfLog && at >= to {
		return nil
	}
	read := n.read
	if to != endOfLog {
		read = func(after uint64, apply func(uint64, []byte) error) error { return n.log.readBeside(after, to, apply) }
	}
	err = read(at, func(position uint64, entry []byte) error {
		if position > to {
			return errEnough
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := apply(at, position, entry); err != nil {
			return err
		}
		at = position
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// commit appends a transaction's entry to the log, while SQLite commits it and so with its write
// lock. When it returns an error, SQLite rolls back.
func (n *Node) commit(after uint64, entry []byte) (err error) {
	if !n.ready.Load() {
		return ErrUnavailable
	}
	defer func() {
		if p := recover(); p != nil { // which must not go through SQLite
			err = n.fall(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	err = n.append(after, entry)
	if errors.Is(err, errFull) {
		return n.refuseFull(err)
	}
	if err != nil {
		return n.fall(err)
	}
	n.full.Store(false)
	n.grow(len(entry))
	return nil
}

// grow counts what the log has grown by, for the next snapshot.
func (n *Node) grow(bytes int) {
	if n.growth.Add(int64(bytes)) >= n.bound.Load() {
		n.wantSnapshot()
	}
}

func (n *Node) wantSnapshot() {
	select {
	case n.grew <- struct{}{}:
	default:
	}
}

// refuseFull says what helps when the log took nothing because it is full.
func (n *Node) refuseFull(err error) error {
	if !n.full.Swap(true) {
		n.logger().Error("The log is full: nothing is written until a snapshot lets it be cut off. One is tried every minute: if there is none, what is logged says why; it needs as much free disk as the database has")
		n.wantSnapshot()
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Leads reports whether this node takes writes. One without others does, unless its log fails.
func (n *Node) Leads() bool { return n.ready.Load() }

// OnLead has f called each time this node begins to lead, and when the app begins to serve on a node that leads:
// in a goroutine of its own. Before the app serves, it isn't called.
func (n *Node) OnLead(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onLead = append(n.onLead, f)
}

// begins calls what waits for this node to lead.
func (n *Node) begins() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.onLead {
		go f()
	}
}

var errNotConnected = errors.New("the node has no database yet")

// shutAll closes what other nodes connect to, and the log.
func (n *Node) shutAll() error {
	if n.peer != nil {
		n.peer.close()
	}
	return n.log.close()
}

// Close closes the log, after which nothing can be written. The connections that PocketBase
// has are closed by PocketBase. An app that the node is registered with closes it itself, when it
// terminates.
func (n *Node) Close() error {
	stop := n.stop.Swap(nil)
	if stop == nil {
		return nil
	}
	(*stop)()
	n.ready.Store(false)
	n.mu.Lock()
	defer n.mu.Unlock()
	err := errors.Join(n.applier.close(), n.shut())
	n.applier = nil
	return err
}

package replica

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/pocketriver/pocketriver/hooks/internal/prepared"
)

// The log is the durable copy: what a power failure takes from the end of this file is
// applied again from there, so a commit needs no fsync of its own. A checkpoint syncs all that the
// WAL has then, and a commit waits for it, so there are fewer of them than with 1,000 pages, the
// default. busy_timeout must come first, before a pragma that may have to wait.
const dsn = "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)&_pragma=wal_autocheckpoint(4000)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)&_pragma=foreign_keys(%s)"

// newDB opens a database whose transactions are logged.
func newDB(node *Node, path string) *sql.DB {
	return sql.OpenDB(&connector{node, path + fmt.Sprintf(dsn, "ON")})
}

type connector struct {
	node *Node
	dsn  string
}

func (c *connector) Driver() driver.Driver { return sqliteDriver() }

func (c *connector) Connect(context.Context) (driver.Conn, error) {
	opened, err := c.Driver().Open(c.dsn)
	if err != nil {
		return nil, err
	}
	conn := &conn{Conn: prepared.Keep(opened).(prepared.Conn), node: c.node}
	// Before any statement is prepared: SQLite decides then whether it tells of each row.
	hooks := opened.(sqlite.HookRegisterer)
	hooks.RegisterPreUpdateHook(conn.onRow)
	hooks.RegisterCommitHook(conn.onCommit)
	hooks.RegisterRollbackHook(conn.onRollback)
	return conn, nil
}

var (
	errTooLarge   = fmt.Errorf("a transaction of more than %d MB can't be logged: write it in several", maxEntry>>20)
	errRolledBack = errors.New("SQLite has rolled the transaction back")
	errCancelled  = errors.New("a statement of the transaction was cancelled: it can only be rolled back")
	errHalf       = errors.New("a statement of the transaction failed after it had changed rows: it can only be rolled back")
	errUnlogged   = errors.New("the transaction has changes that weren't logged: it was rolled back")
	errPosition   = fmt.Errorf("the table %s is the log's", positionTable)
	errSequence   = errors.New("sqlite_sequence can't be written to when it is logged: drop the table and create it again")
	errScript     = errors.New("several statements that write can't be one query: execute them, or query them one by one")
)

// A conn is a connection that captures what its transactions change.
type conn struct {
	prepared.Conn
	node *Node

	inTransaction bool
	rolledBack    bool // by SQLite, so that there is none any more
	changes       changes
	savepoints    []mark
	inSchema      bool  // while a statement changes the schema
	err           error // why the transaction can't be committed

	moving   bool   // while the position is written
	position uint64 // in the log, before the transaction
	next     uint64 // and after it
	proposed int    // bytes of changes, which the commit hook appends after it; 0 if it may not
	appended bool   // by the commit hook
	refusal  error  // why it refused

	around func(entry []byte, commit func() error) error // a commit, of transactions whose app isn't this process's; nil of others
}

// A mark is a savepoint and how much had changed before it.
type mark struct {
	name string
	len  int
}

func (c *conn) reset() {
	c.inTransaction, c.rolledBack, c.inSchema = false, false, false
	c.savepoints, c.err, c.proposed = nil, nil, 0
	c.changes.cut(0)
	if cap(c.changes.b) > 1<<20 { // of a large transaction, and the connection stays
		c.changes.b = nil
	}
}

// onRow is told of each row before SQLite changes it. What triggers and foreign keys do to
// other rows is captured as well: they do nothing where the entry is applied.
func (c *conn) onRow(data sqlite.SQLitePreUpdateData) {
	if data.DatabaseName != "main" || strings.HasPrefix(data.TableName, "sqlite_stat") || c.moving || c.err != nil {
		return
	}
	switch data.TableName {
	case positionTable:
		c.err = errPosition
		return
	case "sqlite_sequence":
		// SQLite keeps it for the tables' AUTOINCREMENT, as it will where the entry is applied.
		if !c.inSchema {
			c.err = errSequence
		}
		return
	}
	if err := c.capture(&data); err != nil {
		c.err = err
	} else if c.changes.len() > maxEntry {
		c.err = errTooLarge
	}
	if c.err != nil {
		c.changes.cut(0)
	}
}

func (c *conn) capture(data *sqlite.SQLitePreUpdateData) (err error) {
	switch data.Op {
	case sqlite3.SQLITE_DELETE:
		c.changes.delete(data.TableName, data.OldRowID)
	case sqlite3.SQLITE_INSERT:
		n := data.Count()
		c.changes.insert(data.TableName, data.NewRowID, n)
		withRow(data, func(r row) {
			for i := 0; i < n && err == nil; i++ {
				var is sqliteValue
				if is, err = r.is(i); err == nil {
					is.add(&c.changes)
				}
			}
		})
	case sqlite3.SQLITE_UPDATE:
		before := c.changes
		c.changes.update(data.TableName, data.OldRowID, data.NewRowID)
		columns := c.changes.len()
		withRow(data, func(r row) {
			for i := 0; i < data.Count() && err == nil; i++ {
				err = c.captureColumn(r, i)
			}
		})
		if c.changes.len() == columns && data.OldRowID == data.NewRowID {
			c.changes.b, c.changes.table = c.changes.b[:len(before.b)], before.table
			return err
		}
		c.changes.end()
	}
	return err
}

func (c *conn) captureColumn(r row, i int) error {
	was, err := r.was(i)
	if err != nil {
		return err
	}
	is, err := r.is(i)
	if err != nil || was.equal(is) {
		return err
	}
	c.changes.column(i)
	is.add(&c.changes)
	return nil
}

// onCommit is SQLite's commit hook: the append to the log is the commit.
func (c *conn) onCommit() int32 {
	if c.changes.len() != c.proposed || c.err != nil {
		c.refusal = errUnlogged
		return 1
	}
	if c.proposed == 0 {
		return 0 // of this file only, such as statistics
	}
	if c.refusal = c.node.commit(c.position, c.changes.entry()); c.refusal != nil {
		return 1
	}
	c.appended = true
	return 0
}

func (c *conn) onRollback() {
	c.rolledBack = true
	c.changes.cut(0)
}

func (c *conn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	if !c.node.ready.Load() && !c.node.starting.Load() { // rather than have it wait for what holds the lock, and then fail
		return nil, ErrUnavailable
	}
	inner, err := c.Conn.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	c.reset()
	c.inTransaction = true
	return &tx{inner, c}, nil
}

func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

type tx struct {
	driver.Tx
	conn *conn
}

func (t *tx) Rollback() error {
	defer t.conn.reset()
	return t.Tx.Rollback()
}

func (t *tx) Commit() error {
	c := t.conn
	defer c.reset()
	if err := c.propose(); err != nil {
		_ = t.Tx.Rollback() // which fails if there is none any more
		return err
	}
	if c.around != nil && c.proposed > 0 {
		return c.around(c.changes.entry(), t.commit)
	}
	return t.commit()
}

func (t *tx) commit() error {
	c := t.conn
	c.refusal, c.appended = nil, false
	err := t.Tx.Commit()
	if c.refusal != nil {
		return c.refusal
	}
	if err != nil && c.appended {
		return c.node.fall(err)
	}
	if err == nil && c.appended {
		c.node.reached.set(c.next)
	}
	return err
}

// propose makes the position of the transaction one of its rows, for the commit hook to
// append at. SQLite's write lock, which it has, makes it the only one to do so.
func (c *conn) propose() error {
	if c.rolledBack {
		return errors.Join(errRolledBack, c.err)
	}
	if c.err != nil || c.changes.len() == 0 {
		return c.err
	}
	position, err := c.number("SELECT position FROM " + positionTable)
	if err != nil {
		return fmt.Errorf("read the position in the log: %w", err)
	}
	c.position, c.next = uint64(position), uint64(position)+messages(c.changes.entry())
	c.moving = true
	_, err = c.Conn.ExecContext(context.Background(), "UPDATE "+positionTable+" SET position = ?", []driver.NamedValue{{Ordinal: 1, Value: int64(c.next)}})
	c.moving = false
	if err != nil {
		return fmt.Errorf("write the position in the log: %w", err)
	}
	c.proposed = c.changes.len()
	return nil
}

// number returns what a query of one number finds.
func (c *conn) number(query string) (int64, error) {
	rows, err := c.Conn.QueryContext(context.Background(), query, nil)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	values := make([]driver.Value, 1)
	if err := rows.Next(values); err != nil {
		return 0, err
	}
	number, ok := values[0].(int64)
	if !ok {
		return 0, fmt.Errorf("%v is no number", values[0])
	}
	return number, nil
}

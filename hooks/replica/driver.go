package replica

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/pocketriver/pocketriver/hooks/internal/prepared"
)

// The log is the durable copy: what a power failure takes from the end of this file is
// applied again from there, so a commit needs no fsync of its own. busy_timeout must come
// first, before a pragma that may have to wait.
const dsn = "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(200000000)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)&_pragma=foreign_keys(%s)"

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
	conn := &conn{sqliteConn: prepared.Keep(opened).(sqliteConn), append: c.node.append}
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
	errUnlogged   = errors.New("the transaction has changes that weren't logged: it was rolled back")
	errPosition   = fmt.Errorf("the table %s is the log's", positionTable)
	errSequence   = errors.New("sqlite_sequence can't be written to when it is logged: drop the table and create it again")
	errScript     = errors.New("several statements that write can't be one query: execute them, or query them one by one")
)

// A conn is a connection that captures what its transactions change.
type conn struct {
	sqliteConn
	append func(position uint64, entry []byte) error

	inTransaction bool
	rolledBack    bool // by SQLite, so that there is none any more
	changes       changes
	savepoints    []mark
	inSchema      bool  // while a statement changes the schema
	err           error // why the transaction can't be committed

	moving   bool  // while the position is written
	position int64 // what the commit hook appends the entry at, if not 0
	refusal  error // why the commit hook refused
}

// A mark is a savepoint and how much had changed before it.
type mark struct {
	name string
	len  int
}

func (c *conn) reset() {
	c.inTransaction, c.rolledBack, c.inSchema = false, false, false
	c.savepoints, c.err, c.position = nil, nil, 0
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
	if c.position == 0 {
		if c.changes.len() == 0 && c.err == nil {
			return 0 // of this file only, such as statistics
		}
		c.refusal = errUnlogged
		return 1
	}
	if c.refusal = c.append(uint64(c.position), c.changes.entry()); c.refusal != nil {
		return 1
	}
	return 0
}

func (c *conn) onRollback() {
	c.rolledBack = true
	c.changes.cut(0)
}

func (c *conn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	inner, err := c.sqliteConn.BeginTx(ctx, options)
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
	c.refusal = nil
	err := t.Tx.Commit()
	if c.refusal != nil {
		return c.refusal
	}
	return err // with the entry in the log: this database is behind, as when an append is unsure
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
	c.moving = true
	_, err = c.sqliteConn.ExecContext(context.Background(), "UPDATE "+positionTable+" SET position = ?", []driver.NamedValue{{Ordinal: 1, Value: position + 1}})
	c.moving = false
	if err != nil {
		return fmt.Errorf("write the position in the log: %w", err)
	}
	c.position = position + 1
	return nil
}

// number returns what a query of one number finds.
func (c *conn) number(query string) (int64, error) {
	rows, err := c.sqliteConn.QueryContext(context.Background(), query, nil)
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

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	statements := parse(query)
	if len(statements) == 0 { // a comment
		return c.sqliteConn.ExecContext(ctx, query, args)
	}
	for _, s := range statements {
		result, err = c.run(ctx, s, func() (driver.Result, error) { return c.sqliteConn.ExecContext(ctx, s.sql, args) })
		if err != nil {
			return nil, err
		}
	}
	return result, nil
}

// run executes one statement and keeps the changes as SQLite keeps them.
func (c *conn) run(ctx context.Context, s statement, execute func() (driver.Result, error)) (driver.Result, error) {
	switch s.kind {
	case kindRead:
		return execute()
	case kindRefused:
		return nil, s.err
	case kindVacuum:
		if err := c.refuseVacuum(); err != nil {
			return nil, err
		}
		return execute()
	}
	if c.inTransaction && c.rolledBack {
		return nil, errRolledBack
	}
	if s.kind == kindSavepoint || s.kind == kindRelease || s.kind == kindRollback {
		return c.mark(ctx, s, execute)
	}
	if c.inTransaction {
		return c.change(ctx, s, execute)
	}
	var result driver.Result
	err := c.alone(ctx, func() (err error) {
		result, err = c.change(ctx, s, execute)
		return err
	})
	return result, err
}

// alone executes a statement that is a transaction by itself.
func (c *conn) alone(ctx context.Context, execute func() error) error {
	t, err := c.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return err
	}
	if err := execute(); err != nil {
		_ = t.Rollback() // which fails if SQLite has done so
		return err
	}
	return t.Commit()
}

// change executes a statement that changes rows or the schema, in a transaction.
func (c *conn) change(ctx context.Context, s statement, execute func() (driver.Result, error)) (driver.Result, error) {
	before, version := c.changes.len(), int64(0)
	if s.kind == kindSchema {
		var err error
		if version, err = c.number("PRAGMA schema_version"); err != nil {
			return nil, err
		}
		c.inSchema = true
		defer func() { c.inSchema = false }()
	}
	result, err := execute()
	if err != nil {
		c.cancelled(ctx)
		c.changes.cut(before) // as SQLite has
		return nil, err
	}
	if s.kind == kindSchema && c.err == nil {
		c.err = c.captureSchema(s, version)
	}
	if c.err != nil { // of this statement or one before, the earlier the better
		return nil, c.err
	}
	return result, nil
}

// cancelled ends the transaction of a statement that was cancelled: SQLite may have executed
// it just before, and the driver doesn't tell.
func (c *conn) cancelled(ctx context.Context) {
	if c.err == nil && ctx.Err() != nil && !c.rolledBack {
		c.err = errCancelled
	}
}

// captureSchema captures a statement that has changed the schema, if it has. Rows that it
// changed stay before it: those of DROP TABLE, by foreign keys.
func (c *conn) captureSchema(s statement, version int64) error {
	after, err := c.number("PRAGMA schema_version")
	if err != nil || after == version {
		return err
	}
	c.changes.schema(s.sql)
	return nil
}

// mark follows SQLite's savepoints.
func (c *conn) mark(ctx context.Context, s statement, execute func() (driver.Result, error)) (driver.Result, error) {
	if !c.inTransaction {
		return nil, errTransaction
	}
	result, err := execute()
	if err != nil {
		c.cancelled(ctx)
		return nil, err
	}
	if s.kind == kindSavepoint {
		c.savepoints = append(c.savepoints, mark{s.name, c.changes.len()})
		return result, nil
	}
	for i, m := range slices.Backward(c.savepoints) {
		if m.name != s.name {
			continue
		}
		if s.kind == kindRollback {
			c.changes.cut(m.len)
			c.savepoints = c.savepoints[:i+1]
		} else {
			c.savepoints = c.savepoints[:i]
		}
		return result, nil
	}
	c.err = errUnlogged // a savepoint that SQLite knows, and this doesn't
	return nil, c.err
}

// refuseVacuum refuses a VACUUM that gives rows other rowids, as SQLite does in a table that
// has neither an index nor a rowid of its own: the entries would find other rows.
func (c *conn) refuseVacuum() error {
	rows, err := c.sqliteConn.QueryContext(context.Background(), `SELECT name FROM pragma_table_list AS t WHERE schema = 'main' AND type = 'table'
		AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND NOT EXISTS (SELECT 1 FROM pragma_index_list(t.name))
		AND NOT (SELECT count(*) = 1 AND max(type) = 'INTEGER' COLLATE NOCASE FROM pragma_table_info(t.name) WHERE pk > 0)`, nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	names := make([]driver.Value, 1)
	if err := rows.Next(names); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	return fmt.Errorf("VACUUM would change the rowids of %v: give it an index or an INTEGER PRIMARY KEY", names[0])
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := single(query)
	if err != nil {
		return nil, err
	}
	return c.query(ctx, s, func() (driver.Rows, error) { return c.sqliteConn.QueryContext(ctx, query, args) })
}

// single returns the statement that a query is. Several that only read count as one.
func single(query string) (statement, error) {
	statements := parse(query)
	if !slices.ContainsFunc(statements, func(s statement) bool { return s.kind != kindRead }) {
		return statement{sql: query, kind: kindRead}, nil
	}
	if len(statements) > 1 {
		return statement{}, errScript
	}
	return statements[0], statements[0].err
}

// query is run for a statement that returns rows, or none.
func (c *conn) query(ctx context.Context, s statement, query func() (driver.Rows, error)) (driver.Rows, error) {
	if s.kind == kindRead {
		return query()
	}
	alone := !c.inTransaction
	var rows driver.Rows
	_, err := c.run(ctx, s, func() (_ driver.Result, err error) {
		// With RETURNING, SQLite has changed everything when it has the first row.
		rows, err = query()
		if err == nil && alone {
			rows, err = readAll(rows)
		}
		return nil, err
	})
	if err != nil && rows != nil {
		_ = rows.Close()
	}
	return rows, err
}

// readAll reads what a statement returns, before the transaction that it is can end.
func readAll(from driver.Rows) (driver.Rows, error) {
	defer from.Close()
	all := &bufferedRows{columns: from.Columns()}
	for {
		row := make([]driver.Value, len(all.columns))
		err := from.Next(row)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all.rows = append(all.rows, row)
	}
}

type bufferedRows struct {
	columns []string
	rows    [][]driver.Value
}

func (b *bufferedRows) Columns() []string { return b.columns }

func (b *bufferedRows) Close() error { return nil }

func (b *bufferedRows) Next(row []driver.Value) error {
	if len(b.rows) == 0 {
		return io.EOF
	}
	copy(row, b.rows[0])
	b.rows = b.rows[1:]
	return nil
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := single(query)
	if err != nil {
		return nil, err
	}
	inner, err := c.sqliteConn.PrepareContext(ctx, query)
	if err != nil || s.kind == kindRead {
		return inner, err
	}
	return &stmt{inner, c, s}, nil
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// A stmt is a prepared statement that changes something.
type stmt struct {
	driver.Stmt
	conn *conn
	s    statement
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.run(ctx, s.s, func() (driver.Result, error) {
		return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	})
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.query(ctx, s.s, func() (driver.Rows, error) {
		return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	})
}

package replica

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"

	sqlite3 "modernc.org/sqlite/lib"
)

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	statements := parse(query)
	if len(statements) == 0 { // a comment
		return c.Conn.ExecContext(ctx, query, args)
	}
	for _, s := range statements {
		result, err = c.run(ctx, s, func() (driver.Result, error) { return c.Conn.ExecContext(ctx, s.sql, args) })
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
		if c.err == nil && c.changes.len() > before && !hasCode(err, sqlite3.SQLITE_CONSTRAINT) {
			c.err = fmt.Errorf("%w: %w", errHalf, err) // which SQLite need not have undone
		}
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
	hidden, err := c.number(hiddenRowids)
	if err == nil && hidden > 0 {
		err = errHiddenRowid
	}
	if err == nil {
		var named int64
		if named, err = c.number(namedTemporary); err == nil && named > 0 {
			err = errTemporary
		}
	}
	c.changes.schema(s.sql)
	return err
}

// hiddenRowids counts the tables whose rows can't be found by their rowid.
const hiddenRowids = `SELECT count(*) FROM sqlite_schema AS t WHERE type = 'table'
	AND (SELECT count(*) FROM pragma_table_xinfo(t.name, 'main') WHERE lower(name) IN ('_rowid_', 'rowid', 'oid')) = 3`

var errHiddenRowid = errors.New("a table with columns of all the names of its rowid can't be logged: call one of _rowid_, rowid and oid something else")

// namedTemporary counts what only this connection has, and a trigger or a view names: ALTER TABLE looks at those, and fails
// where it isn't there.
const namedTemporary = `SELECT count(*) FROM sqlite_temp_schema AS t WHERE type IN ('table', 'view')
	AND EXISTS (SELECT 1 FROM main.sqlite_schema AS s WHERE s.type IN ('trigger', 'view') AND instr(lower(s.sql), lower(t.name)) > 0)`

var errTemporary = errors.New("the schema can't be changed while this connection has a temporary table that a trigger or a view names: drop that first")

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
	rows, err := c.Conn.QueryContext(context.Background(), `SELECT name FROM pragma_table_list AS t WHERE schema = 'main' AND type = 'table'
		AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND NOT EXISTS (SELECT 1 FROM pragma_index_list(t.name, 'main'))
		AND NOT (SELECT count(*) = 1 AND max(type) = 'INTEGER' COLLATE NOCASE FROM pragma_table_info(t.name, 'main') WHERE pk > 0)`, nil)
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
	return c.query(ctx, s, func() (driver.Rows, error) { return c.Conn.QueryContext(ctx, s.sql, args) })
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
	inner, err := c.Conn.PrepareContext(ctx, s.sql)
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

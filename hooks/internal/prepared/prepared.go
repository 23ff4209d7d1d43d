// Package prepared opens SQLite databases whose connections keep the statements that they have
// prepared: to prepare a small one takes longer than to run it, and PocketBase asks in the same
// words again and again.
package prepared

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/pocketbase/dbx"
)

// Bounds of what a connection keeps, those that it used last.
const (
	maxKept = 64
	maxText = 4 << 10 // bytes
)

const name = "sqlite" // as PocketBase's own driver is called

// Open is dbx.Open for a SQLite database.
func Open(dsn string) (*dbx.DB, error) {
	sqlite, err := Driver()
	if err != nil {
		return nil, err
	}
	return dbx.NewFromDB(sql.OpenDB(connector{sqlite, dsn}), name), nil
}

// Driver returns the driver that PocketBase uses, with the functions that the program has
// added to it.
func Driver() (driver.Driver, error) {
	db, err := sql.Open(name, "")
	if err != nil {
		return nil, err
	}
	return db.Driver(), db.Close()
}

type connector struct {
	sqlite driver.Driver
	dsn    string
}

func (c connector) Driver() driver.Driver { return c.sqlite }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	opened, err := c.sqlite.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return Keep(opened), nil
}

// Keep has a connection that has prepared nothing yet keep its statements.
func Keep(opened driver.Conn) driver.Conn {
	inner, ok := opened.(Conn)
	if !ok {
		return opened // another driver has the name
	}
	return &conn{Conn: inner}
}

// A Conn is what the driver's connections are to database/sql.
type Conn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// A conn is used by one goroutine at a time, and so are its statements and rows.
type conn struct {
	Conn
	kept []*statement // that nobody uses, in the order of their last use
}

func (c *conn) Close() error {
	var errs []error
	for _, s := range c.kept {
		errs = append(errs, s.sqliteStmt.Close())
	}
	c.kept = nil
	return errors.Join(append(errs, c.Conn.Close())...)
}

// keeps reports whether the query is kept: others, such as those that change the schema, are run
// once.
func keeps(query string) bool {
	if len(query) > maxText {
		return false
	}
	query = strings.TrimLeft(query, " \t\n\r")
	return slices.ContainsFunc([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, func(verb string) bool {
		return len(query) > len(verb) && strings.EqualFold(query[:len(verb)], verb)
	})
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if !keeps(query) {
		return c.Conn.PrepareContext(ctx, query)
	}
	return c.statement(ctx, query)
}

// statement returns a statement for the query that nobody else uses until it is closed.
func (c *conn) statement(ctx context.Context, query string) (*statement, error) {
	for i := len(c.kept) - 1; i >= 0; i-- {
		if s := c.kept[i]; s.query == query {
			c.kept = slices.Delete(c.kept, i, i+1)
			s.closed = false
			return s, nil
		}
	}
	prepared, err := c.Conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &statement{sqliteStmt: prepared.(sqliteStmt), conn: c, query: query}, nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !keeps(query) {
		return c.Conn.ExecContext(ctx, query, args)
	}
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args)
	return result, cmp.Or(err, s.Close())
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !keeps(query) {
		return c.Conn.QueryContext(ctx, query, args)
	}
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	defer s.Close() // it ends with its rows
	return s.QueryContext(ctx, args)
}

// A sqliteStmt is what the driver's statements are to database/sql.
type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// A statement goes back to its connection when it is closed and its rows are, or is finalized
// if it ever failed.
type statement struct {
	sqliteStmt
	conn   *conn
	query  string
	open   int // rows that are not closed yet
	closed bool
	failed bool
}

func (s *statement) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	result, err := s.sqliteStmt.ExecContext(ctx, args)
	s.failed = s.failed || err != nil
	return result, err
}

func (s *statement) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	found, err := s.sqliteStmt.QueryContext(ctx, args)
	if err != nil {
		s.failed = true
		return nil, err
	}
	s.open++
	return &rows{sqliteRows: found.(sqliteRows), statement: s}, nil
}

func (s *statement) Close() error {
	s.closed = true
	return s.end()
}

func (s *statement) end() error {
	c := s.conn
	switch {
	case !s.closed || s.open > 0:
		return nil
	case s.failed:
		return s.sqliteStmt.Close()
	}
	c.kept = append(c.kept, s)
	if len(c.kept) <= maxKept {
		return nil
	}
	oldest := c.kept[0]
	c.kept = slices.Delete(c.kept, 0, 1)
	return oldest.sqliteStmt.Close()
}

// A sqliteRows is what the driver's rows are to database/sql.
type sqliteRows interface {
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
}

// Rows tell their statement when it may be used again.
type rows struct {
	sqliteRows
	statement *statement
	closed    bool
}

func (r *rows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.sqliteRows.Close()
	r.statement.open--
	r.statement.failed = r.statement.failed || err != nil
	return cmp.Or(err, r.statement.end())
}

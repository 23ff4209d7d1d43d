package replica

import (
	"context"
	"database/sql/driver"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"time"
)

// What a command asks of its connection of the node that leads.
const (
	doPing     = "ping"
	doBegin    = "begin"
	doCommit   = "commit"
	doRollback = "rollback"
	doExec     = "exec"
	doQuery    = "query"
	doNext     = "next"  // more of the rows
	doClose    = "close" // the rows
)

// A request is one of these, and gets one answer.
type request struct {
	Do       string
	ReadOnly bool // of begin
	SQL      string
	Args     []driver.NamedValue
	Rows     int64 // of next and close
}

type answer struct {
	Failure                *failure
	LastInsertId, Affected int64
	Columns                []string
	Values                 [][]driver.Value // of as many rows as a batch has
	Rows                   int64            // which may have more; 0 if there are none
}

func init() { gob.Register(time.Time{}) }

// A failure is an error of another process.
type failure struct {
	Text        string
	Unavailable bool
	Code        int // of SQLite's error
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{err.Error(), errors.Is(err, ErrUnavailable), codeOf(err)}
}

func (f *failure) Error() string { return f.Text }

func (f *failure) Unwrap() (is []error) {
	if f.Unavailable {
		is = append(is, ErrUnavailable)
	}
	if f.Code != 0 {
		is = append(is, newError(f.Text, f.Code))
	}
	return is
}

var errUndone = errors.New("the node that leads was lost: nothing of the transaction was done")

// A leaderConn is a connection of the node that leads, as database/sql has it in a command: one thing at a time.
type leaderConn struct {
	peer          *peer
	leader        string
	stream        io.ReadWriteCloser
	out           *gob.Encoder
	in            *gob.Decoder
	inTransaction bool
	lost          error // why nothing can be asked any more
}

// ask gives up when ctx ends, or another node leads. The connection is lost then, and what it has begun is rolled back.
func (c *leaderConn) ask(ctx context.Context, r request) (a answer, err error) {
	if err = c.lost; err == nil {
		asking, done := context.WithCancel(ctx)
		stop := context.AfterFunc(asking, func() { c.stream.Close() })
		look := time.AfterFunc(answerPause, func() { c.giveUp(asking) })
		if err = c.out.Encode(r); err == nil {
			err = c.in.Decode(&a)
		}
		look.Stop()
		if !stop() {
			c.lost = errors.New("it was given up")
		}
		done()
	}
	switch {
	case err == nil && a.Failure == nil:
		return a, nil
	case err == nil:
		return a, a.Failure
	}
	c.lost = err
	c.stream.Close()
	switch {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case r.Do == doPing, r.Do == doBegin: // it does it again on another connection
		return a, driver.ErrBadConn
	case c.inTransaction && r.Do != doCommit:
		return a, fmt.Errorf("%w: %w (%s)", ErrUnavailable, errUndone, err.Error())
	}
	return a, fmt.Errorf("%w: %w (%s)", ErrUnavailable, errMayBe, err.Error()) // which is no end of rows
}

// giveUp closes a connection of a node that leads no more: it may have been cut off or stand still, and nobody would tell.
func (c *leaderConn) giveUp(ctx context.Context) {
	for ctx.Err() == nil {
		if now, err := c.peer.leader(); err == nil && now != c.leader {
			c.stream.Close()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(answerPause):
		}
	}
}

func (c *leaderConn) Close() error { return c.stream.Close() }

func (c *leaderConn) IsValid() bool { return c.lost == nil }

// ResetSession finds out that a connection was lost while nothing was asked of it, before that can be taken for done.
func (c *leaderConn) ResetSession(ctx context.Context) error {
	_, err := c.ask(ctx, request{Do: doPing})
	return err
}

func (c *leaderConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *leaderConn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	_, err := c.ask(ctx, request{Do: doBegin, ReadOnly: options.ReadOnly})
	if err != nil {
		return nil, err
	}
	c.inTransaction = true
	return leaderTx{c}, nil
}

type leaderTx struct{ conn *leaderConn }

func (t leaderTx) Commit() error { return t.end(doCommit) }

func (t leaderTx) Rollback() error { return t.end(doRollback) }

func (t leaderTx) end(do string) error {
	_, err := t.conn.ask(context.Background(), request{Do: do})
	t.conn.inTransaction = false
	return err
}

// bound returns values as SQLite's driver binds them, of what gob tells apart: a time is its text there.
func bound(args []driver.NamedValue) []driver.NamedValue {
	all := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		switch v := arg.Value.(type) {
		case time.Time:
			arg.Value = v.String()
		case []byte:
			if v == nil {
				arg.Value = nil
			}
		}
		all[i] = arg
	}
	return all
}

func (c *leaderConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	a, err := c.ask(ctx, request{Do: doExec, SQL: query, Args: bound(args)})
	if err != nil {
		return nil, err
	}
	return leaderResult{a.LastInsertId, a.Affected}, nil
}

type leaderResult struct{ lastInsertId, affected int64 }

func (r leaderResult) LastInsertId() (int64, error) { return r.lastInsertId, nil }

func (r leaderResult) RowsAffected() (int64, error) { return r.affected, nil }

func (c *leaderConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	a, err := c.ask(ctx, request{Do: doQuery, SQL: query, Args: bound(args)})
	if err != nil {
		return nil, err
	}
	return &leaderRows{c, ctx, a.Columns, a}, nil
}

type leaderRows struct {
	conn    *leaderConn
	ctx     context.Context // of the query
	columns []string
	batch   answer
}

func (r *leaderRows) Columns() []string { return r.columns }

func (r *leaderRows) Next(row []driver.Value) (err error) {
	for len(r.batch.Values) == 0 {
		if r.batch.Rows == 0 {
			return io.EOF
		}
		if r.batch, err = r.conn.ask(r.ctx, request{Do: doNext, Rows: r.batch.Rows}); err != nil {
			return err
		}
	}
	copy(row, r.batch.Values[0])
	r.batch.Values = r.batch.Values[1:]
	return nil
}

func (r *leaderRows) Close() error {
	if r.batch.Rows == 0 || !r.conn.IsValid() {
		return nil
	}
	_, err := r.conn.ask(context.Background(), request{Do: doClose, Rows: r.batch.Rows})
	return err
}

func (c *leaderConn) Prepare(query string) (driver.Stmt, error) { return &leaderStmt{c, query}, nil }

// A leaderStmt is only its text, which the node that leads prepares when it is executed.
type leaderStmt struct {
	conn  *leaderConn
	query string
}

func (s *leaderStmt) Close() error { return nil }

func (s *leaderStmt) NumInput() int { return -1 }

func (s *leaderStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

func (s *leaderStmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }

func (s *leaderStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s *leaderStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

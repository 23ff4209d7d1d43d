package replica

import (
	"context"
	"database/sql/driver"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// idleTransaction is how long a command's transaction may do nothing, or not take what it gets: nobody else can
	// write meanwhile.
	idleTransaction = 10 * time.Second

	// batchBytes is about how much of the rows of a query is sent at once.
	batchBytes = 256 << 10
)

var (
	errIdle     = fmt.Errorf("the transaction did nothing for %s: it was rolled back, so that others can write", idleTransaction)
	errIdleRows = errors.New("the rows were not read on for too long: they were closed, so that the WAL doesn't grow")
)

// A session is what a command does on one connection of this node's database.
type session struct {
	conn *conn
	tx   driver.Tx // nil without one
	over bool      // the transaction, and the command doesn't know
	rows map[int64]driver.Rows
	last int64 // of the rows that were asked for
}

// serveSQL makes a request a session, as long as this node leads.
func (n *Node) serveSQL(path string, w http.ResponseWriter, r *http.Request) {
	if !n.Leads() || !n.peer.enter() {
		http.Error(w, errMissed.Error(), http.StatusServiceUnavailable)
		return
	}
	defer n.peer.sessions.Done()
	opened, err := (&connector{n, path + fmt.Sprintf(dsn, "ON")}).Connect(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s := &session{conn: opened.(*conn), rows: map[int64]driver.Rows{}}
	defer s.end()
	s.conn.around = n.commitOfCommand
	stream, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer stream.Close()
	if _, err := io.WriteString(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+sqlProtocol+"\r\n\r\n"); err == nil {
		s.serve(stream, gob.NewDecoder(buffered))
	}
}

// commitOfCommand commits what a command has changed. The app has heard nothing of that: it reads again what it has in memory,
// and viewers are told as they are by a node that applies it.
func (n *Node) commitOfCommand(entry []byte, commit func() error) error {
	return n.tellAround(entry, func(applied func()) error {
		if err := commit(); err != nil {
			return err
		}
		applied()
		n.reloadChanged(entry)
		return nil
	})
}

// serve answers what the command asks, until it closes the stream, or this node leads no more.
func (s *session) serve(stream net.Conn, in *gob.Decoder) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	requests := make(chan request)
	go func() {
		defer cancel() // what is executed for who is gone
		for {
			var r request
			if in.Decode(&r) != nil {
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	go s.cancelUnlessLeads(ctx, cancel)
	for out := gob.NewEncoder(stream); ; {
		var idle <-chan time.Time
		if s.tx != nil {
			idle = time.After(idleTransaction)
		} else if len(s.rows) > 0 {
			idle = time.After(s.conn.node.idleRows)
		}
		select {
		case <-ctx.Done():
			return
		case <-idle:
			if s.over = s.tx != nil; s.over {
				s.conn.node.logger().Warn("A command's transaction is rolled back", "because", errIdle)
			} else {
				s.conn.node.logger().Warn("A command's rows are closed", "because", errIdleRows)
			}
			s.rollBack()
		case r := <-requests:
			answer, err := s.do(ctx, r)
			answer.Failure = failureOf(err)
			_ = stream.SetWriteDeadline(time.Now().Add(idleTransaction)) // if that fails, so does what is written
			if out.Encode(answer) != nil {
				return
			}
		}
	}
}

func (s *session) cancelUnlessLeads(ctx context.Context, cancel context.CancelFunc) {
	defer cancel()
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for s.conn.node.Leads() {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// rollBack ends the transaction, and all rows.
func (s *session) rollBack() {
	for _, rows := range s.rows {
		_ = rows.Close() // of a connection that goes on without them
	}
	clear(s.rows)
	if s.tx != nil {
		_ = s.tx.Rollback() // which fails if SQLite has done so
		s.tx = nil
	}
}

func (s *session) end() {
	s.rollBack()
	s.conn.Close()
}

var errNotAsked = errors.New("there is no such transaction, or no such rows")

func (s *session) do(ctx context.Context, r request) (a answer, err error) {
	if s.over && r.Do != doCommit && r.Do != doRollback {
		return a, errIdle
	}
	switch r.Do {
	case doPing:
		return a, nil
	case doBegin:
		if s.tx != nil {
			return a, errNotAsked
		}
		s.tx, err = s.conn.BeginTx(ctx, driver.TxOptions{ReadOnly: r.ReadOnly})
		return a, err
	case doCommit, doRollback:
		return a, s.endTransaction(r.Do == doCommit)
	case doExec:
		result, err := s.conn.ExecContext(ctx, r.SQL, given(r.Args))
		if err != nil {
			return a, err
		}
		a.LastInsertId, _ = result.LastInsertId() // SQLite's have both
		a.Affected, _ = result.RowsAffected()
		return a, nil
	case doQuery:
		rows, err := s.conn.QueryContext(ctx, r.SQL, given(r.Args))
		if err != nil {
			return a, err
		}
		s.last++
		s.rows[s.last] = rows
		a.Columns = rows.Columns()
		return a, s.batch(&a, s.last)
	case doNext:
		return a, s.batch(&a, r.Rows)
	case doClose:
		return a, s.closeRows(r.Rows)
	}
	return a, fmt.Errorf("this node doesn't know %q: it has another version", r.Do)
}

func (s *session) endTransaction(commit bool) error {
	tx, over := s.tx, s.over
	s.tx, s.over = nil, false
	switch {
	case over && commit:
		return errIdle
	case over:
		return nil
	case tx == nil:
		return errNotAsked
	case commit:
		return tx.Commit()
	}
	return tx.Rollback()
}

// given returns values as they were, which gob doesn't tell apart from NULL.
func given(args []driver.NamedValue) []driver.NamedValue {
	for i, arg := range args {
		if b, ok := arg.Value.([]byte); ok && b == nil {
			args[i].Value = []byte{}
		}
	}
	return args
}

// batch adds the next rows to the answer, and closes them when there are no more.
func (s *session) batch(a *answer, id int64) error {
	rows, err := s.rowsOf(id)
	if err != nil {
		return err
	}
	for size := 0; size < batchBytes; {
		row := make([]driver.Value, len(rows.Columns()))
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			return s.closeRows(id)
		}
		if err != nil {
			_ = s.closeRows(id) // which fails with the same
			return err
		}
		for _, v := range row {
			size += 16
			switch v := v.(type) {
			case string:
				size += len(v)
			case []byte:
				size += len(v)
			}
		}
		a.Values = append(a.Values, row)
	}
	a.Rows = id
	return nil
}

// rowsOf returns rows that are open. Those that were, and no more, were idle.
func (s *session) rowsOf(id int64) (driver.Rows, error) {
	rows := s.rows[id]
	switch {
	case rows != nil:
		return rows, nil
	case 0 < id && id <= s.last:
		return nil, errIdleRows
	}
	return nil, errNotAsked
}

func (s *session) closeRows(id int64) error {
	rows, err := s.rowsOf(id)
	if errors.Is(err, errIdleRows) { // and are closed
		return nil
	}
	if err != nil {
		return err
	}
	delete(s.rows, id)
	return rows.Close()
}

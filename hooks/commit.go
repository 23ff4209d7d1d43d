package hooks

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Bounds of the committer. A batch is what happens to wait while the one before it is
// written, so a lone write never waits for company.
const (
	maxBatch      = 256
	maxWaiting    = 4096
	maxCommitWait = 20 * time.Second // ModelRiver gives up on a webhook after 30
)

// errBusy is returned for a write that the database did not take in time.
var errBusy = errors.New("the database is busy")

// A committer runs writes in transactions, those that wait at the same time together
// in one: they share its fsync, which costs more than all else about a small write.
type committer struct {
	app core.App

	// What hears of the records of each batch when they are committed, in the order of
	// the commits and before PocketBase's after-success hooks, and when those have run.
	committed, settled func(records []*core.Record)

	mu      sync.Mutex
	waiting []*write
	busy    bool // a batch is being written

	current atomic.Pointer[batchApp] // whose writes run now
}

// A write is run once, or again if a neighbour in its batch made that fail.
type write struct {
	run func(tx core.App) error

	// done is called with the outcome, in the order of the commits and before
	// PocketBase's after-success hooks. It must not block, and may be nil.
	done func(err error)
}

func newCommitter(app core.App, committed, settled func(records []*core.Record)) *committer {
	return &committer{app: app, committed: committed, settled: settled}
}

// do runs fn in a transaction and returns once it is committed, or why it is not. It
// returns before PocketBase's after-success hooks have run.
func (c *committer) do(fn func(tx core.App) error) error {
	return c.wait(&write{run: fn})
}

// wait is do for a write that has more to it.
func (c *committer) wait(w *write) error {
	result := make(chan error, 1)
	done := w.done
	w.done = func(err error) {
		if done != nil {
			done(err)
		}
		result <- err
	}
	c.add(w)
	timeout := time.NewTimer(maxCommitWait)
	defer timeout.Stop()
	select {
	case err := <-result:
		return err
	case <-timeout.C:
		c.withdraw(w)
		return errBusy // or committed right now: nobody was told, so it comes again
	}
}

// add is wait that does not.
func (c *committer) add(w *write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= maxWaiting {
		go w.done(errBusy)
		return
	}
	c.waiting = append(c.waiting, w)
	if !c.busy {
		c.busy = true
		go c.lead()
	}
}

func (c *committer) withdraw(w *write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.waiting {
		if other == w {
			c.waiting = append(c.waiting[:i:i], c.waiting[i+1:]...)
			return
		}
	}
}

// lead writes one batch. The next batch begins as soon as this one is committed, while
// PocketBase's after-success hooks of this one, its realtime events among them, still
// run here.
func (c *committer) lead() {
	c.mu.Lock()
	n := min(len(c.waiting), maxBatch)
	batch := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	c.mu.Unlock()
	c.commit(batch, c.next)
}

func (c *committer) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.waiting = nil
		c.busy = false
		return
	}
	go c.lead()
}

// commit writes batch in one transaction and calls next when that has ended. If one of
// the writes is refused, all are undone and each is run alone: a savepoint would leave
// after-success hooks, and with them realtime events, of what it undid.
func (c *committer) commit(batch []*write, next func()) {
	var refused error
	committed := false
	var records []*core.Record
	err := c.transact(func(tx core.App) error {
		shared := &batchApp{App: tx, queries: map[string]*dbx.Query{}}
		tx.TxInfo().OnComplete(func(txErr error) error { // registered first, so it runs first
			if txErr == nil {
				committed = true
				records = shared.records
				c.committed(records)
				finish(batch, nil)
				next()
			}
			return nil
		})
		c.current.Store(shared)
		defer c.current.Store(nil)
		for _, w := range batch {
			if err := runSafely(w.run, shared); err != nil {
				refused = err
				return err
			}
		}
		return nil
	})

	switch {
	case committed:
		if err != nil {
			c.app.Logger().Warn("A hook failed after its record was stored", "error", err)
		}
		c.settled(records)
	case len(batch) > 1 && refused != nil && !databaseFailed(refused):
		for i, w := range batch {
			then := func() {}
			if i == len(batch)-1 {
				then = next
			}
			c.commit([]*write{w}, then)
		}
	default:
		finish(batch, err)
		next()
	}
}

func finish(batch []*write, err error) {
	for _, w := range batch {
		w.done(err)
	}
}

// A batchApp is the app of a transaction that keeps its prepared queries for all writes
// of the batch: preparing costs more than running them.
type batchApp struct {
	core.App
	queries map[string]*dbx.Query // closed with the transaction
	records []*core.Record        // that were inserted, in order
}

// query returns a query to be bound and run, within the transaction tx.
func query(tx core.App, sql string) *dbx.Query {
	batch, ok := tx.(*batchApp)
	if !ok {
		return tx.NonconcurrentDB().NewQuery(sql)
	}
	q := batch.queries[sql]
	if q == nil {
		q = batch.NonconcurrentDB().NewQuery(sql).Prepare()
		batch.queries[sql] = q
	}
	return q
}

// insert takes the place of PocketBase's own INSERT for a record of the batch, behind
// every hook and validation, with a query that is prepared once for the batch.
func (c *committer) insert(e *core.ModelEvent) error {
	batch := c.current.Load()
	record, ok := e.Model.(*core.Record)
	if !ok || record.Id == "" || batch == nil || batch.App != e.App {
		return e.Next()
	}
	values, err := record.DBExport(e.App)
	if err != nil {
		return err
	}
	columns := slices.Sorted(maps.Keys(values))
	insert := query(batch, fmt.Sprintf("INSERT INTO {{%s}} ([[%s]]) VALUES ({:%s})",
		record.TableName(), strings.Join(columns, "]], [["), strings.Join(columns, "}, {:")))
	if _, err := insert.Bind(values).WithContext(e.Context).Execute(); err != nil {
		return err
	}
	e.Model.MarkAsNotNew()
	batch.records = append(batch.records, record)
	return nil
}

// transact is RunInTransaction that turns a panic of PocketBase or of a hook after the
// commit into an error: it would end the process from this goroutine.
func (c *committer) transact(fn func(tx core.App) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return c.app.RunInTransaction(fn)
}

func runSafely(run func(tx core.App) error, tx core.App) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return run(tx)
}

// databaseFailed reports whether err says that the database can't write now, rather
// than that it or a hook refuses this one write. A driver's error is known by its code
// (https://www.sqlite.org/rescode.html).
func databaseFailed(err error) bool {
	for _, target := range []error{
		errBusy, context.DeadlineExceeded, context.Canceled, sql.ErrConnDone, sql.ErrTxDone, driver.ErrBadConn,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	var coded interface{ Code() int }
	if !errors.As(err, &coded) {
		return false
	}
	switch coded.Code() & 0xff {
	case 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26:
		// BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CORRUPT FULL CANTOPEN PROTOCOL NOTADB
		return true
	}
	return false
}

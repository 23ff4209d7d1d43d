package hooks

import (
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
	"github.com/pocketbase/pocketbase/tools/routine"
)

// Bounds of the committer. A batch is what happens to wait while the one before it is
// written, so a lone write never waits for company.
const (
	maxBatch      = 256
	maxBatchSize  = 8 << 20                // bytes of its webhooks, or one webhook
	maxBatchTime  = 100 * time.Millisecond // of its hooks, before those that are left wait for the next
	maxOpen       = 4                      // batches that are written, or whose after-success hooks run
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

	plain func() int    // how many hooks run around a save if the app has none of its own
	open  chan struct{} // holds one for each batch that is not done with its after-success hooks

	current atomic.Pointer[batchApp] // whose writes run now
}

// A write is run once, or again if a neighbour in its batch lost it the transaction.
type write struct {
	run   func(tx core.App) error
	size  int  // about how many bytes it writes
	alone bool // it is run in a transaction of its own

	// instead is run in place of a run that failed, once that is undone, unless it was
	// the database that failed. It may be nil.
	instead func(tx core.App, cause error) error

	// done is called with the outcome, in the order of the commits and before
	// PocketBase's after-success hooks. It must not block, and may be nil.
	done func(err error)
}

func newCommitter(app core.App, committed, settled func(records []*core.Record)) *committer {
	return &committer{
		app: app, committed: committed, settled: settled,
		open: make(chan struct{}, maxOpen), plain: sync.OnceValue(plainSaveHooks),
	}
}

// hooked reports whether the app has hooks of its own that would see a write run twice.
// Only for these is it worth the price to undo one write alone: about a fifth of all
// that a webhook costs.
func (c *committer) hooked() bool { return saveHooks(c.app) > c.plain() }

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
		defer func() { result <- err }()
		if done != nil {
			done(err)
		}
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
		go c.finish(w, errBusy)
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
// run here; but not before there is room for one more such batch. Hooks that hang, or
// wait for a webhook that waits for them, hold it up, but do not end it.
func (c *committer) lead() {
	select {
	case c.open <- struct{}{}:
		defer func() { <-c.open }()
	case <-time.After(maxCommitWait):
		c.app.Logger().Error("Hooks after create or update have been running for long: webhooks waited for them. Let them hand slow work to a goroutine", "batches", maxOpen)
	}
	next := sync.OnceFunc(c.next)
	defer next()
	if batch := c.take(); len(batch) > 0 {
		c.commit(batch, next)
	}
}

// take returns what the next batch may hold of what waits.
func (c *committer) take() []*write {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for n < min(len(c.waiting), maxBatch) {
		size += c.waiting[n].size
		if n > 0 && (size > maxBatchSize || c.waiting[n].alone) {
			break
		}
		n++
		if c.waiting[n-1].alone {
			break
		}
	}
	batch := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	return batch
}

// putBack makes the writes the first that wait.
func (c *committer) putBack(writes []*write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = slices.Concat(writes, c.waiting)
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

// stop returns when no after-success hook runs any more, or when the time is over.
func (c *committer) stop(grace time.Duration) {
	timeout := time.After(grace)
	for range maxOpen {
		select {
		case c.open <- struct{}{}:
			defer func() { <-c.open }()
		case <-timeout:
			c.app.Logger().Warn("Hooks after create or update still run: they are cut off")
			return
		}
	}
}

// commit writes batch in one transaction and calls next when that has ended. A write
// that fails is undone alone, and its after-success hooks with it, if hooks would see
// the difference. Else, or if its failure lost its neighbours the transaction, each is
// run in one of its own.
func (c *committer) commit(batch []*write, next func()) {
	outcomes := make([]error, len(batch))
	committed := false
	var failed error
	var records []*core.Record
	err := c.transact(func(tx core.App) error {
		shared := &batchApp{App: tx, queries: map[string]*dbx.Query{}, after: afterFuncsOf(tx.TxInfo())}
		tx.TxInfo().OnComplete(func(txErr error) error { // registered first, so it runs first
			if txErr == nil {
				committed = true
				records = shared.records
				c.safely(func() { c.committed(records) })
				c.finishAll(batch, outcomes)
				next()
			}
			return nil
		})
		c.current.Store(shared)
		defer c.current.Store(nil)
		undoable := len(batch) > 1 && c.hooked() && shared.after != nil
		began := time.Now()
		for i, w := range batch {
			if i > 0 && time.Since(began) > maxBatchTime {
				c.putBack(batch[i:])
				batch = batch[:i]
				break
			}
			if undoable {
				outcomes[i], failed = shared.runUndoable(w)
			} else {
				failed = shared.run(w)
			}
			if failed != nil {
				return failed
			}
		}
		return nil
	})

	switch {
	case committed:
		if err != nil {
			c.app.Logger().Warn("A hook failed after its record was stored", "error", err)
		}
		c.safely(func() { c.settled(records) })
	case failed == nil, databaseFailed(failed), len(batch) == 1 && batch[0].instead == nil:
		for i := range outcomes {
			outcomes[i] = err
		}
		c.finishAll(batch, outcomes)
		next()
	case len(batch) == 1:
		w := *batch[0]
		w.run = func(tx core.App) error { return batch[0].instead(tx, failed) }
		w.instead = nil
		c.commit([]*write{&w}, next)
	default: // not here, where the after-success hooks of one would hold up the others
		for _, w := range batch {
			w.alone = true
		}
		c.putBack(batch)
		next()
	}
}

func (c *committer) finishAll(batch []*write, outcomes []error) {
	for i, w := range batch {
		c.finish(w, outcomes[i])
	}
}

func (c *committer) finish(w *write, outcome error) {
	c.safely(func() { w.done(outcome) })
}

// safely runs fn, of whose panic the committer must not die.
func (c *committer) safely(fn func()) {
	err := routine.SafeWrap(func() error {
		fn()
		return nil
	})()
	if err != nil {
		c.app.Logger().Error("Failed to end a write", "error", err)
	}
}

// A batchApp is the app of a transaction that keeps its prepared queries for all writes
// of the batch: preparing costs more than running them.
type batchApp struct {
	core.App
	queries map[string]*dbx.Query // closed with the transaction
	records []*core.Record        // that were inserted, in order
	after   *afterFuncs
}

// run runs the write. If it fails, the whole transaction must be undone.
func (b *batchApp) run(w *write) error {
	mark := b.after.len()
	err := runSafely(w.run, b)
	b.after.end(mark, nil)
	return err
}

// runUndoable runs the write, or what is to be run instead, so that a failure undoes
// nothing else. lost is why the whole transaction must be undone all the same.
func (b *batchApp) runUndoable(w *write) (outcome, lost error) {
	outcome, lost = b.undoable(w.run)
	if outcome != nil && lost == nil && w.instead != nil {
		cause := outcome
		return b.undoable(func(tx core.App) error { return w.instead(tx, cause) })
	}
	return outcome, lost
}

func (b *batchApp) undoable(run func(tx core.App) error) (outcome, lost error) {
	mark, inserted := b.after.len(), len(b.records)
	if _, err := query(b, "SAVEPOINT modelriver").Execute(); err != nil {
		return nil, err
	}
	outcome = runSafely(run, b)
	if outcome != nil {
		if databaseFailed(outcome) {
			return nil, outcome
		}
		if _, err := query(b, "ROLLBACK TO modelriver").Execute(); err != nil {
			return nil, outcome // SQLite has undone everything, as it does for an interrupted INSERT
		}
		b.records = b.records[:inserted]
	}
	b.after.end(mark, outcome)
	if _, err := query(b, "RELEASE modelriver").Execute(); err != nil {
		return nil, err
	}
	return outcome, nil
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
// (https://www.sqlite.org/rescode.html). That a time is over says nothing of the
// database: nothing here sets one, but hooks do, and INTERRUPT is what theirs leave.
func databaseFailed(err error) bool {
	for _, target := range []error{errBusy, sql.ErrConnDone, sql.ErrTxDone, driver.ErrBadConn} {
		if errors.Is(err, target) {
			return true
		}
	}
	var coded interface{ Code() int }
	if !errors.As(err, &coded) {
		return false
	}
	switch coded.Code() & 0xff {
	case 5, 6, 7, 8, 10, 11, 13, 14, 15, 26:
		// BUSY LOCKED NOMEM READONLY IOERR CORRUPT FULL CANTOPEN PROTOCOL NOTADB
		return true
	}
	return false
}

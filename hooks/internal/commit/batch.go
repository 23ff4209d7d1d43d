package commit

import (
	"fmt"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/routine"
)

// A batch is the app of a transaction, which its writes share. It keeps their prepared
// queries: preparing costs more than running them.
type batch struct {
	core.App
	queries map[string]*dbx.Query // closed with the transaction
	records []*core.Record        // that were inserted, in order
	after   *afterFuncs
}

// commit runs writes in one transaction and calls next when that has ended. A write
// that fails is undone alone, and its after-success hooks with it, if hooks would see
// the difference. Else, or if its failure lost its neighbours the transaction, each is
// run in one of its own; but all together once more if it was the database that failed,
// which is not asked again for each.
func (c *Committer) commit(writes []*Write, next func()) {
	outcomes := make([]error, len(writes))
	committed := false
	var done int // writes that have run
	var failed error
	var records []*core.Record
	err := c.transact(func(tx core.App) error {
		b := &batch{App: tx, queries: map[string]*dbx.Query{}, after: afterFuncsOf(tx.TxInfo())}
		tx.TxInfo().OnComplete(func(txErr error) error { // registered first, so it runs first
			if txErr == nil {
				committed = true
				records = b.records
				c.safely(func() { c.Committed(records) })
				c.finishAll(writes, outcomes)
				next()
			}
			return nil
		})
		c.current.Store(b)
		defer c.current.Store(nil)
		done, failed = b.runAll(writes, outcomes, len(writes) > 1 && b.after != nil && c.hooked(), c.Yields)
		if failed == nil && done < len(writes) { // its time was over
			c.putBack(writes[done:])
			writes = writes[:done]
		}
		return failed
	})

	switch {
	case committed:
		if err != nil {
			c.app.Logger().Warn("A hook failed after its record was stored", "error", err)
		}
		c.safely(func() { c.Settled(records) })
	case DatabaseFailed(failed) && len(writes) > 1 && !writes[done].again: // or another database did, a hook's own
		others := slices.Delete(slices.Clone(writes), done, done+1)
		for _, w := range others {
			w.again = true
		}
		c.finish(writes[done], failed)
		c.putBack(others)
		next()
	case failed == nil, DatabaseFailed(failed), len(writes) == 1 && writes[0].Instead == nil:
		for i := range outcomes {
			outcomes[i] = err
		}
		c.finishAll(writes, outcomes)
		next()
	case len(writes) == 1:
		w := *writes[0]
		w.Run = func(tx core.App) error { return writes[0].Instead(tx, failed) }
		w.Instead = nil
		c.commit([]*Write{&w}, next)
	default: // not here, where the after-success hooks of one would hold up the others
		for _, w := range writes {
			w.alone = true
		}
		c.putBack(writes)
		next()
	}
}

// hooked reports whether the app has hooks of its own that would see a write run twice.
// Only for these is it worth the price to undo one write alone: about a fifth of all
// that a webhook costs.
func (c *Committer) hooked() bool { return SaveHooks(c.app) > c.OwnHooks() }

// transact is RunInTransaction that turns a panic of PocketBase or of a hook after the
// commit into an error: it would end the process from this goroutine.
func (c *Committer) transact(fn func(tx core.App) error) (err error) {
	defer recoverInto(&err)
	return c.app.RunInTransaction(fn)
}

func (c *Committer) finishAll(writes []*Write, outcomes []error) {
	for i, w := range writes {
		c.finish(w, outcomes[i])
	}
}

func (c *Committer) finish(w *Write, outcome error) {
	c.safely(func() { w.Done(outcome) })
}

// safely runs fn, of whose panic the committer must not die.
func (c *Committer) safely(fn func()) {
	err := routine.SafeWrap(func() error {
		fn()
		return nil
	})()
	if err != nil {
		c.app.Logger().Error("Failed to end a write", "error", err)
	}
}

// runAll runs writes until their time is over, and returns how many. An error is why the
// whole transaction must be undone.
func (b *batch) runAll(writes []*Write, outcomes []error, undoable bool, yields func() bool) (done int, lost error) {
	began := time.Now()
	for i, w := range writes {
		if took := time.Since(began); i > 0 && (took > MaxBatchTime || took > YieldTime && yields()) {
			return i, nil
		}
		if undoable {
			outcomes[i], lost = b.runUndoable(w)
		} else {
			lost = b.run(w)
		}
		if lost != nil {
			return i, lost
		}
	}
	return len(writes), nil
}

// run runs the write. If it fails, the whole transaction must be undone.
func (b *batch) run(w *Write) error {
	mark := b.after.len()
	err := Safely(b, w.Run)
	b.after.end(mark, nil)
	return err
}

// runUndoable runs the write, or what is to be run instead, so that a failure undoes
// nothing else. lost is why the whole transaction must be undone all the same.
func (b *batch) runUndoable(w *Write) (outcome, lost error) {
	outcome, lost = b.undoable(w.Run)
	if outcome != nil && lost == nil && w.Instead != nil {
		cause := outcome
		return b.undoable(func(tx core.App) error { return w.Instead(tx, cause) })
	}
	return outcome, lost
}

func (b *batch) undoable(run func(tx core.App) error) (outcome, lost error) {
	mark, inserted := b.after.len(), len(b.records)
	if _, err := Query(b, "SAVEPOINT modelriver").Execute(); err != nil {
		return nil, err
	}
	outcome = Safely(b, run)
	if outcome != nil {
		if DatabaseFailed(outcome) {
			return nil, outcome
		}
		if _, err := Query(b, "ROLLBACK TO modelriver").Execute(); err != nil {
			return nil, outcome // SQLite has undone everything, as it does for an interrupted INSERT
		}
		b.records = b.records[:inserted]
	}
	b.after.end(mark, outcome)
	if _, err := Query(b, "RELEASE modelriver").Execute(); err != nil {
		return nil, err
	}
	return outcome, nil
}

// Query returns a query to be bound and run within the transaction tx. In a batch it is
// prepared once.
func Query(tx core.App, sql string) *dbx.Query {
	b, ok := tx.(*batch)
	if !ok {
		return tx.NonconcurrentDB().NewQuery(sql)
	}
	q := b.queries[sql]
	if q == nil {
		q = b.NonconcurrentDB().NewQuery(sql).Prepare()
		b.queries[sql] = q
	}
	return q
}

// FindRecord returns the record with the id, or sql.ErrNoRows. In a batch its query is prepared
// once for each collection.
func FindRecord(tx core.App, collection, id string) (*core.Record, error) {
	b, ok := tx.(*batch)
	if !ok {
		return tx.FindRecordById(collection, id)
	}
	key := "record of " + collection // no SQL begins so
	q := b.queries[key]
	if q == nil {
		q = b.RecordQuery(collection).AndWhere(dbx.NewExp("[[id]] = {:id}")).Limit(1).Build().Prepare()
		b.queries[key] = q
	}
	record := &core.Record{}
	if err := q.Bind(dbx.Params{"id": id}).One(record); err != nil {
		return nil, err
	}
	return record, nil
}

// Safely runs fn in tx and returns its error, or its panic as one.
func Safely(tx core.App, fn func(tx core.App) error) (err error) {
	defer recoverInto(&err)
	return fn(tx)
}

func recoverInto(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

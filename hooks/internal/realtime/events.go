package realtime

import (
	"database/sql"
	"errors"
	"time"
	"weak"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// hooksBegin notes that the record's after-success hooks begin.
func (f *FanOut) hooksBegin(e *core.RecordEvent) error {
	f.mu.Lock()
	if place := f.places[e.Record]; place != nil {
		place.batch.progress = time.Now()
	}
	f.mu.Unlock()
	return e.Next()
}

// afterSave decides about a change behind the app's after-success hooks and right before
// PocketBase's own broadcast, which gets the rest.
func (f *FanOut) afterSave(action string) func(e *core.ModelEvent) error {
	return func(e *core.ModelEvent) error {
		u := f.take(weak.Make(e))
		record := f.recordOf(e)
		if record == nil || f.passesUnheard() {
			return e.Next()
		}
		f.mu.Lock()
		place := f.places[record]
		delete(f.places, record)
		if place != nil {
			place.batch.progress = time.Time{}
		}
		f.mu.Unlock()
		f.settle(e.App, action, record, place, u)
		f.mu.Lock()
		narrowed := f.withoutOurs(e.App)
		if place != nil {
			narrowed.batch = place.batch
		}
		f.mu.Unlock()
		e.App = narrowed
		defer f.widen(e) // if a hook of the same priority ends the chain
		return e.Next()
	}
}

// settle decides about the change and gives it its place, before any later decision: of
// two of one record, the last must be by the last look at its row.
func (f *FanOut) settle(app core.App, action string, record *core.Record, place *change, u *underway) {
	f.settling.Lock()
	defer f.settling.Unlock()
	c := f.decide(app, action, record)
	f.mu.Lock()
	defer f.mu.Unlock()
	if u != nil && c != nil {
		c.before = u.before
		c.overtaken = c.overtaken || u.overtaken
		for _, other := range f.ofRow[u.row] {
			other.overtaken = other.overtaken || other.number < u.number
		}
	}
	switch {
	case place == nil || place.dropped: // another writer's, or its hooks took too long
		if c != nil {
			f.append(c)
		}
	case c == nil:
		place.dropped = true
	default:
		delete(f.decided, c)
		*place = *c
	}
	f.wake()
}

// aroundUpdate finds out what the row is before the transaction that updates it, so that it
// can be told who loses sight of it: a record's Original is what its saver had loaded, and
// what the transaction made of the row meanwhile, nobody has seen.
func (f *FanOut) aroundUpdate(e *core.ModelEvent) error {
	record := f.recordOf(e)
	if record == nil {
		return e.Next()
	}
	return inTransaction(e, func() error {
		if err := e.Next(); err != nil {
			return err
		}
		f.begin(e, &underway{record: record, before: f.lookBack(record)})
		return nil
	})
}

// aroundDelete finds out the same before the transaction that deletes the row: another one
// may have committed since it was decided who hears of the delete.
func (f *FanOut) aroundDelete(e *core.ModelEvent) error {
	u := f.find(weak.Make(e))
	if u == nil {
		return e.Next()
	}
	return inTransaction(e, func() error {
		if err := e.Next(); err != nil {
			return err
		}
		f.lookBackAt(u)
		return nil
	})
}

// beforeAppliedUpdate finds out what the row is before the update of it is applied: nothing else changes it meanwhile.
func (f *FanOut) beforeAppliedUpdate(e *core.ModelEvent) error {
	record := f.recordOf(e)
	if record == nil {
		return e.Next()
	}
	f.begin(e, &underway{record: record, before: f.lookBack(record)}) // also for who subscribes meanwhile
	return e.Next()
}

// beforeAppliedDelete finds out the same before a delete is applied.
func (f *FanOut) beforeAppliedDelete(e *core.ModelEvent) error {
	if u := f.find(weak.Make(e)); u != nil {
		f.lookBackAt(u)
	}
	return e.Next()
}

// inTransaction gives the event a transaction if it has none: from its change of the row on,
// it keeps others from committing.
func inTransaction(e *core.ModelEvent, change func() error) error {
	if _, none := e.App.NonconcurrentDB().(*dbx.DB); !none { // it may have one of the other database only
		return change()
	}
	app := e.App
	defer func() { e.App = app }()
	return app.RunInTransaction(func(tx core.App) error {
		e.App = tx
		return change()
	})
}

// lookBack reads on another connection, beside the transaction that has changed the row, what
// everybody still sees of it.
func (f *FanOut) lookBack(record *core.Record) state {
	c := &change{record: record}
	c.list, c.view = f.accessTo(record.Collection())
	f.mu.Lock()
	asked, fields := f.questions(c), f.comparedFields(c)
	f.mu.Unlock()
	read, err := f.rows.read(f.app, record.Collection(), record.Id, fields)
	switch {
	case errors.Is(err, sql.ErrNoRows): // nobody has seen it yet
		return state{}
	case err != nil:
		return state{row: row{}}
	}
	return state{read, ask(f.app, record, asked)}
}

// lookBackAt does so for the row of a delete.
func (f *FanOut) lookBackAt(u *underway) {
	before := f.lookBack(u.record)
	f.mu.Lock()
	defer f.mu.Unlock()
	u.deletes.before = before
}

// beforeDelete decides who hears of a delete while the record is there, outside of the
// transaction that deletes it, as PocketBase does. Whoever comes before that commits, and
// lists a record that will be gone, may be the first.
func (f *FanOut) beforeDelete(e *core.ModelEvent) error {
	record := f.recordOf(e)
	if record == nil {
		return e.Next()
	}
	c := f.decide(f.app, "delete", record)
	if c == nil {
		return e.Next()
	}
	f.begin(e, &underway{record: c.record, deletes: c})
	return e.Next()
}

func (f *FanOut) afterDelete(e *core.ModelEvent) error {
	f.settleDelete(weak.Make(e))
	return e.Next()
}

// settleDelete gives a delete its place, behind what was decided while the row was there.
func (f *FanOut) settleDelete(event weak.Pointer[core.ModelEvent]) {
	f.settling.Lock()
	defer f.settling.Unlock()
	u := f.find(event)
	if u == nil {
		return
	}
	c := u.deletes
	_, err := f.readNow(c.record)
	c.outdated = f.isOutdated(c.record) || !errors.Is(err, sql.ErrNoRows)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(u)
	f.moment++ // which those miss who set their topics just now
	c.until = f.moment
	f.append(c)
}

// readNow reads what the database has of the record.
func (f *FanOut) readNow(record *core.Record) (row, error) {
	c := &change{record: record}
	c.list, c.view = f.accessTo(record.Collection())
	f.mu.Lock()
	fields := f.comparedFields(c)
	f.mu.Unlock()
	return f.rows.read(f.app, record.Collection(), record.Id, fields)
}

// passesUnheard reports whether there is no subscriber to decide for. One that sets its topics just
// now has missed the change.
func (f *FanOut) passesUnheard() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subscribers) > 0 {
		return false
	}
	f.moment++
	return true
}

// recordOf returns the event's record if it is told of here.
func (f *FanOut) recordOf(e *core.ModelEvent) *core.Record {
	if !f.takesOver() {
		return nil
	}
	if record := asRecord(e.Model); record != nil {
		return record
	}
	id, _ := e.Model.PK().(string) // a model of the app's own for a collection
	record, _ := e.App.FindRecordById(e.Model.TableName(), id)
	return record
}

func asRecord(model core.Model) *core.Record {
	switch m := model.(type) {
	case *core.Record:
		return m
	case core.RecordProxy:
		return m.ProxyRecord()
	}
	return nil
}

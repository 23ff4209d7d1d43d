package realtime

import (
	"database/sql"
	"errors"
	"maps"
	"runtime"
	"slices"
	"weak"

	"github.com/pocketbase/pocketbase/core"
)

// An underway is an update or a delete whose hooks have not ended.
type underway struct {
	event     weak.Pointer[core.ModelEvent]
	model     core.Model
	row       [2]any // see rowOf
	record    *core.Record
	deletes   *change // nil for an update
	number    int64   // of updates of one row, in the order of the commits
	before    state   // an update
	overtaken bool    // an update, by a later one, which was told
}

// begin keeps a change as long as its event lives: until its last hook has ended. Of a transaction
// that is undone, and behind a panic, nobody is called with this event.
func (f *FanOut) begin(e *core.ModelEvent, u *underway) {
	u.event, u.model, u.row = weak.Make(e), e.Model, rowOf(e.Model)
	f.mu.Lock()
	f.begun++
	u.number = f.begun
	f.underway[u.event] = u
	f.ofRow[u.row] = append(f.ofRow[u.row], u)
	f.mu.Unlock()
	runtime.AddCleanup(e, func(event weak.Pointer[core.ModelEvent]) { f.take(event) }, u.event)
}

// find returns the change that the event is of, or nil.
func (f *FanOut) find(event weak.Pointer[core.ModelEvent]) *underway {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.underway[event]
}

// take returns the change that has ended, or nil.
func (f *FanOut) take(event weak.Pointer[core.ModelEvent]) *underway {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.underway[event]
	if u != nil {
		f.remove(u)
	}
	return u
}

// remove removes a change that has ended, of which nobody is told yet. The lock is held.
func (f *FanOut) remove(u *underway) {
	delete(f.decided, u.deletes)
	delete(f.underway, u.event)
	others := slices.DeleteFunc(f.ofRow[u.row], func(other *underway) bool { return other == u })
	if f.ofRow[u.row] = others; len(others) == 0 {
		delete(f.ofRow, u.row)
	}
}

// rowOf is the table and the id.
func rowOf(model core.Model) [2]any { return [2]any{model.TableName(), model.PK()} }

// afterError follows a change that has failed. If a hook of the app did so behind the commit,
// PocketBase tells nobody of it, and whoever counts on being told fetches again.
func (f *FanOut) afterError(e *core.ModelErrorEvent) error {
	if u := f.takeFailed(e); u != nil {
		if tx := e.App.TxInfo(); tx != nil { // which may be committed all the same
			tx.OnComplete(func(error) error { f.endIfCommitted(u); return nil })
		} else {
			f.endIfCommitted(u)
		}
	}
	return e.Next()
}

func (f *FanOut) endIfCommitted(u *underway) {
	if !f.isCommitted(u) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subscribers {
		if s.leaveTopic(u.record.Collection().Name) != nil {
			f.cut(s)
		}
	}
}

// takeFailed returns the change that has failed, or nil. PocketBase tells of it by another event.
func (f *FanOut) takeFailed(e *core.ModelErrorEvent) *underway {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range slices.Backward(f.ofRow[rowOf(e.Model)]) {
		if u.model == e.Model && (u.deletes != nil) == (e.Type == core.ModelEventTypeDelete) {
			f.remove(u)
			return u
		}
	}
	return nil
}

// isCommitted reports whether the row is not what it was, as far as is known.
func (f *FanOut) isCommitted(u *underway) bool {
	before := u.before.row
	if u.deletes != nil {
		if before = u.deletes.before.row; before == nil { // it did not come to its row
			return false
		}
	}
	now, err := f.readNow(u.record)
	if errors.Is(err, sql.ErrNoRows) {
		return before != nil
	}
	return err != nil || len(before) == 0 || !maps.EqualFunc(before, now, func(v, w *value) bool { return *v == *w })
}

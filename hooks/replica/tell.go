package replica

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/routine"
)

const (
	// heardFor is how long after the last stream of events what is applied is told all the same: who comes back within it
	// counts on what was told meanwhile.
	heardFor = 2 * time.Minute

	// maxTold is how many rows of one entry are told. Of more, streams end instead, so that whoever has one fetches again.
	maxTold = 1000
)

// applyAndTell applies an entry to the node's database, and tells what it changes.
func (n *Node) applyAndTell(after, position uint64, entry []byte) error {
	return n.tellAround(entry, func(applied func()) error { return n.applyAndReload(after, position, entry, applied) })
}

// tellAround triggers the hooks of what an entry changes, around what does that, and calls its argument before the app
// reads again what it has in memory. If they can't be told, streams end.
func (n *Node) tellAround(entry []byte, change func(applied func()) error) error {
	if !n.isHeard() {
		err := change(func() {})
		if err == nil && n.isHeard() { // by who may have listed before it, and subscribed after
			n.newTelling().endStreams(errUnheard)
		}
		return err
	}
	t := n.newTelling()
	untold := routine.SafeWrap(func() error { return t.before(entry) })()
	applied := false
	err := change(func() {
		applied = true
		untold = errors.Join(untold, routine.SafeWrap(t.between)())
	})
	untold = errors.Join(untold, routine.SafeWrap(func() error { return t.after(errors.Join(err, untold)) })())
	if untold != nil || applied && err != nil {
		t.endStreams(errors.Join(untold, err))
	}
	return err
}

// endStreams ends all streams of events, and has those forgotten that may come back.
func (t *telling) endStreams(because error) {
	t.node.logger().Debug("Streams of events end, as what has changed can't be told", "because", because)
	t.node.endStreams()
	if err := routine.SafeWrap(t.all)(); err != nil {
		t.node.logger().Error("Streams of events may go on without what has changed", "error", err)
	}
}

// applyAndReload applies an entry, and has PocketBase read again what it has in memory of that.
func (n *Node) applyAndReload(after, position uint64, entry []byte, applied func()) error {
	if err := n.applier.apply(after, position, entry); err != nil {
		return err
	}
	applied()
	return n.reloadAt(position)
}

// isHeard reports whether what is applied is told.
func (n *Node) isHeard() bool {
	if !n.serving.Load() {
		return false
	}
	if n.applied.SubscriptionsBroker().TotalClients() > 0 {
		n.listened.set(time.Now())
	}
	return n.listened.ago() < heardFor
}

// A telling is what one entry changes, as hooks are told it.
type telling struct {
	node *Node
	app  core.App

	rows []*toldRow // in the order in which the entry first changes them
	at   map[place]*toldRow

	collections map[string]*core.Collection // before, by their ids; nil if they stay the same
	changed     []*core.Collection
	begun       []*toldRow // that hooks were told of before

	rowids map[*core.Collection]string // what they are called
}

func (n *Node) newTelling() *telling {
	return &telling{node: n, app: n.applied.App, rowids: map[*core.Collection]string{}}
}

// A place is where a row is.
type place struct {
	collection *core.Collection
	rowid      int64
}

// A toldRow is a row that was there before, or is there behind the entry.
type toldRow struct {
	was, is         place
	existed, exists bool
	record          *core.Record
	event           *core.ModelEvent // the same before and behind, as PocketBase's: what hooks know of it may go with it
}

var errUnheard = errors.New("nobody had a stream when the change began")

var errUntold = fmt.Errorf("more than %d rows changed, or rows and collections", maxTold)

// read finds out which rows the entry changes.
func (t *telling) read(entry []byte) error {
	t.at = map[place]*toldRow{}
	schema := false
	for c, err := range decode(entry) {
		if err != nil {
			return err
		}
		switch c.kind {
		case 'S':
			schema = true
			continue
		case 'I', 'U', 'D':
		default:
			continue
		}
		if c.table == "_collections" {
			t.collections = map[string]*core.Collection{}
			continue
		}
		collection, err := t.app.FindCachedCollectionByNameOrId(c.table)
		if err != nil || collection.Name != c.table {
			continue
		}
		t.note(c, collection)
		if len(t.rows) > maxTold {
			return errUntold
		}
	}
	if (schema || t.collections != nil) && len(t.rows) > 0 {
		return errUntold
	}
	return nil
}

func (t *telling) note(c change, collection *core.Collection) {
	from, to := place{collection, c.rowid}, place{collection, c.to}
	row := t.at[from]
	if row == nil || c.kind == 'I' {
		row = &toldRow{was: from, existed: c.kind != 'I'}
		t.rows = append(t.rows, row)
	}
	if c.kind != 'I' {
		delete(t.at, from)
	}
	if row.exists = c.kind != 'D'; row.exists {
		row.is = to
		t.at[to] = row
	}
}

// before tells which rows the entry will change.
func (t *telling) before(entry []byte) (err error) {
	if err := t.read(entry); err != nil {
		return err
	}
	if t.collections != nil {
		if t.collections, err = t.allCollections(); err != nil {
			return err
		}
	}
	for _, row := range t.rows {
		if !row.existed {
			continue
		}
		if row.record, err = t.find(row.was); err != nil {
			return err
		}
		t.begun = append(t.begun, row)
		if row.exists {
			err = t.node.applied.update.Trigger(t.event(row, core.ModelEventTypeUpdate))
		} else {
			err = t.node.applied.delete.Trigger(t.event(row, core.ModelEventTypeDelete))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// between tells which collections have changed, while the app has the old ones in memory.
func (t *telling) between() error {
	if t.collections == nil {
		return nil
	}
	now, err := t.allCollections()
	if err != nil {
		return err
	}
	for id, collection := range now {
		before := t.collections[id]
		delete(t.collections, id)
		if before == nil || reflect.DeepEqual(before, collection) {
			continue
		}
		t.changed = append(t.changed, collection)
		if err := t.node.applied.collectionUpdate.Trigger(t.collectionEvent(collection, core.ModelEventTypeUpdate)); err != nil {
			return err
		}
	}
	return nil
}

// all tells that any collection may have changed, to whoever keeps what streams that have ended may come back to.
func (t *telling) all() error {
	all, err := t.app.FindAllCollections()
	for _, collection := range all {
		err = errors.Join(err, t.node.applied.collectionUpdated.Trigger(t.collectionEvent(collection, core.ModelEventTypeUpdate)))
	}
	return err
}

// after tells what the entry has changed, or that it couldn't be applied.
func (t *telling) after(failure error) error {
	if failure != nil {
		return t.take(t.begun, failure)
	}
	for _, collection := range t.changed {
		if err := t.node.applied.collectionUpdated.Trigger(t.collectionEvent(collection, core.ModelEventTypeUpdate)); err != nil {
			return err
		}
	}
	for _, collection := range t.collections { // which are gone
		if err := t.node.applied.collectionDeleted.Trigger(t.collectionEvent(collection, core.ModelEventTypeDelete)); err != nil {
			return err
		}
	}
	for i, row := range t.rows {
		if err := t.tell(row); err != nil {
			return errors.Join(err, t.take(t.rows[i:], err))
		}
	}
	return nil
}

func (t *telling) tell(row *toldRow) error {
	if !row.exists {
		if !row.existed {
			return nil
		}
		return t.node.applied.deleted.Trigger(t.event(row, core.ModelEventTypeDelete))
	}
	record, err := t.find(row.is)
	if err != nil {
		return err
	}
	if !row.existed {
		row.record = record
		return t.node.applied.create.Trigger(t.event(row, core.ModelEventTypeCreate))
	}
	if row.record.Id != record.Id {
		return errors.New("a record has another id")
	}
	*row.record = *record // by which it is known
	return t.node.applied.updated.Trigger(t.event(row, core.ModelEventTypeUpdate))
}

// take takes back what was told before of rows.
func (t *telling) take(rows []*toldRow, because error) (err error) {
	for _, row := range rows {
		if !slices.Contains(t.begun, row) {
			continue
		}
		if row.exists {
			err = errors.Join(err, t.node.applied.notUpdated.Trigger(&core.ModelErrorEvent{ModelEvent: *t.event(row, core.ModelEventTypeUpdate), Error: because}))
		} else {
			err = errors.Join(err, t.node.applied.notDeleted.Trigger(&core.ModelErrorEvent{ModelEvent: *t.event(row, core.ModelEventTypeDelete), Error: because}))
		}
	}
	return err
}

func (t *telling) event(row *toldRow, kind string) *core.ModelEvent {
	if row.event == nil {
		row.event = &core.ModelEvent{App: t.app, Context: context.Background(), Type: kind}
		row.event.Model = row.record
	}
	return row.event
}

func (t *telling) collectionEvent(collection *core.Collection, kind string) *core.CollectionEvent {
	event := &core.CollectionEvent{App: t.app, Context: context.Background(), Type: kind}
	event.Collection = collection
	return event
}

// find returns the record that is at a place now.
func (t *telling) find(at place) (*core.Record, error) {
	if t.rowids[at.collection] == "" {
		columns, err := t.app.TableColumns(at.collection.Name)
		if err != nil {
			return nil, err
		}
		if t.rowids[at.collection] = rowidOf(columns); t.rowids[at.collection] == "" {
			return nil, errHiddenRowid
		}
	}
	record := &core.Record{}
	err := t.app.RecordQuery(at.collection).AndWhere(dbx.NewExp(t.rowids[at.collection]+" = {:rowid}", dbx.Params{"rowid": at.rowid})).Limit(1).One(record)
	return record, err
}

func (t *telling) allCollections() (map[string]*core.Collection, error) {
	all, err := t.app.FindAllCollections()
	byId := map[string]*core.Collection{}
	for _, collection := range all {
		byId[collection.Id] = collection
	}
	return byId, err
}

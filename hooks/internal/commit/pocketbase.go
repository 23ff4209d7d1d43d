package commit

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
)

// This file holds what leans on PocketBase's internals.

// Bind adds the committer's hooks to its app.
func (c *Committer) Bind() {
	c.app.OnModelCreateExecute(c.collection).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "modelriverInsert", Func: c.insert, Priority: 10000, // inside every other hook
	})
	c.app.OnRecordAfterCreateSuccess(c.collection).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverRecover", Func: recoverAfterCommit, Priority: -10000, // around every other hook
	})
}

// insert takes the place of PocketBase's own INSERT (core/db.go, create) for a record of
// the batch, behind every hook and validation, with a query that is prepared once for the
// batch.
func (c *Committer) insert(e *core.ModelEvent) error {
	b := c.current.Load()
	record, ok := e.Model.(*core.Record)
	if !ok || record.Id == "" || b == nil || b.App != e.App {
		return e.Next()
	}
	values, err := record.DBExport(e.App)
	if err != nil {
		return err
	}
	if _, err := Query(b, insertOf(record, values)).Bind(values).WithContext(e.Context).Execute(); err != nil {
		return tableFailed(err)
	}
	e.Model.MarkAsNotNew()
	b.records = append(b.records, record)
	return nil
}

func insertOf(record *core.Record, values map[string]any) string {
	columns := slices.Sorted(maps.Keys(values))
	return fmt.Sprintf("INSERT INTO {{%s}} ([[%s]]) VALUES ({:%s})",
		record.TableName(), strings.Join(columns, "]], [["), strings.Join(columns, "}, {:"))
}

// UpdatePrepared has records of the collection that a batch saves again updated by a query that
// is prepared once for the batch.
func (c *Committer) UpdatePrepared(collection string) {
	c.app.OnModelUpdateExecute(collection).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "modelriverUpdate", Func: c.update, Priority: 20000, // inside every other hook, the fan-out's look at the row too
	})
}

// update takes the place of PocketBase's own UPDATE (core/db.go, update), as insert does of its
// INSERT.
func (c *Committer) update(e *core.ModelEvent) error {
	b := c.current.Load()
	record, ok := e.Model.(*core.Record)
	if !ok || b == nil || b.App != e.App || record.Id != record.LastSavedPK() {
		return e.Next()
	}
	values, err := record.DBExport(e.App)
	if err != nil {
		return err
	}
	var sets []string
	for _, column := range slices.Sorted(maps.Keys(values)) {
		sets = append(sets, "[["+column+"]] = {:"+column+"}")
	}
	query := fmt.Sprintf("UPDATE {{%s}} SET %s WHERE [[id]] = {:id}", record.TableName(), strings.Join(sets, ", "))
	_, err = Query(b, query).Bind(values).WithContext(e.Context).Execute()
	return err
}

// InsertTogether has records of the collection, whoever creates them, inserted in one
// transaction with those that are created at the same time. Their hooks run as ever, outside
// of it and beside each other. A hook that runs in this committer's own transactions, or behind
// them, must not create such a record, so it is to be used for nothing else.
func (c *Committer) InsertTogether(collection string) {
	c.app.OnModelCreateExecute(collection).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "modelriverInsertTogether", Func: c.insertTogether, Priority: 10000, // inside every other hook
	})
}

// insertTogether takes the place of PocketBase's own INSERT, which tries again what fails, and
// alone.
func (c *Committer) insertTogether(e *core.ModelEvent) error {
	record, ok := e.Model.(*core.Record)
	if !ok || record.Id == "" || e.App.IsTransactional() || e.Context.Done() != nil {
		return e.Next()
	}
	values, err := record.DBExport(e.App)
	if err != nil {
		return err
	}
	insert, result := insertOf(record, values), make(chan error, 1)
	c.Add(&Write{
		Run: func(tx core.App) error {
			_, err := Query(tx, insert).Bind(values).Execute()
			return err
		},
		Done: func(err error) { result <- err },
	})
	if err := <-result; err != nil {
		return e.Next()
	}
	e.Model.MarkAsNotNew()
	return nil
}

// recoverAfterCommit keeps a host's hook that panics after the commit from taking the
// process with it, or the realtime events of records that were committed together.
func recoverAfterCommit(e *core.RecordEvent) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in a hook after create: %v", r)
		}
	}()
	return e.Next()
}

// afterFuncs is the list in which a core.TxAppInfo keeps the functions that its OnComplete
// registers, PocketBase's own after-success hooks among them, until the transaction ends
// (core/db_tx.go). PocketBase knows no savepoints: what one undid would be told to those
// functions as committed.
type afterFuncs struct {
	mu   *sync.Mutex
	list *[]func(txErr error) error
}

// afterFuncsOf returns nil if this version of PocketBase keeps the list in another way.
func afterFuncsOf(info *core.TxAppInfo) *afterFuncs {
	mu := reflect.ValueOf(info).Elem().FieldByName("mu")
	list := reflect.ValueOf(info).Elem().FieldByName("afterFuncs")
	if !mu.IsValid() || mu.Type() != reflect.TypeFor[sync.Mutex]() ||
		!list.IsValid() || list.Type() != reflect.TypeFor[[]func(error) error]() {
		return nil
	}
	return &afterFuncs{
		mu:   (*sync.Mutex)(mu.Addr().UnsafePointer()),
		list: (*[]func(error) error)(list.Addr().UnsafePointer()),
	}
}

// len returns how many functions are registered so far.
func (a *afterFuncs) len() int {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(*a.list)
}

// end gives the functions since mark the outcome of the write that registered them: err
// if it was undone, else that of the transaction. None of them can keep those of other
// writes from being run by a panic.
func (a *afterFuncs) end(mark int, err error) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, fn := range (*a.list)[mark:] {
		(*a.list)[mark+i] = func(txErr error) (result error) {
			defer recoverInto(&result)
			if err != nil {
				txErr = err
			}
			return fn(txErr)
		}
	}
}

// SaveHooks returns how many hooks of the app run around a save before its transaction has ended,
// or when that has failed.
func SaveHooks(app core.App) int {
	return app.OnModelValidate().Length() + app.OnRecordValidate().Length() +
		app.OnModelCreate().Length() + app.OnRecordCreate().Length() +
		app.OnModelCreateExecute().Length() + app.OnRecordCreateExecute().Length() +
		app.OnModelAfterCreateError().Length() + app.OnRecordAfterCreateError().Length() +
		app.OnModelUpdate().Length() + app.OnRecordUpdate().Length() +
		app.OnModelUpdateExecute().Length() + app.OnRecordUpdateExecute().Length() +
		app.OnModelAfterUpdateError().Length() + app.OnRecordAfterUpdateError().Length()
}

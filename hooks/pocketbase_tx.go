package hooks

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/pocketbase/pocketbase/core"
)

// What leans on PocketBase's internals: a core.TxAppInfo keeps the functions that its
// OnComplete registers, PocketBase's own after-success hooks among them, in a list that
// ends with the transaction (core/db_tx.go). PocketBase knows no savepoints: what one
// undid would be told to those functions as committed.

// afterFuncs is that list.
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
			defer func() {
				if r := recover(); r != nil {
					result = fmt.Errorf("panic: %v", r)
				}
			}()
			if err != nil {
				txErr = err
			}
			return fn(txErr)
		}
	}
}

// saveHooks counts the hooks that run around a save before its transaction has ended,
// or when that has failed.
func saveHooks(app core.App) int {
	return app.OnModelValidate().Length() + app.OnRecordValidate().Length() +
		app.OnModelCreate().Length() + app.OnRecordCreate().Length() +
		app.OnModelCreateExecute().Length() + app.OnRecordCreateExecute().Length() +
		app.OnModelAfterCreateError().Length() + app.OnRecordAfterCreateError().Length() +
		app.OnModelUpdate().Length() + app.OnRecordUpdate().Length() +
		app.OnModelUpdateExecute().Length() + app.OnRecordUpdateExecute().Length() +
		app.OnModelAfterUpdateError().Length() + app.OnRecordAfterUpdateError().Length()
}

// plainSaveHooks counts them in an app that has only PocketBase's and the plugin's.
func plainSaveHooks() int {
	app := core.NewBaseApp(core.BaseAppConfig{})
	p, err := newPlugin(app, Config{})
	if err != nil {
		return 0
	}
	p.bind()
	return saveHooks(app)
}

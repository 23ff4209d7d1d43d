package replica

import (
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"strings"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/pocketriver/pocketriver/hooks/internal/prepared"
)

// What leans on the inside of modernc.org/sqlite is in this file: the values of a row that
// changes are read from SQLite itself, because [sqlite.SQLitePreUpdateData] ends text at a
// NUL and takes an empty blob for NULL, and triggers are turned off by the connection's handle,
// which no statement does. An error of another process is made the driver's own.

// sqliteDriver returns the driver that [Open] has checked.
func sqliteDriver() driver.Driver {
	sqlite, err := prepared.Driver()
	if err != nil { // unknown, but this file imports it
		panic(err)
	}
	return sqlite
}

// rowHandle is how [sqlite.SQLitePreUpdateData] begins.
type rowHandle struct {
	tls  *libc.TLS
	pCsr uintptr
}

// checkDriver refuses a driver that isn't modernc's, or isn't as this file knows it.
func checkDriver(d driver.Driver) error {
	if _, ok := d.(*sqlite.Driver); !ok {
		return fmt.Errorf("the driver %T can't be captured: only modernc.org/sqlite can, build without another one", d)
	}
	for got, want := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[sqlite.SQLitePreUpdateData](): reflect.TypeFor[rowHandle](), reflect.TypeFor[sqlite.Error](): reflect.TypeFor[errorFields](),
	} {
		for i := range want.NumField() {
			if g, w := got.Field(i), want.Field(i); g.Name != w.Name || g.Type != w.Type || g.Offset != w.Offset {
				return fmt.Errorf("this version of modernc.org/sqlite is unknown: its %s begins with %s %s", got.Name(), g.Name, g.Type)
			}
		}
	}
	return nil
}

// errorFields is how [sqlite.Error] begins.
type errorFields struct {
	msg  string
	code int
}

// newError returns an error as the driver does.
func newError(text string, code int) error {
	e := new(sqlite.Error)
	*(*errorFields)(unsafe.Pointer(e)) = errorFields{text, code}
	return e
}

// A row is one that SQLite is about to change.
type row struct {
	handle *rowHandle
	out    uintptr // where SQLite puts a value's address
}

// withRow calls f with the row that the hook was told of.
func withRow(data *sqlite.SQLitePreUpdateData, f func(row)) {
	handle := (*rowHandle)(unsafe.Pointer(data))
	out := handle.tls.Alloc(8)
	defer handle.tls.Free(8)
	f(row{handle, out})
}

// was returns a column before the change, is after it. Their bytes are SQLite's, until it goes
// on with the change.
func (r row) was(column int) (sqliteValue, error) {
	return r.result(sqlite3.Xsqlite3_preupdate_old(r.handle.tls, r.handle.pCsr, int32(column), r.out))
}

func (r row) is(column int) (sqliteValue, error) {
	return r.result(sqlite3.Xsqlite3_preupdate_new(r.handle.tls, r.handle.pCsr, int32(column), r.out))
}

// A sqliteValue is one in SQLite's memory.
type sqliteValue struct {
	kind  int32
	bits  uint64 // of an integer or a float
	bytes []byte // of text or a blob
}

func (r row) result(rc int32) (sqliteValue, error) {
	if rc == sqlite3.SQLITE_RANGE { // a column that is computed when it is read
		return sqliteValue{kind: sqlite3.SQLITE_NULL}, nil
	}
	if rc != sqlite3.SQLITE_OK {
		return sqliteValue{}, fmt.Errorf("read a changed row: SQLite's error %d", rc)
	}
	tls, v := r.handle.tls, *(*uintptr)(pointer(r.out))
	kind := sqlite3.Xsqlite3_value_type(tls, v)
	switch kind {
	case sqlite3.SQLITE_INTEGER:
		return sqliteValue{kind: kind, bits: uint64(sqlite3.Xsqlite3_value_int64(tls, v))}, nil
	case sqlite3.SQLITE_FLOAT:
		return sqliteValue{kind: kind, bits: math.Float64bits(sqlite3.Xsqlite3_value_double(tls, v))}, nil
	case sqlite3.SQLITE_TEXT, sqlite3.SQLITE_BLOB:
		var at uintptr
		if kind == sqlite3.SQLITE_TEXT {
			at = sqlite3.Xsqlite3_value_text(tls, v)
		} else {
			at = sqlite3.Xsqlite3_value_blob(tls, v)
		}
		n := sqlite3.Xsqlite3_value_bytes(tls, v) // after the other, which may convert
		if n == 0 {
			return sqliteValue{kind: kind}, nil
		}
		if at == 0 {
			return sqliteValue{}, fmt.Errorf("read a changed row: no memory for %d bytes", n)
		}
		return sqliteValue{kind: kind, bytes: unsafe.Slice((*byte)(pointer(at)), int(n))}, nil
	}
	return sqliteValue{kind: sqlite3.SQLITE_NULL}, nil
}

// pointer is the address in SQLite's memory, which the garbage collector doesn't move.
func pointer(address uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&address))
}

func (v sqliteValue) equal(other sqliteValue) bool {
	return v.kind == other.kind && v.bits == other.bits && string(v.bytes) == string(other.bytes)
}

// add puts the value into the changes.
func (v sqliteValue) add(c *changes) {
	switch v.kind {
	case sqlite3.SQLITE_INTEGER:
		c.value(int64(v.bits))
	case sqlite3.SQLITE_FLOAT:
		c.value(math.Float64frombits(v.bits))
	case sqlite3.SQLITE_TEXT:
		c.value(unsafe.String(unsafe.SliceData(v.bytes), len(v.bytes)))
	case sqlite3.SQLITE_BLOB:
		c.value(v.bytes)
	default:
		c.value(nil)
	}
}

// disableTriggers keeps triggers from firing on the connection.
func disableTriggers(conn driver.Conn) error {
	v := reflect.ValueOf(conn)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || !v.FieldByName("db").IsValid() || !v.FieldByName("tls").IsValid() {
		return fmt.Errorf("this version of modernc.org/sqlite is unknown: a connection is a %s", strings.TrimPrefix(v.Type().String(), "*"))
	}
	tls := (*libc.TLS)(v.FieldByName("tls").UnsafePointer())
	arguments := libc.NewVaList(int32(0), uintptr(0))
	defer libc.Xfree(tls, arguments)
	rc := sqlite3.Xsqlite3_db_config(tls, uintptr(v.FieldByName("db").Uint()), sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, arguments)
	if rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("turn triggers off: SQLite's error %d", rc)
	}
	return nil
}

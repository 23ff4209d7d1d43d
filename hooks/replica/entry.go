package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

// An entry is what one transaction changed:
//
//	entry     = version change*
//	change    = 'T' text                        the table of the changes that follow
//	          | 'I' rowid uvarint(n) value*n    a row, with a value for each column
//	          | 'U' rowid rowid pair* 0         a row's rowid, its new one, and its changed columns
//	          | 'D' rowid                       a row that is gone
//	          | 'S' text                        a statement that changes the schema
//	          | 'L' text text                   the log begins: its id, and the hash of its base snapshot
//	          | 'M' text                        a node leads from here on: its name
//	pair      = uvarint(column + 1) value
//	value     = 'n' | 'i' varint | 'r' 8 bytes | 't' text | 'b' text
//	text      = uvarint(length) bytes
//	rowid     = varint
//
// Columns are counted from 0, in the table's order. A change of the format is a new version.
const entryVersion = 1

// maxEntry bounds what one transaction changes: every node has an entry in memory while it
// is appended.
const maxEntry = 64 << 20

// A value of SQLite: nil, an int64, a float64, a string or a []byte.
type value any

// A change is one of an entry.
type change struct {
	kind    byte
	table   string // of I, U, D
	rowid   int64  // of U and D, before
	to      int64  // the rowid after, of I and U
	columns []int  // of U: those that changed
	values  []value
	sql     string // of S
	log     string // of L: its id
	node    string // of M
	hash    string // and that of its base snapshot, in hex
}

// ofCollections reports whether it may change what PocketBase has of collections in memory: also a view's, whose rows
// say nothing of it.
func (c change) ofCollections() bool { return c.kind == 'S' || c.table == "_collections" }

func (c change) ofSettings() bool { return c.table == "_params" }

// changes is an entry as it grows. Offsets into it are where it can be cut.
type changes struct {
	b     []byte
	table string // of the last change
}

func (c *changes) len() int { return len(c.b) }

// cut takes back all that came after it was n long, as after a statement that failed.
func (c *changes) cut(n int) {
	if n < len(c.b) {
		c.b = c.b[:n]
		c.table = "" // which may have been cut
	}
}

// entry returns the changes as an entry, which is valid until the next change.
func (c *changes) entry() []byte { return c.b }

// begin starts a change of a row.
func (c *changes) begin(kind byte, table string) {
	if len(c.b) == 0 {
		c.b = append(c.b, entryVersion)
	}
	if table != c.table {
		c.b = append(c.b, 'T')
		c.text(table)
		c.table = table
	}
	c.b = append(c.b, kind)
}

// insert is followed by as many values.
func (c *changes) insert(table string, rowid int64, values int) {
	c.begin('I', table)
	c.b = binary.AppendVarint(c.b, rowid)
	c.b = binary.AppendUvarint(c.b, uint64(values))
}

// update is followed by columns, each with its value, and then by end.
func (c *changes) update(table string, rowid, to int64) {
	c.begin('U', table)
	c.b = binary.AppendVarint(c.b, rowid)
	c.b = binary.AppendVarint(c.b, to)
}

func (c *changes) column(i int) { c.b = binary.AppendUvarint(c.b, uint64(i)+1) }

func (c *changes) end() { c.b = append(c.b, 0) }

func (c *changes) delete(table string, rowid int64) {
	c.begin('D', table)
	c.b = binary.AppendVarint(c.b, rowid)
}

func (c *changes) schema(sql string) {
	c.begin('S', c.table)
	c.text(sql)
}

// seed is an entry by itself.
func (c *changes) seed(log, hash string) {
	c.begin('L', c.table)
	c.text(log)
	c.text(hash)
}

// leads is an entry by itself.
func (c *changes) leads(node string) {
	c.begin('M', c.table)
	c.text(node)
}

func (c *changes) text(s string) {
	c.b = binary.AppendUvarint(c.b, uint64(len(s)))
	c.b = append(c.b, s...)
}

func (c *changes) value(v value) {
	switch v := v.(type) {
	case nil:
		c.b = append(c.b, 'n')
	case int64:
		c.b = binary.AppendVarint(append(c.b, 'i'), v)
	case float64:
		c.b = binary.BigEndian.AppendUint64(append(c.b, 'r'), math.Float64bits(v))
	case string:
		c.b = append(c.b, 't')
		c.text(v)
	case []byte:
		c.b = binary.AppendUvarint(append(c.b, 'b'), uint64(len(v)))
		c.b = append(c.b, v...)
	}
}

var errShort = errors.New("the entry is cut short")

// decode reads the changes of an entry, up to the first error.
func decode(entry []byte) iter.Seq2[change, error] {
	return func(yield func(change, error) bool) {
		if len(entry) == 0 {
			yield(change{}, errShort)
			return
		}
		if entry[0] != entryVersion {
			yield(change{}, fmt.Errorf("the entry has version %d, and this program reads %d: run the newer program here that has written it", entry[0], entryVersion))
			return
		}
		r := &reader{b: entry[1:]}
		table := ""
		for len(r.b) > 0 {
			kind := r.byte()
			if kind == 'T' {
				table = string(r.bytes())
				continue
			}
			c := r.change(kind, table)
			if r.err != nil {
				yield(change{}, r.err)
				return
			}
			if !yield(c, nil) {
				return
			}
		}
		if r.err != nil {
			yield(change{}, r.err)
		}
	}
}

// reader takes an entry apart. After an error it has nothing left to read.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) change(kind byte, table string) change {
	c := change{kind: kind, table: table}
	switch kind {
	case 'I':
		c.to = r.varint()
		n := r.uvarint()
		if n > uint64(len(r.b)) { // each value has a byte at least
			r.fail(errShort)
			return c
		}
		c.values = slices.Grow(c.values, int(n))
		for range n {
			c.values = append(c.values, r.value())
		}
	case 'U':
		c.rowid, c.to = r.varint(), r.varint()
		for column := r.uvarint(); column != 0; column = r.uvarint() {
			if column > math.MaxInt32 {
				r.fail(fmt.Errorf("the entry has a column %d", column))
				break
			}
			c.columns = append(c.columns, int(column-1))
			c.values = append(c.values, r.value())
		}
	case 'D':
		c.rowid = r.varint()
	case 'S':
		c.table, c.sql = "", string(r.bytes())
	case 'L':
		c.table, c.log, c.hash = "", string(r.bytes()), string(r.bytes())
	case 'M':
		c.table, c.node = "", string(r.bytes())
	default:
		r.fail(fmt.Errorf("the entry has an unknown change %q", kind))
	}
	return c
}

func (r *reader) value() value {
	switch kind := r.byte(); kind {
	case 'n':
		return nil
	case 'i':
		return r.varint()
	case 'r':
		if len(r.b) < 8 {
			r.fail(errShort)
			return nil
		}
		v := math.Float64frombits(binary.BigEndian.Uint64(r.b))
		r.b = r.b[8:]
		return v
	case 't':
		return string(r.bytes())
	case 'b':
		return r.bytes()
	default:
		r.fail(fmt.Errorf("the entry has an unknown value %q", kind))
		return nil
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes never returns nil, which would be NULL.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return []byte{}
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

package realtime

import (
	"cmp"
	"fmt"
	"strings"
)

// A value is one as SQLite has it. The zero value is NULL.
type value struct {
	class   class
	text    string // of text, and of a blob
	integer int64
	real    float64
}

// A class is a storage class, in SQLite's order, in which numbers of both classes are one.
type class uint8

const (
	null class = iota
	integer
	real
	text
	blob
)

func textValue(s string) value { return value{class: text, text: s} }

// Scan takes what the driver has read.
func (v *value) Scan(read any) error {
	switch read := read.(type) {
	case nil:
		*v = value{}
	case int64:
		*v = value{class: integer, integer: read}
	case float64:
		*v = value{class: real, real: read}
	case string:
		*v = textValue(read)
	case []byte:
		*v = value{class: blob, text: string(read)}
	default:
		return fmt.Errorf("a column has a value of type %T", read)
	}
	return nil
}

func (v *value) isNumber() bool { return v.class == integer || v.class == real }

// equals is how PocketBase compares by = and !=: NULL is the empty text.
func (v *value) equals(w *value) bool {
	switch {
	case v.class == null:
		return w.class == null || w.class == text && w.text == ""
	case w.class == null:
		return v.class == text && v.text == ""
	case v.class == text && w.class == text:
		return v.text == w.text
	}
	return v.compare(w) == 0
}

// compare orders two values that are not NULL, and to which no affinity is to be applied,
// as SQLite does: numbers, texts by their bytes, blobs.
func (v *value) compare(w *value) int {
	switch {
	case !v.isNumber() || !w.isNumber():
		return cmp.Or(cmp.Compare(v.class, w.class), strings.Compare(v.text, w.text))
	case v.class == w.class:
		return cmp.Or(cmp.Compare(v.integer, w.integer), cmp.Compare(v.real, w.real))
	case v.class == integer:
		return compareNumbers(v.integer, w.real)
	}
	return -compareNumbers(w.integer, v.real)
}

// compareNumbers is exact where an integer has no equal among the reals.
func compareNumbers(integer int64, real float64) int {
	switch {
	case real < -1<<63:
		return 1
	case real >= 1<<63:
		return -1
	}
	whole := int64(real)
	return cmp.Or(cmp.Compare(integer, whole), cmp.Compare(float64(whole), real))
}

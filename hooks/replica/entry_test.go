package replica

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
)

// example has each change and each value once.
var example = []change{
	{kind: 'S', sql: "CREATE TABLE a (b, c)"},
	{kind: 'I', table: "a", to: math.MinInt64, values: []value{nil, int64(-1)}},
	{kind: 'I', table: "b", to: math.MaxInt64, values: []value{math.Inf(-1), math.Copysign(0, -1), "a\x00\xff", "", []byte{}, []byte("\x00")}},
	{kind: 'U', table: "a", rowid: 1, to: 2, columns: []int{0, 300}, values: []value{"", nil}},
	{kind: 'U', table: "a", rowid: 1, to: 1},
	{kind: 'D', table: "a", rowid: 0},
	{kind: 'S', sql: ""},
	{kind: 'L', log: "id", hash: "abc"},
	{kind: 'D', table: "a", rowid: 1},
}

func encode(list []change) []byte {
	var c changes
	for _, one := range list {
		switch one.kind {
		case 'I':
			c.insert(one.table, one.to, len(one.values))
			for _, v := range one.values {
				c.value(v)
			}
		case 'U':
			c.update(one.table, one.rowid, one.to)
			for i, v := range one.values {
				c.column(one.columns[i])
				c.value(v)
			}
			c.end()
		case 'D':
			c.delete(one.table, one.rowid)
		case 'S':
			c.schema(one.sql)
		case 'L':
			c.seed(one.log, one.hash)
		}
	}
	return c.entry()
}

func decodeAll(entry []byte) (list []change, err error) {
	for c, err := range decode(entry) {
		if err != nil {
			return list, err
		}
		list = append(list, c)
	}
	return list, nil
}

func TestEntriesAreDecoded(t *testing.T) {
	t.Parallel()
	got, err := decodeAll(encode(example))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range example {
		if i >= len(got) || !reflect.DeepEqual(got[i], want) {
			t.Fatalf("change %d: got %#v, want %#v", i, got[i:], want)
		}
	}
}

// The format is in logs that newer programs read: it changes only with its version.
func TestFormatStays(t *testing.T) {
	t.Parallel()
	want := "\x01T\x01aI\x04\x03ni\x02t\x02hiU\x02\x04\x02b\x01!\x00D\x01S\x03DDLL\x02id\x01h"
	got := encode([]change{
		{kind: 'I', table: "a", to: 2, values: []value{nil, int64(1), "hi"}},
		{kind: 'U', table: "a", rowid: 1, to: 2, columns: []int{1}, values: []value{[]byte("!")}},
		{kind: 'D', table: "a", rowid: -1},
		{kind: 'S', sql: "DDL"},
		{kind: 'L', log: "id", hash: "h"},
	})
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is cut back leaves no trace, wherever it began.
func TestChangesAreCut(t *testing.T) {
	t.Parallel()
	all := encode(example)
	for i := range example {
		var c changes
		c.b = append(c.b, encode(example[:i])...)
		n := c.len()
		c.delete("another", 1)
		c.cut(n)
		c.delete("a", 5)
		got, err := decodeAll(c.entry())
		if err != nil || len(got) != i+1 || got[i].table != "a" || got[i].rowid != 5 {
			t.Errorf("after %d: %v %v", i, got, err)
		}
	}
	if list, err := decodeAll(all[:len(all)-1]); !errors.Is(err, errShort) || len(list) != len(example)-1 {
		t.Errorf("cut short: %d changes, %v", len(list), err)
	}
	if _, err := decodeAll(nil); !errors.Is(err, errShort) {
		t.Errorf("empty: %v", err)
	}
	if _, err := decodeAll([]byte{entryVersion + 1}); err == nil || errors.Is(err, errShort) {
		t.Errorf("a newer version: %v", err)
	}
}

// Whatever is decoded without an error is encoded to what is decoded to the same.
func FuzzDecode(f *testing.F) {
	f.Add(encode(example))
	f.Add([]byte{entryVersion})
	f.Add([]byte("\x01I\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add([]byte("\x01U\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01n"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		first, err := decodeAll(entry)
		if err != nil {
			return
		}
		once := encode(first)
		second, err := decodeAll(once)
		if len(first) > 0 && err != nil {
			t.Fatal(err)
		}
		if len(first) > 0 && !bytes.Equal(once, encode(second)) {
			t.Fatalf("%q became %q", once, encode(second))
		}
	})
}

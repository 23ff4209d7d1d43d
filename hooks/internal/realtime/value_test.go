package realtime

import (
	"math"
	"testing"
)

// SQLite's order, where a conversion of the integer to a real would lose it too.
func TestValuesInOrder(t *testing.T) {
	t.Parallel()
	whole := func(n int64) value { return value{class: integer, integer: n} }
	broken := func(n float64) value { return value{class: real, real: n} }
	ordered := []value{
		broken(math.Inf(-1)), broken(-1e300), whole(math.MinInt64), whole(math.MinInt64 + 1), whole(-1), broken(-0.5), whole(0), broken(0.5), whole(1),
		broken(1 << 53), whole(1<<53 + 1), whole(math.MaxInt64), broken(1 << 63), broken(1e300),
		textValue(""), textValue("A"), textValue("a"), textValue("\uffff"), textValue("😀"), {class: blob}, {class: blob, text: "A"},
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := a.compare(&b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%+v and %+v: got %d", a, b, got)
			}
			if got := a.equals(&b); got != (i == j) {
				t.Errorf("%+v equals %+v: got %t", a, b, got)
			}
		}
		if got, want := a.equals(&value{}), a == textValue(""); got != want || (&value{}).equals(&a) != want {
			t.Errorf("%+v equals NULL: got %t, want %t", a, got, want)
		}
	}
	if a, b := whole(5), broken(5); a.compare(&b) != 0 || b.compare(&a) != 0 || !(&value{}).equals(&value{}) {
		t.Error("5 is not 5.0, or NULL is not NULL")
	}
}

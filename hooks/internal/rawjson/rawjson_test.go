package rawjson_test

import (
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

func TestSetMembers(t *testing.T) {
	t.Parallel()
	set := []rawjson.Member{{Name: "a", Value: []byte("1.0")}, {Name: `q"<`, Value: []byte("null")}}
	for _, row := range []struct{ object, want string }{
		{`{}`, `{"a":1.0,"q\"<":null}`},
		{`{"b":[{"a":2}],"a":2}`, `{"b":[{"a":2}],"a":1.0,"q\"<":null}`},
		{`{"q\"<":2,"A":2}`, `{"A":2,"a":1.0,"q\"<":null}`},
		{`{"b":2} {}`, ""},
		{`{"b":2},`, ""},
		{`{"b":}`, ""},
		{`{`, ""},
		{`[]`, ""},
		{`null`, ""},
		{``, ""},
	} {
		got, err := rawjson.SetMembers([]byte(row.object), set...)
		if string(got) != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s: got %s, %v, want %s", row.object, got, err, row.want)
		}
	}
	for _, value := range []string{"", "x", `1,"b":2`} {
		if got, err := rawjson.SetMembers([]byte("{}"), rawjson.Member{Name: "a", Value: []byte(value)}); err == nil {
			t.Errorf("value %q: got %s, want an error", value, got)
		}
	}
}

// Package rawjson reads and sets members of JSON objects by their bytes, so that all else,
// such as the digits of numbers, stays as it came.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Members returns the members of the JSON object raw, as parts of it. Of a repeated
// key the last one counts. It is an error if raw is not exactly one JSON object.
//
// Signing and parsing both read a payload through Members, so that what was
// verified is what is used.
func Members(raw []byte) (map[string]json.RawMessage, error) {
	if err := CheckObject(raw); err != nil {
		return nil, err
	}
	return OptionalMembers(raw), nil
}

// OptionalMembers is [Members] for a part of valid JSON that may be missing or of
// another kind, which has none then.
func OptionalMembers(raw json.RawMessage) map[string]json.RawMessage {
	if !IsObject(raw) {
		return nil
	}
	m := map[string]json.RawMessage{}
	eachMember(raw, func(name string, _, value json.RawMessage) { m[name] = value })
	return m
}

// CheckObject returns an error unless raw is exactly one JSON object.
func CheckObject(raw []byte) error {
	if !IsObject(raw) {
		return errors.New("not a JSON object")
	}
	if !json.Valid(raw) {
		return json.Unmarshal(raw, new(any)) // says what is wrong, and where
	}
	return nil
}

// eachMember calls do for each member of a valid JSON object, with its bytes and those
// of its value. encoding/json would check and copy the object once more at each level.
func eachMember(object json.RawMessage, do func(name string, member, value json.RawMessage)) {
	for i := skipSpace(object, skipSpace(object, 0)+1); object[i] != '}'; {
		nameEnd := valueEnd(object, i)
		start := skipSpace(object, skipSpace(object, nameEnd)+1) // after the colon
		end := valueEnd(object, start)
		do(Text(object[i:nameEnd]), object[i:end:end], object[start:end:end])
		if i = skipSpace(object, end); object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
}

// FirstElement returns the first element of a valid JSON array, or nil.
func FirstElement(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	i := skipSpace(raw, 1)
	if raw[i] == ']' {
		return nil
	}
	return raw[i:valueEnd(raw, i)]
}

// valueEnd returns where the value ends that begins at raw[i], in valid JSON.
func valueEnd(raw []byte, i int) int {
	depth := 0
	for ; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of what a number or a literal is in
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}

func skipSpace(raw []byte, i int) int {
	for raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\r' || raw[i] == '\n' {
		i++
	}
	return i
}

// IsObject reports whether raw begins as a JSON object does.
func IsObject(raw []byte) bool {
	trimmed := bytes.TrimLeft(raw, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{'
}

// IsNull reports whether raw is missing or a JSON null.
func IsNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null"
}

// Text returns the JSON string raw, or "" for any other value.
func Text(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return ""
	}
	if content := raw[1 : len(raw)-1]; bytes.IndexByte(content, '\\') < 0 && utf8.Valid(content) {
		return string(content)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return ""
	}
	return s
}

// TextOrNumber is text that also takes a number, by its digits as sent.
func TextOrNumber(raw json.RawMessage) string {
	if len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') {
		return string(raw)
	}
	return Text(raw)
}

// A Member is one name of a JSON object and its value.
type Member struct {
	Name  string
	Value json.RawMessage
}

// SetMembers returns the JSON object with the given members set: one that is there
// already is replaced, the others are appended in order. All other members, such as
// the digits of their numbers, stay as they are. It returns an error if object is not
// exactly one JSON object, or if a value to set is not JSON.
func SetMembers(object json.RawMessage, set ...Member) (json.RawMessage, error) {
	if err := CheckObject(object); err != nil {
		return nil, err
	}
	for _, m := range set {
		if !json.Valid(m.Value) {
			return nil, fmt.Errorf("member %q: not a JSON value", m.Name)
		}
	}

	out := make([]byte, 1, len(object)+64*len(set))
	out[0] = '{'
	appendMember := func(b []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	eachMember(object, func(name string, member, _ json.RawMessage) {
		if !slices.ContainsFunc(set, func(m Member) bool { return m.Name == name }) {
			appendMember(member)
		}
	})
	for _, m := range set {
		appendMember(fmt.Appendf(nil, "%s:%s", String(m.Name), m.Value))
	}
	return append(out, '}'), nil
}

// String returns s as a JSON value, for a [Member]. As from JavaScript, it has <, > and &
// as they are, so that ModelRiver's own servers sign the same bytes.
func String(s string) json.RawMessage {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

package rawjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxNesting is how deep stored JSON may nest. encoding/json takes 10,000 levels, and
// the answers that a value is in, with its list and what is expanded, add theirs.
const MaxNesting = 9900

// Readable makes valid JSON such that whoever reads it can decode it, as PocketBase
// does itself for ?fields=, into float64: a number that is too large for that becomes a
// string of the same characters. What is readable already is returned as it is.
func Readable(raw json.RawMessage) (json.RawMessage, error) {
	raw = ValidUTF8(raw)
	var out []byte
	copied, depth := 0, 0
	for i := 0; i < len(raw); {
		switch raw[i] {
		case '"':
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			i++
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			start := i
			for i++; i < len(raw) && bytes.IndexByte([]byte("0123456789+-.eE"), raw[i]) >= 0; i++ {
			}
			if !fitsFloat64(raw[start:i]) {
				out = append(out, raw[copied:start]...)
				out = strconv.AppendQuote(out, string(raw[start:i]))
				copied = i
			}
		case '{', '[':
			if depth++; depth > MaxNesting {
				return nil, fmt.Errorf("nested deeper than %d levels", MaxNesting)
			}
			i++
		case '}', ']':
			depth--
			i++
		default:
			i++
		}
	}
	if copied == 0 {
		return raw, nil
	}
	return append(out, raw[copied:]...), nil
}

func fitsFloat64(number []byte) bool {
	if len(number) < 300 && !bytes.ContainsAny(number, "eE") {
		return true
	}
	_, err := strconv.ParseFloat(string(number), 64)
	return err == nil
}

// ValidUTF8 returns raw as it is, unless it is no JSON for want of valid UTF-8.
func ValidUTF8(raw json.RawMessage) json.RawMessage {
	if utf8.Valid(raw) {
		return raw
	}
	return json.RawMessage(strings.ToValidUTF8(string(raw), "\uFFFD"))
}

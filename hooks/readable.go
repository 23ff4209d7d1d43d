package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// maxNesting is how deep stored JSON may nest. encoding/json takes 10,000 levels, and
// the answers that a value is in, with its list and what is expanded, add theirs.
const maxNesting = 9900

// readable makes valid JSON such that whoever reads it can decode it, as PocketBase
// does itself for ?fields=, into float64: a number that is too large for that becomes a
// string of the same characters. What is readable already is returned as it is.
func readable(raw json.RawMessage) (json.RawMessage, error) {
	raw = validUTF8(raw)
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
			if depth++; depth > maxNesting {
				return nil, fmt.Errorf("nested deeper than %d levels", maxNesting)
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

// storeReadable is bound to every save of a record, behind the host's hooks: what they
// or the dashboard put into a JSON field is made readable too.
func storeReadable(e *core.RecordEvent) error {
	for _, field := range e.Record.Collection().Fields {
		raw, ok := e.Record.GetRaw(field.GetName()).(types.JSONRaw)
		if !ok {
			continue
		}
		fit, err := readable(json.RawMessage(raw))
		if err != nil {
			return validation.Errors{field.GetName(): validation.NewError("validation_invalid_json", err.Error())}
		}
		e.Record.SetRaw(field.GetName(), types.JSONRaw(fit))
	}
	return e.Next()
}

// Package modelriver speaks ModelRiver's webhook protocol: it verifies signed
// deliveries, parses their events and sends the callbacks they ask for. It needs
// the standard library only.
//
// A webhook is the POST that ModelRiver sends, its payload the raw bytes of the
// body, an event the parsed payload, and a callback the POST that ModelRiver waits
// for in return.
//
//	verifier, err := modelriver.NewVerifier(secret)
//	…
//	payload, err := io.ReadAll(r.Body)
//	…
//	if err := verifier.Verify(r.Header, payload); err != nil {
//		http.Error(w, `{"error":"Invalid signature"}`, http.StatusUnauthorized)
//		return
//	}
//	event, err := modelriver.ParseEvent(r.Header, payload)
package modelriver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Request headers of a webhook. ModelRiver's documentation and guides name the
// mr- family (https://modelriver.com/docs/webhooks/standard-webhooks), its
// published example servers the X-ModelRiver- family.
const (
	HeaderSignature   = "mr-signature"
	HeaderTimestamp   = "mr-timestamp"
	HeaderChannelID   = "mr-channel-id"
	HeaderXSignature  = "X-ModelRiver-Signature"
	HeaderXTimestamp  = "X-ModelRiver-Timestamp"
	HeaderCallbackURL = "X-ModelRiver-Callback-Url"
)

// Event types that carry AI data
// (https://modelriver.com/docs/webhooks/event-driven and .../standard-webhooks).
const (
	// TypeAIGenerated is an event-driven delivery: ModelRiver waits for a callback.
	TypeAIGenerated = "task.ai_generated"

	// TypeCompleted is a standard delivery, usually without a callback URL.
	TypeCompleted = "task.completed"
)

// members returns the members of the JSON object raw. Of a repeated key the last
// one counts. It is an error if raw is not exactly one JSON object.
//
// Signing and parsing both read a payload through members, so that what was
// verified is what is used.
func members(raw []byte) (map[string]json.RawMessage, error) {
	if !isObject(raw) {
		return nil, errors.New("not a JSON object")
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	return m, nil
}

// optionalMembers is members for a value that may be missing or of another kind,
// which has none then.
func optionalMembers(raw json.RawMessage) map[string]json.RawMessage {
	m, err := members(raw)
	if err != nil {
		return nil
	}
	return m
}

func isObject(raw []byte) bool {
	trimmed := bytes.TrimLeft(raw, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{'
}

// isNull reports whether raw is missing or a JSON null.
func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null"
}

// text returns the JSON string raw, or "" for any other value.
func text(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return ""
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return ""
	}
	return s
}

// textOrNumber is text that also takes a number, by its digits as sent.
func textOrNumber(raw json.RawMessage) string {
	if len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9') {
		return string(raw)
	}
	return text(raw)
}

// A Member is one name of a JSON object and its value.
type Member struct {
	Name  string
	Value json.RawMessage
}

// SetMembers returns the JSON object with the given members set: one that is there
// already is replaced, the others are appended in order. All other bytes of the
// object, such as the digits of its numbers, stay as they are. It returns an error
// if object is not a JSON object.
func SetMembers(object json.RawMessage, set ...Member) (json.RawMessage, error) {
	if !isObject(object) {
		return nil, errors.New("not a JSON object")
	}
	replaced := func(name string) bool {
		for _, m := range set {
			if m.Name == name {
				return true
			}
		}
		return false
	}

	out := make([]byte, 1, len(object)+64*len(set))
	out[0] = '{'
	appendMember := func(b []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}

	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil { // {
		return nil, err
	}
	for decoder.More() {
		start := decoder.InputOffset()
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		if !replaced(name.(string)) {
			appendMember(bytes.TrimLeft(object[start:decoder.InputOffset()], ", \t\r\n"))
		}
	}
	if _, err := decoder.Token(); err != nil { // }
		return nil, err
	}
	for _, m := range set {
		name, err := json.Marshal(m.Name)
		if err != nil {
			return nil, err
		}
		appendMember(fmt.Appendf(nil, "%s:%s", name, m.Value))
	}
	return append(out, '}'), nil
}

// String returns s as a JSON value, for a [Member].
func String(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return raw
}

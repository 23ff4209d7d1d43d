package hooks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A refusal is the final word of the host's hooks or of validation about an event.
type refusal struct{ cause error }

func (r *refusal) Error() string { return "refused: " + reason(r.cause) }
func (r *refusal) Unwrap() error { return r.cause }

// ingest stores the event as a record, and with it, in one transaction, the callback
// that is owed for it. It returns nil when that is committed, also for an event that
// is stored already or that was refused; any error is the database's.
func (p *plugin) ingest(event *modelriver.Event, payload []byte) error {
	now := p.outbox.now()
	host, _ := p.outbox.client.Host(event.CallbackURL)
	cb := &callback{
		Id:      recordId(event, payload),
		URL:     event.CallbackURL,
		Host:    host,
		Expires: dateTime(now.Add(p.config.CallbackWindow)),
	}

	// A place in memory lets the row be claimed as it is inserted: it is sent right
	// after the commit. Without one it is due at once, and read when there is room; and
	// without a key when its window ends.
	nextAttempt := now
	reserved, due := false, false
	switch {
	case cb.URL == "":
	case p.config.APIKey == "" && host != "":
		nextAttempt = cb.Expires.Time()
	case p.outbox.reserve(cb):
		reserved = true
		cb.Attempts = 1
		nextAttempt = now.Add(p.outbox.lease())
	default:
		due = true
	}

	var record *core.Record
	err := p.commits.wait(&write{
		size: len(payload),
		run: func(tx core.App) (err error) {
			record, err = p.store(tx, event, cb, now, nextAttempt)
			return err
		},
		instead: func(tx core.App, cause error) (err error) {
			record, err = p.refuse(tx, event, payload, cb, cause, now, nextAttempt)
			return err
		},
	})
	if err != nil {
		if reserved {
			p.outbox.release(cb)
		}
		return err // and nothing of cb is read: a write that took too long may still run
	}
	if cb.Refused {
		p.app.Logger().Error("Refused a webhook: its payload is kept with its callback", "error", cb.Reason, "callback", cb.Id)
	}

	duplicate := record == nil && !cb.Refused
	switch {
	case reserved && duplicate:
		p.outbox.release(cb)
	case reserved:
		p.outbox.send(cb)
	}
	if duplicate || cb.Refused || due && p.outbox.room(cb.Host) > 0 {
		p.outbox.Wake() // a row was armed again, or the outbox has only just started
	}
	return nil
}

// store writes the event's record and callback row, and returns the record. If the
// event is stored already it returns nil, and changes nothing but a failed callback,
// which it arms again; but if the callback row says that the event was refused, it is
// written anew. The error is a [*refusal] if the record may not be stored.
func (p *plugin) store(tx core.App, event *modelriver.Event, cb *callback, now, nextAttempt time.Time) (*core.Record, error) {
	cb.Refused, cb.Reason = false, ""
	stored, err := findStored(tx, cb.Id)
	if err != nil {
		return nil, err
	}
	if !stored.Refused && (stored.Record || stored.State != "") {
		if stored.State == stateFailed {
			err = rearmFailed(tx, cb.Id, now, p.config.CallbackWindow)
		}
		return nil, err
	}

	var record *core.Record
	if stored.Record {
		record, err = tx.FindRecordById(contentCollection, cb.Id)
	} else {
		record, err = p.saveRecord(tx, event, cb.Id)
	}
	if err != nil {
		return nil, err
	}
	if cb.URL == "" { // no callback is owed, nor any longer one that tells of a refusal
		if stored.Refused {
			err = deleteCallback(tx, cb.Id)
		}
		return record, err
	}
	data := json.RawMessage(record.GetString("data"))
	if !bytes.Equal(data, event.Data) {
		if kept, err := readable(event.Data); err == nil && bytes.Equal(kept, data) {
			data = validUTF8(event.Data) // no hook changed it: ModelRiver gets its own numbers
		}
	}
	cb.Body, err = modelriver.CallbackBody(data, contentCollection, record.Id, record.GetDateTime("created").Time())
	if err != nil {
		return nil, &refusal{fmt.Errorf("data: %w", err)}
	}
	return record, insertCallback(tx, cb, now, nextAttempt, record.Id, "")
}

// refuse is what store's refusal leads to: the callback row keeps the payload, and owes
// ModelRiver the cause. What is stored all the same is never called refused.
func (p *plugin) refuse(tx core.App, event *modelriver.Event, payload []byte, cb *callback, cause error, now, nextAttempt time.Time) (*core.Record, error) {
	var refused *refusal
	if !errors.As(cause, &refused) {
		return nil, cause
	}
	stored, err := findStored(tx, cb.Id)
	if err != nil {
		return nil, err
	}
	if stored.Record || stored.State != "" && !stored.Refused {
		return p.store(tx, event, cb, now, nextAttempt)
	}
	cb.Refused, cb.Reason = true, refused.Error()
	cb.Body = modelriver.ErrorCallbackBody(cb.Reason)
	return nil, insertCallback(tx, cb, now, nextAttempt, "", keptPayload(event, payload))
}

// saveRecord saves the event as a new record, through all of PocketBase's hooks.
func (p *plugin) saveRecord(tx core.App, event *modelriver.Event, id string) (*core.Record, error) {
	collection, err := tx.FindCachedCollectionByNameOrId(contentCollection)
	if err != nil {
		return nil, err
	}
	if event.Data == nil {
		return nil, &refusal{errors.New("the webhook carries no AI data")}
	}
	metadata, err := metadataOf(event)
	if err != nil {
		return nil, &refusal{fmt.Errorf("metadata: %w", err)}
	}

	record := core.NewRecord(collection)
	record.Set("id", id)
	for field, value := range map[string]string{
		"title":     event.Title,
		"category":  event.Category,
		"channelId": event.ChannelID,
		"eventName": event.Name,
		"userId":    event.UserID,
		"source":    "modelriver",
	} {
		record.Set(field, cut(clean(value), maxLength(collection, field)))
	}
	if strings.TrimSpace(record.GetString("title")) == "" {
		record.Set("title", "Untitled")
	}
	if record.GetString("category") == "" {
		record.Set("category", "general")
	}
	record.Set("body", clean(event.Body))
	// Readable for hooks already, which decode them too.
	for field, raw := range map[string]json.RawMessage{"metadata": metadata, "data": event.Data} {
		kept, err := readable(raw)
		if err != nil {
			return nil, &refusal{fmt.Errorf("%s: %w", field, err)}
		}
		record.Set(field, types.JSONRaw(kept))
	}

	err = runSafely(func(tx core.App) error { return tx.Save(record) }, tx) // a hook's panic refuses too
	if err != nil && !databaseFailed(err) {
		return nil, &refusal{err}
	}
	return record, err
}

// ingestAgain stores the event of a refused row that was armed again.
func (p *plugin) ingestAgain(tx core.App, cb *callback, payload string) error {
	event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
	if err != nil {
		return &refusal{err}
	}
	now := p.outbox.now()
	next := *cb
	next.Attempts = 0
	next.Expires = dateTime(now.Add(p.config.CallbackWindow))
	_, err = p.store(tx, event, &next, now, now)
	return err
}

// recordId returns the id that the same delivery always gets, so that the primary key
// is the check for duplicates. Content does not count where there is a channel id: a
// workflow's cache may give two requests the same answer.
func recordId(event *modelriver.Event, payload []byte) string {
	hash := sha256.New()
	if event.ChannelID == "" {
		hash.Write(payload)
	} else {
		for _, part := range []string{event.ChannelID, event.Type, event.Name} {
			hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			hash.Write([]byte(part))
		}
	}
	return new(big.Int).SetBytes(hash.Sum(nil)).Text(36)[:15]
}

// keptPayload is the payload of a refused event, to be ingested again, with what its
// headers added.
func keptPayload(event *modelriver.Event, payload []byte) string {
	again, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		return string(payload)
	}
	var added []rawjson.Member
	if again.ChannelID != event.ChannelID {
		added = append(added, rawjson.Member{Name: "channel_id", Value: rawjson.String(event.ChannelID)})
	}
	if again.CallbackURL != event.CallbackURL {
		added = append(added, rawjson.Member{Name: "callback_url", Value: rawjson.String(event.CallbackURL)})
	}
	if string(again.Data) != string(event.Data) {
		// With the headers of the data scheme, an ai_response beside data didn't count.
		added = append(added, rawjson.Member{Name: "ai_response", Value: json.RawMessage("null")})
	}
	if len(added) > 0 {
		if with, err := rawjson.SetMembers(payload, added...); err == nil {
			return string(with)
		}
	}
	return string(payload)
}

// metadataOf is all of customer_data, with the AI model and provider where known.
func metadataOf(event *modelriver.Event) (json.RawMessage, error) {
	metadata := event.Customer
	if metadata == nil {
		metadata = json.RawMessage("{}")
	}
	var known []rawjson.Member
	if event.Model != "" {
		known = append(known, rawjson.Member{Name: "ai_model", Value: rawjson.String(event.Model)})
	}
	if event.Provider != "" {
		known = append(known, rawjson.Member{Name: "ai_provider", Value: rawjson.String(event.Provider)})
	}
	if len(known) > 0 {
		var err error
		if metadata, err = rawjson.SetMembers(metadata, known...); err != nil {
			return nil, err
		}
	}
	return metadata, nil
}

// clean makes text fit to be stored and sent as JSON: SQLite ends text at a NUL in
// places, and half a character is no UTF-8.
func clean(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, "\x00") {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// validUTF8 returns raw as it is, unless it is no JSON for want of valid UTF-8.
func validUTF8(raw json.RawMessage) json.RawMessage {
	if utf8.Valid(raw) {
		return raw
	}
	return json.RawMessage(strings.ToValidUTF8(string(raw), "\uFFFD"))
}

// cut shortens s to a number of characters.
func cut(s string, length int) string {
	if len(s) <= length {
		return s
	}
	runes := []rune(s)
	return string(runes[:min(len(runes), length)])
}

// maxLength returns how many characters the text field of the collection takes.
func maxLength(collection *core.Collection, field string) int {
	if f, ok := collection.Fields.GetByName(field).(*core.TextField); ok && f.Max > 0 {
		return f.Max
	}
	return 5000 // PocketBase's own limit for a field without one
}

// reason returns the message of a refusal in the words its author chose for it.
func reason(err error) string {
	var api *router.ApiError
	if errors.As(err, &api) {
		return api.Message
	}
	var fields validation.Errors
	if errors.As(err, &fields) {
		return strings.TrimSuffix(fields.Error(), ".") // its own, after each message's
	}
	return err.Error()
}

package hooks

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// saveRecord saves the event as a new record, through all of PocketBase's hooks.
func saveRecord(tx core.App, event *modelriver.Event, id string) (*core.Record, error) {
	collection, err := tx.FindCachedCollectionByNameOrId(store.Content)
	if err != nil {
		return nil, err
	}
	if event.Data == nil {
		return nil, &store.Refusal{Cause: errors.New("the webhook carries no AI data")}
	}
	metadata, err := metadataOf(event)
	if err != nil {
		return nil, &store.Refusal{Cause: fmt.Errorf("metadata: %w", err)}
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
		record.Set(field, store.FirstCharacters(clean(value), maxLength(collection, field)))
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
		kept, err := rawjson.Readable(raw)
		if err != nil {
			return nil, &store.Refusal{Cause: fmt.Errorf("%s: %w", field, err)}
		}
		record.Set(field, types.JSONRaw(kept))
	}

	err = commit.Safely(tx, func(tx core.App) error { return tx.Save(record) }) // a hook's panic refuses too
	if err == nil && record.IsNew() {
		err = store.ErrSilent
	}
	if err != nil && !commit.DatabaseFailed(err) {
		return nil, &store.Refusal{Cause: err}
	}
	return record, err
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
	if again.UserID != event.UserID { // the request's
		customer := event.Customer
		if customer == nil {
			customer = json.RawMessage("{}")
		}
		if customer, err = rawjson.SetMembers(customer, rawjson.Member{Name: "user_id", Value: rawjson.String(event.UserID)}); err == nil {
			added = append(added, rawjson.Member{Name: "customer_data", Value: customer})
		}
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

// maxLength returns how many characters the text field of the collection takes.
func maxLength(collection *core.Collection, field string) int {
	if f, ok := collection.Fields.GetByName(field).(*core.TextField); ok && f.Max > 0 {
		return f.Max
	}
	return 5000 // PocketBase's own limit for a field without one
}

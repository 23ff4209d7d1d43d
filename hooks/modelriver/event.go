package modelriver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// An Event is a parsed payload. Text is as received: it was written by an AI model
// or by whoever asked it, and nothing about its length or content is promised.
type Event struct {
	// Type is [TypeAIGenerated], [TypeCompleted], any other text, or empty:
	// ModelRiver's own example servers show events without a type.
	Type string

	// Name is the event name of the workflow, such as "new_content".
	Name string

	// ChannelID identifies the AI request. Usually a UUID, but not always.
	ChannelID string

	// CallbackURL is where ModelRiver waits for a callback; empty if it does not.
	// Compare its host with what you trust before you send it a key.
	CallbackURL string

	// Data is the AI data: any JSON value, byte for byte as sent, a part of the
	// payload. It is nil if the event carries none.
	Data json.RawMessage

	// Customer is the customer_data object: the request's cache fields, keyed by
	// their literal paths, such as "metadata.user_id". It is a part of the payload, or
	// nil if there is none.
	Customer json.RawMessage

	// Title and Body are what Data has for them, empty if it has nothing.
	Title, Body string

	// Category and UserID are what Customer has for them, empty if it has nothing.
	Category, UserID string

	// Model and Provider name the AI model that answered, if the event says so.
	Model, Provider string
}

// Stores reports whether the event carries AI data to keep.
func (e *Event) Stores() bool { return e.generated() && e.Data != nil }

// LacksData reports whether ModelRiver waits for a callback to AI data that the event
// does not carry: only an error callback can answer it.
func (e *Event) LacksData() bool { return e.generated() && e.Data == nil && e.CallbackURL != "" }

func (e *Event) generated() bool {
	return e.Type == TypeAIGenerated || e.Type == TypeCompleted || e.Type == ""
}

// ParseEvent parses the payload of a verified webhook. It returns an error if
// payload is not exactly one JSON object; an unknown, odd or empty object is an
// event all the same, for which [Event.Stores] is false.
//
// ModelRiver's documentation and its published servers put the members in different
// places. When the data member is itself an envelope, with an ai_response object or a
// task type, a member is taken from there first, because in the data scheme only
// that part is signed; then from the top level, then from the headers. Under a type of
// task.completed, data is always the answer. For the same reason a payload that came
// with [HeaderXSignature] and a data member has no AI data outside of it.
func ParseEvent(header http.Header, payload []byte) (*Event, error) {
	top, err := members(payload)
	if err != nil {
		return nil, fmt.Errorf("parse event: %w", err)
	}
	if top["data"] != nil && header.Get(HeaderXSignature) != "" {
		delete(top, "ai_response")
	}

	data := optionalMembers(top["data"])
	topType := text(top["type"])
	var envelope map[string]json.RawMessage
	if isObject(data["ai_response"]) && topType != TypeCompleted ||
		topType == "" && strings.HasPrefix(text(data["type"]), "task.") {
		envelope = data
	}
	member := func(name string) json.RawMessage {
		if raw := envelope[name]; !isNull(raw) && string(raw) != `""` {
			return raw
		}
		return top[name]
	}

	event := &Event{
		Type: text(member("type")),
		Name: text(member("event")),
	}
	aiResponse := optionalMembers(member("ai_response"))
	meta := optionalMembers(member("meta"))
	if meta == nil {
		meta = optionalMembers(aiResponse["meta"])
	}

	event.ChannelID = text(member("channel_id"))
	event.CallbackURL = text(member("callback_url"))
	if event.ChannelID == "" && envelope == nil && text(data["channel_id"]) != "" {
		// The monitoring page's example keeps these inside data, beside the answer.
		// With a channel id at the top, they would be the AI model's own words.
		event.ChannelID = text(data["channel_id"])
		if event.CallbackURL == "" {
			event.CallbackURL = text(data["callback_url"])
		}
		if meta == nil {
			meta = data
		}
	}
	if event.CallbackURL == "" {
		event.CallbackURL = header.Get(HeaderCallbackURL)
	}
	if event.ChannelID == "" {
		event.ChannelID = header.Get(HeaderChannelID)
	}
	if event.ChannelID == "" {
		event.ChannelID = lastSegment(event.CallbackURL)
	}

	if customer := member("customer_data"); isObject(customer) {
		event.Customer = customer
	} else if cached := member("cached_data"); isObject(cached) { // its name until 2025
		event.Customer = cached
	}
	customer := optionalMembers(event.Customer)
	event.Category = text(customer["category"])
	event.UserID = userID(customer)

	event.Model = firstText(meta["model"], meta["used_model"])
	event.Provider = firstText(meta["provider"], meta["used_provider"])

	// The AI data is ai_response.data, or the data member itself where there is no
	// ai_response. A null counts only where a type announces it and no error explains it.
	event.Data = top["data"]
	if envelope != nil {
		event.Data = envelope["data"]
	}
	if aiResponse != nil {
		event.Data = aiResponse["data"]
	} else if raw := member("ai_response"); !isNull(raw) {
		event.Data = raw // never seen, but nothing else holds the answer then
	}
	if string(event.Data) == "null" && (event.Type == "" || !isNull(member("error"))) {
		event.Data = nil
	}
	event.Title, event.Body = titleAndBody(event.Data)
	return event, nil
}

// userID finds the user that the content was made for. A value that is no text and
// no number cannot be anyone's id, but it must not make private content public
// either: it is kept as its JSON.
func userID(customer map[string]json.RawMessage) string {
	for _, name := range []string{"user_id", "metadata.user_id"} {
		raw := customer[name]
		if isNull(raw) || string(raw) == `""` {
			continue
		}
		if id := textOrNumber(raw); id != "" {
			return id
		}
		return string(raw)
	}
	return ""
}

// titleAndBody picks the AI data's title and body from the names that ModelRiver's
// guides and the AI providers use for them.
func titleAndBody(data json.RawMessage) (title, body string) {
	if len(data) > 0 && data[0] == '"' {
		return "", text(data)
	}
	m := optionalMembers(data)
	title = textOrNumber(m["title"])
	body = firstText(m["description"], m["body"], m["content"], m["text"])
	if body == "" {
		body = choiceContent(m["choices"])
	}
	if body == "" {
		body = choiceContent(optionalMembers(m["response"])["choices"])
	}
	return title, body
}

// choiceContent returns choices[0].message.content.
func choiceContent(choices json.RawMessage) string {
	message := optionalMembers(optionalMembers(firstElement(choices))["message"])
	return text(message["content"])
}

func firstText(values ...json.RawMessage) string {
	for _, raw := range values {
		if s := text(raw); s != "" {
			return s
		}
	}
	return ""
}

// lastSegment returns the last path segment of a URL such as
// https://api.modelriver.com/v1/callback/CHANNEL, or "" if there is none.
func lastSegment(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Path == "" || strings.HasSuffix(u.Path, "/") {
		return ""
	}
	last := path.Base(u.Path)
	if last == "callback" {
		return "" // one for all, without a channel
	}
	return last
}

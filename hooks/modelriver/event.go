package modelriver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
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

	// RequestID is the asker's own id of the request, if cache fields echo it as
	// request_id or metadata.request_id. It is taken from what is signed only.
	RequestID string

	// Error is the message of an event that tells of an error, empty for others. What an
	// event with data says of one does not count.
	Error string

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
	s, err := shapeOf(header, payload)
	if err != nil {
		return nil, fmt.Errorf("parse event: %w", err)
	}
	event := &Event{
		Type: rawjson.Text(s.member("type")),
		Name: rawjson.Text(s.member("event")),
	}
	event.ChannelID, event.CallbackURL = s.address(header)

	event.Customer = s.customer()
	customer := rawjson.OptionalMembers(event.Customer)
	event.Category = rawjson.Text(customer["category"])
	event.UserID = userID(customer)
	event.RequestID = s.requestID()

	meta := s.meta()
	event.Model = firstText(meta["model"], meta["used_model"])
	event.Provider = firstText(meta["provider"], meta["used_provider"])

	event.Data = s.aiData()
	if string(event.Data) == "null" && (event.Type == "" || !rawjson.IsNull(s.member("error"))) {
		event.Data = nil // a null counts only where a type announces it and no error explains it
	}
	event.Title, event.Body = titleAndBody(event.Data)
	if event.Data == nil {
		event.Error = failureOf(s.member)
	}
	return event, nil
}

// A shape is a payload by the places where its members are looked for.
type shape struct {
	top      map[string]json.RawMessage
	data     map[string]json.RawMessage // of the data member, if that is an object
	envelope map[string]json.RawMessage // data, if it is an envelope itself; else nil
	partly   bool                       // only data is signed
}

func shapeOf(header http.Header, payload []byte) (s shape, err error) {
	if s.top, err = rawjson.Members(payload); err != nil {
		return s, err
	}
	if s.partly = s.top["data"] != nil && header.Get(HeaderXSignature) != ""; s.partly {
		delete(s.top, "ai_response") // it is not signed
	}
	s.data = rawjson.OptionalMembers(s.top["data"])
	topType := rawjson.Text(s.top["type"])
	if rawjson.IsObject(s.data["ai_response"]) && topType != TypeCompleted ||
		topType == "" && strings.HasPrefix(rawjson.Text(s.data["type"]), "task.") {
		s.envelope = s.data
	}
	return s, nil
}

// member returns the envelope's member of that name, or the top level's.
func (s shape) member(name string) json.RawMessage {
	if raw := s.envelope[name]; !rawjson.IsNull(raw) && string(raw) != `""` {
		return raw
	}
	return s.top[name]
}

// answersBeside reports whether data holds the channel id beside the answer, as in the
// monitoring page's example. With a channel id at the top, it would be the AI model's own
// words.
func (s shape) answersBeside() bool {
	return s.envelope == nil && rawjson.Text(s.top["channel_id"]) == "" && rawjson.Text(s.data["channel_id"]) != ""
}

// address returns whose request the event is about, and where a callback is waited for.
func (s shape) address(header http.Header) (channelID, callbackURL string) {
	channelID = rawjson.Text(s.member("channel_id"))
	callbackURL = rawjson.Text(s.member("callback_url"))
	if s.partly { // what is signed counts before a channel id that is not
		channelID = cmp.Or(rawjson.Text(s.envelope["channel_id"]), lastSegment(rawjson.Text(s.envelope["callback_url"])), channelID)
	}
	if s.answersBeside() {
		channelID = rawjson.Text(s.data["channel_id"])
		callbackURL = cmp.Or(callbackURL, rawjson.Text(s.data["callback_url"]))
	}
	callbackURL = cmp.Or(callbackURL, header.Get(HeaderCallbackURL))
	return cmp.Or(channelID, header.Get(HeaderChannelID), lastSegment(callbackURL)), callbackURL
}

// customer returns the customer_data object, or nil.
func (s shape) customer() json.RawMessage {
	for _, name := range []string{"customer_data", "cached_data"} { // the second until 2025
		if raw := s.member(name); rawjson.IsObject(raw) {
			return raw
		}
	}
	return nil
}

// requestID returns the request id that the customer data echoes, if that is signed.
func (s shape) requestID() string {
	customer := s.customer()
	if s.partly {
		customer = s.envelope["customer_data"]
	}
	members := rawjson.OptionalMembers(customer)
	return firstText(members["request_id"], members["metadata.request_id"])
}

// meta returns the members that tell which AI model answered.
func (s shape) meta() map[string]json.RawMessage {
	if meta := rawjson.OptionalMembers(s.member("meta")); meta != nil {
		return meta
	}
	if meta := rawjson.OptionalMembers(rawjson.OptionalMembers(s.member("ai_response"))["meta"]); meta != nil {
		return meta
	}
	if s.answersBeside() {
		return s.data
	}
	return nil
}

// aiData returns ai_response.data, or the data member itself where there is no
// ai_response.
func (s shape) aiData() json.RawMessage {
	aiResponse := s.member("ai_response")
	switch {
	case rawjson.IsObject(aiResponse):
		return rawjson.OptionalMembers(aiResponse)["data"]
	case !rawjson.IsNull(aiResponse):
		return aiResponse // never seen, but nothing else holds the answer then
	case s.envelope != nil:
		return s.envelope["data"]
	}
	return s.top["data"]
}

// userID finds the user that the content was made for. A value that is no text and
// no number cannot be anyone's id, but it must not make private content public
// either: it is kept as its JSON.
func userID(customer map[string]json.RawMessage) string {
	for _, name := range []string{"user_id", "metadata.user_id"} {
		raw := customer[name]
		if rawjson.IsNull(raw) || string(raw) == `""` {
			continue
		}
		if id := rawjson.TextOrNumber(raw); id != "" {
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
		return "", rawjson.Text(data)
	}
	m := rawjson.OptionalMembers(data)
	title = rawjson.TextOrNumber(m["title"])
	body = firstText(m["description"], m["body"], m["content"], m["text"])
	if body == "" {
		body = choiceContent(m["choices"])
	}
	if body == "" {
		body = choiceContent(rawjson.OptionalMembers(m["response"])["choices"])
	}
	return title, body
}

// choiceContent returns choices[0].message.content.
func choiceContent(choices json.RawMessage) string {
	message := rawjson.OptionalMembers(rawjson.OptionalMembers(rawjson.FirstElement(choices))["message"])
	return rawjson.Text(message["content"])
}

func firstText(values ...json.RawMessage) string {
	for _, raw := range values {
		if s := rawjson.Text(raw); s != "" {
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

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

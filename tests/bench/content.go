//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const (
	secret = "bench-secret"
	apiKey = "bench-key"
)

// One record as every server stores it: about 1 KB of content, all fields filled.
const (
	sampleTitle       = "A river town wakes up"
	sampleDescription = "The ferry leaves at six. By then the bakers on the quay have sold out of rye, the herons have taken their posts on the weir, and the first barge of the day is asking the lock for water. Nobody here calls it a small town; they call it a short river. At noon the bell of the customs house counts the boats, and whoever is late buys the coffee."
	sampleCategory    = "stories"
	sampleEvent       = "new_content"
)

var (
	sampleData     = fmt.Sprintf(`{"title":%q,"description":%q,"keywords":["river","morning","town"],"score":9007199254740993}`, sampleTitle, sampleDescription)
	sampleMetadata = `{"category":"stories","ai_model":"gpt-4o","ai_provider":"openai"}`
)

// channelLength is the length of every channel id, and seqDigits how many digits of
// the sequence number it ends in.
const (
	channelLength = 36
	seqDigits     = 12
)

// channel returns the channel id of the webhook with a sequence number, in the form of
// a UUID that begins at random, so that it lands anywhere in an index.
func channel(seq int) string {
	mixed := uint32(seq) * 2654435769
	return fmt.Sprintf("%08x-5eed-4000-8000-%0*d", mixed, seqDigits, seq)
}

// sequence reads the number back.
func sequence(channel string) (int, bool) {
	if len(channel) != channelLength {
		return 0, false
	}
	seq, err := strconv.Atoi(channel[channelLength-seqDigits:])
	return seq, err == nil
}

// Kinds of request. The first two end in the same record of aiContent, the others in records
// with the same question.
const (
	kindCreate  = "create"  // PocketBase's REST API
	kindWebhook = "webhook" // signed, as ModelRiver sends it
	kindPlain   = "plain"   // a question in a collection without a meaning
	kindAsk     = "ask"     // to ModelRiver
)

// request returns the bytes of a whole HTTP request. callback is the base of the
// callback URL; a webhook without one owes no callback. token is of whoever sends it, empty
// for a guest.
func request(kind, addr, callback, token string, seq int) []byte {
	var path, body, headers string
	switch kind {
	case kindCreate:
		path = "/api/collections/aiContent/records"
		body = fmt.Sprintf(`{"title":%q,"body":%q,"category":%q,"metadata":%s,"data":%s,"channelId":%q,"eventName":%q,"userId":"","source":"modelriver"}`,
			sampleTitle, sampleDescription, sampleCategory, sampleMetadata, sampleData, channel(seq), sampleEvent)
	case kindWebhook:
		path = "/webhooks/modelriver"
		if callback != "" {
			callback = fmt.Sprintf(`,"callback_url":%q,"callback_required":true`, callback+"/v1/callback/"+channel(seq))
		}
		body = fmt.Sprintf(`{"type":"task.ai_generated","event":%q,"channel_id":%q,"ai_response":{"data":%s},"customer_data":{"category":%q},"meta":{"provider":"openai","model":"gpt-4o","duration_ms":2341}%s}`,
			sampleEvent, channel(seq), sampleData, sampleCategory, callback)
		header := http.Header{}
		if err := modelriver.Sign(header, "body", secret, time.Now(), []byte(body)); err != nil {
			panic(err) // the scheme is ours
		}
		headers = "mr-signature: " + header.Get(modelriver.HeaderSignature) + "\r\n"
	case kindPlain, kindAsk:
		path = "/api/collections/" + map[string]string{kindPlain: plainCollection, kindAsk: "aiRequests"}[kind] + "/records"
		body = fmt.Sprintf(`{"workflow":"story","input":{"messages":[{"role":"user","content":%q}]}}`, sampleDescription+" "+channel(seq))
	}
	if token != "" {
		headers += "Authorization: " + token + "\r\n"
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", path, addr, headers, len(body), body)
}

// sameJSON reports whether two texts are the same JSON, the digits of numbers aside: a
// pb_hooks script rounds them.
func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

package simulator

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// samplePayload is what send posts by itself.
//
//go:embed sample.json
var samplePayload []byte

// contentJSON is what the simulator's AI answers, in turn.
//
//go:embed content.json
var contentJSON []byte

type content struct {
	Workflow string
	Category string
	Provider string
	Model    string
	Data     json.RawMessage
}

var contents = sync.OnceValue(func() []content {
	var all []content
	if err := json.Unmarshal(contentJSON, &all); err != nil {
		panic(err)
	}
	return all
})

// contentPayload is a payload with the i-th content, as send posts it.
func contentPayload(i int) []byte {
	c := contents()[i%len(contents())]
	return fmt.Appendf(nil,
		`{"type":"task.ai_generated","event":"new_content","ai_response":{"data":%s},"callback_required":true,"customer_data":{"category":%s},"meta":{"provider":%s,"model":%s}}`,
		compactJSON(c.Data), rawjson.String(c.Category), rawjson.String(c.Provider), rawjson.String(c.Model))
}

// summary is what the AI's answer is about, in a few words.
func (c content) summary() string {
	event, err := modelriver.ParseEvent(http.Header{}, fmt.Appendf(nil, `{"ai_response":{"data":%s}}`, c.Data))
	if err != nil {
		return ""
	}
	if event.Title != "" {
		return excerpt([]byte(event.Title))
	}
	return excerpt([]byte(event.Body))
}

// excerpt is the beginning of some text, on one line.
func excerpt(text []byte) string {
	s := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "\uFFFD")), " "))
	if len(s) > 45 {
		return string(s[:44]) + "…"
	}
	return string(s)
}

func compactJSON(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return raw
	}
	return b.Bytes()
}

package hooks

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Bounds of what is kept of a webhook's headers, which nobody has signed.
const (
	maxHeaders     = 32
	maxHeaderName  = 100
	maxHeaderValue = 1 << 10
)

// keep returns what is to be kept of a webhook, or nil if nothing is.
func (p *plugin) keep(header http.Header, payload []byte, scheme string) *store.Payload {
	if p.config.PayloadRetention == KeepNoPayloads {
		return nil
	}
	return &store.Payload{Payload: payload, Headers: keptHeaders(header), Scheme: scheme}
}

// keptHeaders returns the headers that tell something of the webhook, as a JSON object, in
// the spelling that ModelRiver documents. Of a signature only so much stays that it can be
// told from another.
func keptHeaders(header http.Header) string {
	object, n := []byte("{"), 0
	for _, name := range slices.Sorted(maps.Keys(header)) {
		spelled, ok := spellHeader(name)
		if !ok || len(name) > maxHeaderName {
			continue
		}
		value := clean(strings.Join(header[name], ", "))
		if strings.Contains(strings.ToLower(name), "signature") {
			value = shorten(value, 8)
		}
		if n > 0 {
			object = append(object, ',')
		}
		object = append(append(object, rawjson.String(spelled)...), ':')
		object = append(object, rawjson.String(shorten(value, maxHeaderValue))...)
		if n++; n == maxHeaders {
			break
		}
	}
	return string(append(object, '}'))
}

func spellHeader(name string) (spelled string, kept bool) {
	if rest, ok := strings.CutPrefix(name, "X-Modelriver-"); ok {
		return "X-ModelRiver-" + rest, true
	}
	if strings.HasPrefix(name, "Mr-") {
		return strings.ToLower(name), true
	}
	return name, name == "Content-Type" || name == "User-Agent"
}

// shorten cuts s at a number of bytes, between characters, and says so.
func shorten(s string, length int) string {
	if len(s) <= length {
		return s
	}
	return strings.ToValidUTF8(s[:length], "") + "…"
}

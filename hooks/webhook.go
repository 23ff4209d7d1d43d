package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/router"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// bodyTimeout is how long a webhook may take to arrive; ModelRiver gives up after as
// long.
const bodyTimeout = 30 * time.Second

// retryAfter is what a webhook that can't be stored now is told to wait, in seconds.
const retryAfter = 5

// handleWebhook reads, verifies, parses, ingests and answers. It answers an error
// itself instead of returning it, so that junk from outside writes no log rows.
func (p *plugin) handleWebhook(e *core.RequestEvent) error {
	// Until the body has been read, an answer ends the connection: PocketBase closes the
	// body in a way that net/http takes for read, and the rest of it for the next request.
	e.Response.Header().Set("Connection", "close")
	switch {
	case !p.outbox.Leads():
		return unavailable(e, notLeading)
	case p.verifier == nil:
		p.reject(e, store.RejectedNoSecret, "no webhook secret is configured, so each is answered 503", remedySecret)
		return unavailable(e, "No webhook secret is configured")
	case p.stopping.Load():
		return unavailable(e, "The server is shutting down")
	}
	if encoding := e.Request.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		p.reject(e, store.RejectedCompressed, "the body is compressed", "ModelRiver signs and sends it plain: have the proxy on the way leave it so")
		return answerError(e, http.StatusUnsupportedMediaType, "Unsupported Content-Encoding")
	}

	payload, err := p.readPayload(e)
	if errors.Is(err, errTooLarge) {
		p.reject(e, store.RejectedTooLarge, fmt.Sprintf("larger than %d bytes", p.config.MaxBodySize), "have the workflow answer with less, or set Config.MaxBodySize")
		return answerError(e, http.StatusRequestEntityTooLarge, "Payload too large")
	}
	if err != nil {
		return answerError(e, http.StatusBadRequest, "The body could not be read")
	}
	e.Response.Header().Del("Connection")
	e.Request.ContentLength = int64(len(payload)) // which a chunked body does not say before

	scheme, err := p.verifier.VerifyScheme(e.Request.Header, payload)
	if err != nil {
		p.rejectSigned(e, err)
		return answerError(e, http.StatusUnauthorized, "Invalid signature")
	}
	came := payload
	payload = bytes.TrimPrefix(payload, []byte("\ufeff")) // signed, but no JSON
	event, err := modelriver.ParseEvent(e.Request.Header, payload)
	if err != nil {
		e.App.Logger().Warn("A signed webhook is not a JSON object", "error", err)
		p.reject(e, store.RejectedNotJSON, err.Error(), remedyNotJSON)
		return answerError(e, http.StatusBadRequest, "Invalid JSON")
	}
	if !event.Stores() && !event.LacksData() {
		if err := p.failRequest(event, payload); err != nil {
			return p.unavailableNow(e, event, err)
		}
		e.App.Logger().Info("Ignored a webhook without AI data: it has none in ai_response or data", "type", event.Type, "event", event.Name, "channelId", event.ChannelID)
		return p.acknowledge(e, event)
	}

	if err := p.schema.Problem(); err != nil {
		p.reject(e, store.RejectedSchema, err.Error(), remedySchema)
		return unavailable(e, err.Error())
	}
	if err := p.ingest(event, payload, p.keep(e.Request.Header, came, scheme)); err != nil {
		return p.unavailableNow(e, event, err)
	}
	return p.acknowledge(e, event)
}

// acknowledge answers 200 for what is stored, which a duplicate and a refused event rest on too:
// the replica may lack what was stored when they came first.
func (p *plugin) acknowledge(e *core.RequestEvent, event *modelriver.Event) error {
	if err := p.recovery.Wait(e.Request.Context()); err != nil {
		e.App.Logger().Error("The replica does not have a webhook yet: ModelRiver sends it again", "error", err, "channelId", event.ChannelID)
		p.reject(e, store.RejectedReplica, err.Error(), remedyReplica)
		return unavailable(e, "The replica cannot take this now")
	}
	return answer(e, http.StatusOK, `{"received":true}`)
}

// notLeading is what is answered to who writes to a node that does not lead.
const notLeading = "This node does not lead now"

// unavailableNow answers a webhook that could not be ingested, and comes again.
func (p *plugin) unavailableNow(e *core.RequestEvent, event *modelriver.Event, err error) error {
	if errors.Is(err, errUndecided) {
		e.App.Logger().Info("A webhook came before it was known whose it is: ModelRiver sends it again", "channelId", event.ChannelID)
		return unavailable(e, errUndecided.Error())
	}
	if !p.outbox.Leads() { // any more
		e.App.Logger().Info("A webhook came when this node ceased to lead: ModelRiver sends it again", "error", err, "channelId", event.ChannelID)
		return unavailable(e, notLeading)
	}
	e.App.Logger().Error("Failed to store a webhook: ModelRiver sends it again", "error", err, "channelId", event.ChannelID)
	p.reject(e, store.RejectedDatabase, err.Error(), remedyDatabase)
	return unavailable(e, "The database cannot store this now")
}

var errTooLarge = errors.New("payload too large")

// readPayload reads the body once, within its limits of size and time.
func (p *plugin) readPayload(e *core.RequestEvent) ([]byte, error) {
	// Not every ResponseWriter has a deadline; a real connection does.
	controller := http.NewResponseController(e.Response)
	_ = controller.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer controller.SetReadDeadline(time.Time{})

	body := io.Reader(e.Request.Body)
	if rereadable, ok := body.(*router.RereadableReadCloser); ok {
		body = rereadable.ReadCloser // nobody reads it again: no copy of it is needed
	}
	limit, length := p.config.MaxBodySize, e.Request.ContentLength
	if length <= limit {
		// Memory is taken as the body arrives, not as its sender announces it.
		var payload bytes.Buffer
		payload.Grow(int(min(max(length, 0), 64<<10)) + bytes.MinRead)
		n, err := payload.ReadFrom(io.LimitReader(body, limit+1))
		if err != nil || n <= limit {
			return payload.Bytes(), err
		}
	}
	// A sender that is cut off while it writes never sees why, so let it come to its
	// end, up to what PocketBase would read of any request.
	_, _ = io.CopyN(io.Discard, body, apis.DefaultMaxBodySize)
	return nil, errTooLarge
}

func methodNotAllowed(e *core.RequestEvent) error {
	e.Response.Header().Set("Allow", http.MethodPost)
	return answerError(e, http.StatusMethodNotAllowed, "Method not allowed: ModelRiver posts its webhooks here")
}

func unavailable(e *core.RequestEvent, message string) error {
	setRetryAfter(e)
	return answerError(e, http.StatusServiceUnavailable, message)
}

func setRetryAfter(e *core.RequestEvent) {
	e.Response.Header().Set("Retry-After", strconv.Itoa(retryAfter))
}

func answerError(e *core.RequestEvent, status int, message string) error {
	return answer(e, status, `{"error":`+string(rawjson.String(message))+`}`)
}

func answer(e *core.RequestEvent, status int, body string) error {
	return e.Blob(status, "application/json", []byte(body))
}

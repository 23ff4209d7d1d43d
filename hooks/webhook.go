package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
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
	case p.verifier == nil:
		p.rejected.add(e.App, "no webhook secret is configured, so each is answered 503", remedySecret)
		return unavailable(e, "No webhook secret is configured")
	case p.stopping.Load():
		return unavailable(e, "The server is shutting down")
	}
	if encoding := e.Request.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		p.rejected.add(e.App, "the body is compressed", "ModelRiver signs and sends it plain: have the proxy on the way leave it so")
		return answerError(e, http.StatusUnsupportedMediaType, "Unsupported Content-Encoding")
	}

	payload, err := p.readPayload(e)
	if errors.Is(err, errTooLarge) {
		p.rejected.add(e.App, fmt.Sprintf("larger than %d bytes", p.config.MaxBodySize), "have the workflow answer with less, or set Config.MaxBodySize")
		return answerError(e, http.StatusRequestEntityTooLarge, "Payload too large")
	}
	if err != nil {
		return answerError(e, http.StatusBadRequest, "The body could not be read")
	}
	e.Response.Header().Del("Connection")

	if err := p.verifier.Verify(e.Request.Header, payload); err != nil {
		p.rejected.add(e.App, err.Error(), p.signatureRemedy(err))
		return answerError(e, http.StatusUnauthorized, "Invalid signature")
	}
	payload = bytes.TrimPrefix(payload, []byte("\ufeff")) // signed, but no JSON
	event, err := modelriver.ParseEvent(e.Request.Header, payload)
	if err != nil {
		e.App.Logger().Warn("A signed webhook is not a JSON object", "error", err)
		return answerError(e, http.StatusBadRequest, "Invalid JSON")
	}
	if !event.Stores() && !event.LacksData() {
		e.App.Logger().Info("Ignored a webhook without AI data: it has none in ai_response or data", "type", event.Type, "event", event.Name, "channelId", event.ChannelID)
		return answer(e, http.StatusOK, `{"received":true}`)
	}

	if reason := p.schemaErr.Load(); reason != nil {
		return unavailable(e, (*reason).Error())
	}
	if err := p.ingest(event, payload); err != nil {
		e.App.Logger().Error("Failed to store a webhook: ModelRiver sends it again", "error", err, "channelId", event.ChannelID)
		return unavailable(e, "The database cannot store this now")
	}
	return answer(e, http.StatusOK, `{"received":true}`)
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
	e.Response.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	return answerError(e, http.StatusServiceUnavailable, message)
}

func answerError(e *core.RequestEvent, status int, message string) error {
	return answer(e, status, `{"error":`+string(rawjson.String(message))+`}`)
}

func answer(e *core.RequestEvent, status int, body string) error {
	return e.Blob(status, "application/json", []byte(body))
}

const remedySecret = "set MODELRIVER_WEBHOOK_SECRET (Config.WebhookSecrets) to the signing secret that ModelRiver's console shows for this webhook, and restart"

func (p *plugin) signatureRemedy(err error) string {
	switch {
	case errors.Is(err, modelriver.ErrMissingSignature):
		return "ModelRiver signs each: this came from elsewhere, or a proxy dropped the header"
	case errors.Is(err, modelriver.ErrTimestamp):
		return "set this machine's clock, or allow more by Config.Tolerance"
	case slices.ContainsFunc(p.config.WebhookSecrets, inQuotes):
		return "MODELRIVER_WEBHOOK_SECRET (Config.WebhookSecrets) is in quotes, and they count as a part of it: write it without them, and restart"
	}
	return remedySecret + "; \"modelriver doctor --url\" tells whether something on the way changes the body"
}

// rejected is what is told of webhooks that were answered with an error unread.
type rejected struct {
	Count  int            `json:"count" db:"count"`
	Last   types.DateTime `json:"last" db:"last"`
	Reason string         `json:"reason" db:"reason"` // of the last one
	Remedy string         `json:"remedy" db:"remedy"`
}

// rejections counts rejected webhooks. Log and terminal tell of the first one at once,
// and then, as often as every says, of those that came since, so that junk from outside
// writes no line for each.
type rejections struct {
	every time.Duration

	mu    sync.Mutex
	all   rejected // since the start
	told  int      // of them
	timer *time.Timer
}

const rejectedMessage = "Rejected ModelRiver webhooks"

func (r *rejections) add(app core.App, reason, remedy string) {
	r.mu.Lock()
	r.all = rejected{r.all.Count + 1, types.NowDateTime(), reason, remedy}
	first := r.timer == nil
	if first {
		r.timer = time.AfterFunc(r.every, func() { r.tell(app) })
	}
	r.mu.Unlock()
	if first {
		r.tell(app)
	}
}

// tell tells of what was not told yet. If there is nothing, the next one is told at once.
func (r *rejections) tell(app core.App) {
	r.mu.Lock()
	all, n := r.all, r.all.Count-r.told
	r.told = all.Count
	switch {
	case n == 0:
		r.timer = nil
	case r.timer != nil:
		r.timer.Reset(r.every)
	}
	if n > 0 {
		app.Logger().Warn(rejectedMessage, "error", all.Reason, "remedy", all.Remedy, "count", n)
	}
	r.mu.Unlock()
	if n > 0 {
		fmt.Fprintf(os.Stderr, "Rejected %s, the last because: %s. Remedy: %s.\n", count(n, "ModelRiver webhook"), all.Reason, all.Remedy)
	}
}

// stop tells what is left.
func (r *rejections) stop(app core.App) {
	r.mu.Lock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.mu.Unlock()
	r.tell(app)
}

// recent is what was rejected since the start, if any was in the last day.
func (r *rejections) recent() rejected {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.all.Last.Time()) > 24*time.Hour {
		return rejected{}
	}
	return r.all
}

// readRejected reads from the log, which other processes write too, what was rejected
// since. It returns nil if the log is not kept.
func readRejected(app core.App, since time.Time) (*rejected, error) {
	if logs := app.Settings().Logs; logs.MaxDays == 0 || logs.MinLevel > int(slog.LevelWarn) {
		return nil, nil
	}
	// Beside MAX, SQLite takes the other columns from the row that has it.
	result := &rejected{}
	err := app.AuxConcurrentDB().NewQuery(`
		SELECT COALESCE(SUM(json_extract(data, '$.count')), 0) AS count, COALESCE(MAX(created), '') AS last,
			COALESCE(json_extract(data, '$.error'), '') AS reason, COALESCE(json_extract(data, '$.remedy'), '') AS remedy
		FROM _logs WHERE message = {:message} AND created >= {:since}`,
	).Bind(dbx.Params{"message": rejectedMessage, "since": dateTime(since)}).One(result)
	return result, err
}

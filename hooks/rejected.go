package hooks

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/cli"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const (
	remedySecret   = "set MODELRIVER_WEBHOOK_SECRET (Config.WebhookSecrets) to the signing secret that ModelRiver's console shows for this webhook, and restart"
	remedySchema   = "ModelRiver sends each again: mend the collection in the dashboard, or restore a backup"
	remedyDatabase = "ModelRiver sends each again: make room if the disk is full, and see that the data directory can be written"
	remedyReplica  = "ModelRiver sends each again: see that the store of REPLICA_URL can be reached and written; \"modelriver doctor\" tries it"
	remedyNotJSON  = "it is signed, so it came from who has the secret: ModelRiver sends JSON objects"
)

func (p *plugin) signatureRemedy(err error) string {
	switch {
	case errors.Is(err, modelriver.ErrMissingSignature):
		return "ModelRiver signs each: this came from elsewhere, or a proxy dropped the header"
	case errors.Is(err, modelriver.ErrTimestamp):
		return "set this machine's clock, or allow more by Config.Tolerance"
	case slices.ContainsFunc(p.config.WebhookSecrets, cli.InQuotes):
		return "MODELRIVER_WEBHOOK_SECRET (Config.WebhookSecrets) is in quotes, and they count as a part of it: write it without them, and restart"
	}
	return remedySecret + "; \"modelriver doctor --url\" tells whether something on the way changes the body"
}

// Texts of rejections are cut at these numbers of characters.
const (
	maxUserAgent = 200
	maxFrom      = 64
	maxError     = 500
)

// A rejection is one webhook that was answered with an error unread.
type rejection struct {
	At        types.DateTime `json:"at"`
	Reason    string         `json:"reason"` // one of [store.RejectedFor]
	Error     string         `json:"error"`
	Remedy    string         `json:"remedy"`
	From      string         `json:"from"`   // the address that sent it
	Scheme    string         `json:"scheme"` // whose headers it has; empty if none
	Size      int64          `json:"size"`   // of its body in bytes, 0 if it says none
	UserAgent string         `json:"userAgent"`
}

// reject counts a webhook that is answered with an error unread. Whatever of it is kept is
// cut, as anybody may send anything.
func (p *plugin) reject(e *core.RequestEvent, reason, cause, remedy string) {
	p.rejected.add(e.App, rejection{
		At: store.DateTime(p.outbox.Now()), Reason: reason, Error: printable(cause, maxError), Remedy: remedy,
		From: printable(e.RealIP(), maxFrom), Scheme: schemeTried(e.Request.Header),
		Size: max(e.Request.ContentLength, 0), UserAgent: printable(e.Request.UserAgent(), maxUserAgent),
	})
}

// rejectSigned counts a webhook whose signature is not accepted.
func (p *plugin) rejectSigned(e *core.RequestEvent, err error) {
	reason := store.RejectedSignature
	switch {
	case errors.Is(err, modelriver.ErrMissingSignature):
		reason = store.RejectedUnsigned
	case errors.Is(err, modelriver.ErrTimestamp):
		reason = store.RejectedStale
	}
	p.reject(e, reason, err.Error(), p.signatureRemedy(err))
}

// schemeTried returns the scheme whose signature header is there: timestamped-body has that of
// data.
func schemeTried(header http.Header) string {
	switch {
	case header.Get(modelriver.HeaderSignature) != "":
		return "body"
	case header.Get(modelriver.HeaderXSignature) != "":
		return "data"
	}
	return ""
}

// printable returns the beginning of a text, without what is not meant to be seen: control
// characters, marks that turn the direction of writing, broken UTF-8.
func printable(text string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n == limit {
			break
		}
		if r != unicode.ReplacementChar && unicode.IsPrint(r) {
			b.WriteRune(r)
			n++
		}
	}
	return b.String()
}

// handleRejections answers with what was rejected: counts, of all servers of this data since
// they count, and the latest of this process.
func (p *plugin) handleRejections(e *core.RequestEvent) error {
	now := p.outbox.Now()
	since, err := p.readSince(e)
	if err != nil {
		return err
	}
	var figures store.Rejected
	var reasons []store.RejectedReason
	err = p.rejected.withUnwritten(func(unwritten []store.Rejection) (err error) {
		if figures, err = store.ReadRejected(e.App, now, since, unwritten); err != nil {
			return err
		}
		reasons, err = store.ReadRejectedReasons(e.App, now.Add(-day), unwritten)
		return err
	})
	if err != nil {
		return e.InternalServerError("The figures of rejected webhooks could not be read.", err)
	}
	return e.JSON(http.StatusOK, map[string]any{
		"lastHour": figures.LastHour, "today": figures.Today, "reasons": reasons, "latest": p.rejected.newestFirst(),
	})
}

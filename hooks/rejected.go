package hooks

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/cli"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const remedySecret = "set MODELRIVER_WEBHOOK_SECRET (Config.WebhookSecrets) to the signing secret that ModelRiver's console shows for this webhook, and restart"

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

// rejections counts rejected webhooks. Log and terminal tell of the first one at once,
// and then, as often as every says, of those that came since, so that junk from outside
// writes no line for each.
type rejections struct {
	every time.Duration

	mu    sync.Mutex
	all   store.Rejected // since the start
	told  int            // of them
	timer *time.Timer
}

func (r *rejections) add(app core.App, reason, remedy string) {
	r.mu.Lock()
	r.all = store.Rejected{Count: r.all.Count + 1, Last: types.NowDateTime(), Reason: reason, Remedy: remedy}
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
		app.Logger().Warn(store.RejectedMessage, "error", all.Reason, "remedy", all.Remedy, "count", n)
	}
	r.mu.Unlock()
	if n > 0 {
		fmt.Fprintf(os.Stderr, "Rejected %s, the last because: %s. Remedy: %s.\n", english.Plural(n, "ModelRiver webhook", ""), all.Reason, all.Remedy)
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
func (r *rejections) recent() store.Rejected {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.all.Last.Time()) > 24*time.Hour {
		return store.Rejected{}
	}
	return r.all
}

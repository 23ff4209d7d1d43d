package outbox

import (
	"context"
	"encoding/json"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/routine"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// ask sends a claimed request and writes down what became of it.
func (o *Outbox) ask(ctx context.Context, request *core.Record, began time.Time) {
	defer o.notAsking(request.Id, began)
	attempts, expires := request.GetInt("attempts"), request.GetDateTime("expires").Time()
	asked, unfit := o.postRequest(ctx, request)
	now := o.Now()
	f := judgeAsked(asked, attempts, expires.Sub(now), now, jitter())
	if unfit != nil {
		f = fate{state: store.Failed, reason: reasonUnfit}
	}
	o.logFate(request.Id, asked, f)
	o.writeFate(ctx, request, asked.ChannelID, f)
}

// postRequest posts the request once.
func (o *Outbox) postRequest(ctx context.Context, request *core.Record) (asked modelriver.Asked, unfit error) {
	body, err := modelriver.RequestBody(request.GetString("workflow"), json.RawMessage(request.GetString("input")),
		request.Id, request.GetString("userId"))
	if err != nil {
		return asked, err
	}
	err = routine.SafeWrap(func() error { // the client may be the app's own
		asked = o.client.Ask(ctx, body)
		return nil
	})()
	if err != nil {
		asked = modelriver.Asked{Written: true, Err: err}
	}
	return asked, nil
}

func (o *Outbox) logFate(id string, asked modelriver.Asked, f fate) {
	details := []any{"request", id, "status", asked.Status}
	if asked.Err != nil {
		details = append(details, "error", asked.Err)
	} else if asked.Message != "" {
		details = append(details, "error", asked.Message)
	}
	switch f.state {
	case store.Queued:
		o.app.Logger().Warn("ModelRiver took no request now: it is sent again", append(details, "next", f.next)...)
	case store.Failed:
		if f.remedy != "" {
			details = append(details, "remedy", o.options.InWords(f.remedy))
		}
		o.app.Logger().Error("Request failed: "+f.reason, details...)
	}
}

// writeFate writes down what became of a request, however long that takes: until then, or
// until the server ends, its answer can't be told from another's. If this node leads no more, the
// one that does has ended it, as after a crash.
func (o *Outbox) writeFate(ctx context.Context, claimed *core.Record, channelId string, f fate) {
	for delay := time.Second; ; delay = min(2*delay, 10*time.Second) {
		err := o.commits.Do(func(tx core.App) error { return o.applyFate(tx, claimed, channelId, f) })
		if err == nil {
			break
		}
		if !o.leads() {
			o.app.Logger().Warn("What became of a request can't be written down, as this node leads no more: the one that does ends it", "error", err, "request", claimed.Id)
			return
		}
		o.app.Logger().Error("Failed to write down what became of a request: it is tried again", "error", err, "request", claimed.Id)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
	if f.state == store.Queued {
		o.wakeAt(&o.asking.loop, f.next)
	}
}

// applyFate changes the request, unless it was ended or armed again meanwhile.
func (o *Outbox) applyFate(tx core.App, claimed *core.Record, channelId string, f fate) error {
	if f.state == store.Sent {
		return store.SentRequest(tx, claimed, channelId, o.Now())
	}
	request, err := store.FindRequest(tx, claimed.Id)
	if err != nil {
		return err
	}
	if request == nil || !store.IsAttempt(request, claimed) || !isSending(request) {
		return o.applyToEnded(tx, request, claimed, f)
	}
	if f.state == store.Queued {
		return store.PostponeRequest(tx, request, f.next)
	}
	if channelId != "" { // beside an error: an answer would be this user's
		request.Set("channelId", channelId)
	}
	until := time.Time{}
	if f.open {
		until = o.Now().Add(store.ReplayTime)
	}
	return store.EndRequest(tx, request, f.reason, until)
}

// applyToEnded notes of a request that was deleted or ended by hand while it was sent, nil if
// it is gone, whether its answer may still come.
func (o *Outbox) applyToEnded(tx core.App, request, claimed *core.Record, f fate) error {
	switch {
	case request == nil && !f.open:
		return store.ForgetOpen(tx, claimed.Id)
	case request == nil || request.GetString("state") != store.Failed || request.GetString("channelId") != "" || !store.IsAttempt(request, claimed):
		return nil
	}
	until := time.Time{}
	if f.open {
		until = o.Now().Add(store.ReplayTime)
	}
	return store.EndRequest(tx, request, request.GetString("error"), until)
}

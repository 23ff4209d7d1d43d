package outbox

import (
	"slices"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// What the user of a request reads that an operator cancelled.
const (
	reasonCancelled     = "The operator of this server cancelled the request before ModelRiver took it."
	reasonCancelledSent = "The operator of this server cancelled the request after it was sent. If an answer comes, it is shown."
)

// outcomeFields tell, beside the state, what became of a request.
var outcomeFields = []string{"attempts", "nextAttempt", "expires", "channelId", "record", "error"}

// edited makes complete what somebody changed, in the dashboard, by a command or by a hook.
func (o *Outbox) edited(e *core.RecordEvent) error {
	return store.Edit(e, func(tx core.App) error { return o.editRequest(tx, e.Record) })
}

// editRequest has a request cancelled that somebody set to failed, and one asked again that
// somebody set back to queued. Who repeats beside that what was true once, as PocketBase's
// form does with all fields that it had loaded, saves only what says nothing of the outcome:
// else what was sent would be sent again.
func (o *Outbox) editRequest(tx core.App, request *core.Record) error {
	before, err := store.FindRequest(tx, request.Id)
	if err != nil || before == nil {
		return err
	}
	loaded, is, was := request.Original(), request.GetString("state"), before.GetString("state")
	switch {
	case is == store.Failed && loaded.GetString("state") != is && (was == store.Queued || was == store.Sent):
		o.cancelRequest(request, before)
	case isSending(before), was != loaded.GetString("state"), differ(loaded, before),
		was == store.Answered && is != was && is != store.Queued,
		is == store.Queued && was != is && differ(request, before):
		keepOutcome(request, before)
	case is == store.Queued && was != is:
		if err := o.keepChannel(tx, before); err != nil { // of what was asked before
			return err
		}
		o.queue(request)
	default:
		keepAttempt(request, before)
	}
	return nil
}

// keepAttempt is keepOutcome, but for what may be edited: the error, and the record, which
// PocketBase empties when the answer is deleted.
func keepAttempt(request, before *core.Record) {
	record, reason := request.GetString("record"), request.GetString("error")
	keepOutcome(request, before)
	request.Set("error", reason)
	if record == "" {
		request.Set("record", "")
	}
}

// cancelRequest ends the request, which is still open before. What was sent can't be unsent: an answer
// that comes all the same completes it, as that of any failed request.
func (o *Outbox) cancelRequest(request, before *core.Record) {
	reason := request.GetString("error")
	keepOutcome(request, before)
	request.Set("state", store.Failed)
	request.Set("nextAttempt", "")
	request.Set("expires", "")
	if isSending(before) { // until the attempt ends, nobody knows what becomes of it
		request.Set("expires", store.DateTime(o.Now().Add(store.ReplayTime)))
	}
	switch {
	case reason != "":
	case isSending(before), before.GetString("state") == store.Sent:
		reason = reasonCancelledSent
	default:
		reason = reasonCancelled
	}
	request.Set("error", reason)
}

func keepOutcome(request, before *core.Record) {
	request.Set("state", before.GetString("state"))
	for _, name := range outcomeFields {
		request.Set(name, before.Get(name))
	}
}

// differ reports whether the outcomes of a and b differ, beside their states.
func differ(a, b *core.Record) bool {
	return slices.ContainsFunc(outcomeFields, func(name string) bool { return a.GetString(name) != b.GetString(name) })
}

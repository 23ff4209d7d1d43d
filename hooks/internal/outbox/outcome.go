package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// deliver turns the callback's row delivered and gives its place back.
func (o *Outbox) deliver(cb *store.Callback, now time.Time, status int) {
	o.commit(func(tx core.App) error {
		return cb.Deliver(tx, now, status)
	}, func(err error) { o.written(cb, err) })
}

// postpone has the callback sent again at the given time.
func (o *Outbox) postpone(cb *store.Callback, status int, cause error, next time.Time) {
	o.commit(func(tx core.App) error {
		return cb.Postpone(tx, o.Now(), next, status, failure(cb, cause))
	}, func(err error) {
		o.written(cb, err)
		o.wakeAt(&o.callbacks, next)
	})
}

// giveUp turns the callback failed. That of a record ModelRiver is told by one error
// callback, as far as it can be reached; the row keeps both outcomes.
func (o *Outbox) giveUp(ctx context.Context, cb *store.Callback, v verdict) {
	if v.cause != nil && !notSent(v.cause) && o.silence(cb) == nil {
		message := "The record was stored, but its callback failed: " + v.cause.Error()
		_, err := o.post(ctx, cb, modelriver.ErrorCallbackBody(message), true)
		if errors.Is(err, errStopped) {
			o.release(cb)
			return
		}
		outcome := "accepted"
		if err != nil {
			outcome = err.Error()
		}
		v.set["lastError"] = failure(cb, v.cause) + errorCallback + outcome
	}
	o.fail(cb, v.set)
}

// fail turns the callback's row failed and gives its place back.
func (o *Outbox) fail(cb *store.Callback, set map[string]any) {
	if text, ok := set["lastError"].(string); ok {
		set["lastError"] = o.options.InWords(text)
	}
	o.app.Logger().Error("Callback failed", "error", set["lastError"], "callback", cb.Id, "attempt", cb.Attempts)
	o.commit(func(tx core.App) error {
		return cb.Fail(tx, set)
	}, func(err error) { o.written(cb, err) })
}

// reingest has the event of a refused row that was armed again stored.
func (o *Outbox) reingest(cb *store.Callback, payload string) {
	at, began := o.Now(), time.Now()
	o.commit(func(tx core.App) error {
		return o.options.Reingest(tx, cb, payload)
	}, func(err error) {
		var refused *store.Refusal
		if errors.As(err, &refused) {
			cb.Note(at, time.Since(began), store.Attempt{Error: refused.Error()})
			o.fail(cb, map[string]any{"lastError": refused.Error()})
			return
		}
		if err != nil {
			o.app.Logger().Warn("Failed to ingest a refused event again: it is tried when its lease ends", "error", err, "callback", cb.Id)
		}
		o.release(cb)
		o.Wake() // the row is a new callback now
	})
}

// commit adds a write that Stop waits for.
func (o *Outbox) commit(run func(tx core.App) error, done func(err error)) {
	o.senders.Add(1)
	o.commits.Add(&commit.Write{Run: run, Done: func(err error) {
		defer o.senders.Done()
		done(err)
	}})
}

// written ends an attempt. If its outcome could not be written down, the lease ends
// and the callback is sent again.
func (o *Outbox) written(cb *store.Callback, err error) {
	if err != nil {
		o.app.Logger().Error("Failed to store the outcome of a callback: it is sent again", "error", err, "callback", cb.Id)
	}
	o.release(cb)
}

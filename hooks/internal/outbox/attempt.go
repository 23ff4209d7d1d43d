package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// attempt sends a claimed callback once and has the outcome written to its row, which
// gives its place back.
func (o *Outbox) attempt(ctx context.Context, cb *store.Callback) {
	payload, err := o.readBody(cb)
	if err != nil {
		o.app.Logger().Warn("Failed to read a callback: it is sent when its lease ends", "error", err, "callback", cb.Id)
		o.release(cb)
		return
	}
	switch {
	case cb.Refused && payload == "": // another delivery was stored since
		o.release(cb)
		o.Wake()
		return
	case cb.Refused && len(cb.Body) == 0:
		o.reingest(cb, payload)
		return
	}

	status, err := o.try(ctx, cb)
	if errors.Is(err, errStopped) || !o.leads() {
		o.release(cb) // the row brings it back
		return
	}
	now := o.Now()
	switch v := judge(cb, status, err, now, jitter()); v.state {
	case store.Delivered:
		o.deliver(cb, now, status)
	case store.Pending:
		o.app.Logger().Warn("Callback attempt failed", "error", err, "callback", cb.Id, "attempt", cb.Attempts, "next", v.next)
		o.postpone(cb, status, err, v.next)
	default:
		o.giveUp(ctx, cb, v)
	}
}

// try posts the callback, unless that is known to be in vain.
func (o *Outbox) try(ctx context.Context, cb *store.Callback) (status int, err error) {
	if cb.Refused && cb.URL == "" {
		return 0, errNoURL
	}
	if err := o.inVain(cb); err != nil {
		cb.Note(o.Now(), 0, store.Attempt{Error: o.options.InWords(err.Error()), ErrorCallback: cb.Refused})
		return 0, err
	}
	return o.post(ctx, cb, cb.Body, cb.Refused)
}

// inVain returns why a callback need not be posted.
func (o *Outbox) inVain(cb *store.Callback) error {
	if !o.options.Keyed && cb.Host != "" {
		return errNoKey
	}
	if err := o.silence(cb); err != nil && cb.Expires.Time().Before(o.Now()) {
		return err
	}
	return nil
}

// post sends a body to the callback's URL, and notes the attempt.
func (o *Outbox) post(ctx context.Context, cb *store.Callback, body []byte, errorCallback bool) (status int, err error) {
	at, began := o.Now(), time.Now()
	answer, err := o.client.PostCallback(ctx, cb.URL, body)
	if err != nil && ctx.Err() != nil {
		return 0, errStopped
	}
	cb.Note(at, time.Since(began), store.Attempt{
		Status: answer.Status, Error: o.options.InWords(problem(err)), Answer: answer.Body, ErrorCallback: errorCallback,
	})
	o.noteAnswer(cb, answer.Status, err)
	return answer.Status, err
}

// problem returns why an attempt failed, without the answer.
func problem(err error) string {
	var answered *modelriver.StatusError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &answered):
		return (&modelriver.StatusError{Code: answered.Code}).Error()
	}
	return err.Error()
}

// A verdict is what becomes of a callback after an attempt.
type verdict struct {
	state string         // delivered, failed, or pending still
	next  time.Time      // of one that is pending: when it is sent again
	set   map[string]any // of one that failed: what else its row says
	cause error          // of one that failed: what ModelRiver is told; nil if nothing
}

// judge decides what becomes of a callback after an attempt that ended now with status
// and err. jitter is what its delay is multiplied by.
func judge(cb *store.Callback, status int, err error, now time.Time, jitter float64) verdict {
	if err == nil && !cb.Refused {
		return verdict{state: store.Delivered}
	}
	if err == nil || errors.Is(err, errNoURL) { // the content of a refused event is still to be stored
		set := map[string]any{"lastStatus": status, "lastError": refusal(cb)}
		if err == nil {
			set["deliveredAt"] = store.DateTime(now) // of the error callback
		}
		return verdict{state: store.Failed, set: set}
	}
	var answered *modelriver.StatusError
	retryAfter := time.Duration(0)
	if errors.As(err, &answered) {
		retryAfter = answered.RetryAfter
	}
	delay, inWindow := nextDelay(cb.Attempts, retryAfter, cb.Expires.Time().Sub(now), jitter)
	if inWindow && modelriver.Retryable(err) && !errors.Is(err, errNoKey) {
		return verdict{state: store.Pending, next: now.Add(delay)}
	}

	v := verdict{state: store.Failed, set: map[string]any{}}
	if !cb.Refused {
		if errors.Is(err, modelriver.ErrCallbackHost) {
			err = fmt.Errorf("%w. Add it to MODELRIVER_CALLBACK_HOSTS if you trust it with the key, restart, and retry this callback", err)
		}
		v.cause = err
	}
	v.set["lastError"] = failure(cb, err)
	if !notSent(err) {
		v.set["lastStatus"] = status
	}
	return v
}

// readBody reads the callback's body if it is not in memory, and the payload of a
// refused event. If that is stored all the same, there is no body, so that it is told.
func (o *Outbox) readBody(cb *store.Callback) (payload string, err error) {
	if cb.Body != nil && !cb.Refused {
		return "", nil
	}
	var row struct {
		Body    string `db:"body"`
		Payload string `db:"payload"`
	}
	err = o.app.ConcurrentDB().NewQuery(`
		SELECT payload, CASE WHEN payload != '' AND EXISTS (SELECT 1 FROM aiContent WHERE id = {:id}) THEN '' ELSE body END AS body
		FROM modelriverCallbacks WHERE id = {:id}`,
	).Bind(dbx.Params{"id": cb.Id}).One(&row)
	cb.Body = []byte(row.Body)
	return row.Payload, err
}

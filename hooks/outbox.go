package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/routine"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// Bounds of the outbox, for each host on its own, so that one that hangs takes nothing
// from the others.
const (
	maxSending  = 16       // callbacks that are sent at the same time
	maxHeld     = 256      // callbacks in memory; more wait in the table
	maxHeldBody = 64 << 10 // a larger body is read when it is sent
)

const (
	// pollInterval is how often the table is read for what another process, such as
	// the retry command, has made due.
	pollInterval = 2 * time.Second

	// leaseMargin is how much longer than an attempt its lease is.
	leaseMargin = 10 * time.Second

	// stopGrace is how long Stop lets callbacks that are being sent come to an end.
	stopGrace = 2 * time.Second
)

// An outbox sends callbacks: new ones at once, from memory, and from the table what is
// due again. At least once: a crash after an accepted attempt, before that is written
// down, sends once more.
type outbox struct {
	app      core.App
	commits  *committer
	client   *modelriver.Client
	config   Config
	reingest func(tx core.App, cb *callback, payload string) error
	now      func() time.Time

	wake chan struct{}

	lifecycle sync.Mutex // held by Start and Stop
	cancel    context.CancelFunc
	ended     chan struct{} // closed when nothing is left of what the last Stop ended
	loop      sync.WaitGroup

	mu      sync.Mutex
	running bool
	ctx     context.Context // of the sends
	senders sync.WaitGroup  // and the writes of their outcomes
	lanes   map[string]*lane
	held    map[string]bool // ids of callbacks in memory
	next    time.Time       // when the loop wakes by itself
}

// A lane is the callbacks of one host that are in memory.
type lane struct {
	held       int
	sending    int
	waiting    []*callback
	unanswered int   // attempts in a row
	cause      error // of the last of them
}

func newOutbox(app core.App, commits *committer, client *modelriver.Client, config Config, reingest func(core.App, *callback, string) error) *outbox {
	return &outbox{
		app: app, commits: commits, client: client, config: config, reingest: reingest, now: time.Now,
		wake:  make(chan struct{}, 1),
		lanes: map[string]*lane{},
		held:  map[string]bool{},
	}
}

// Start begins to send, first what a crash cut off. It does nothing if the outbox runs.
func (o *outbox) Start() {
	o.lifecycle.Lock()
	defer o.lifecycle.Unlock()
	if o.cancel != nil {
		return
	}
	if o.ended != nil {
		<-o.ended // Stop may have left it waiting for the database
	}

	loopCtx, cancelLoop := context.WithCancel(context.Background())
	sendCtx, cancelSends := context.WithCancel(context.Background())
	o.mu.Lock()
	o.ctx = sendCtx
	o.mu.Unlock()
	o.loop.Go(func() { o.run(loopCtx) })

	o.cancel = func() {
		cancelLoop()
		o.mu.Lock()
		o.running = false
		for _, l := range o.lanes {
			for _, cb := range l.waiting { // their rows bring them back
				delete(o.held, cb.Id)
				l.held--
			}
			l.waiting = nil
		}
		o.mu.Unlock()

		// Sends come to an end, or are cut off; what they wrote is committed, unless the
		// database hangs, and with it the loop. Either way the rows say what is left to do.
		ended := make(chan struct{})
		o.ended = ended
		go func() {
			o.loop.Wait()
			o.senders.Wait()
			close(ended)
		}()
		grace := time.AfterFunc(stopGrace, cancelSends)
		select {
		case <-ended:
		case <-time.After(stopGrace + time.Second):
		}
		grace.Stop()
		cancelSends()
		o.client.CloseIdle()
	}
}

// Stop ends sending and returns when nothing of it is left, after a few seconds at
// most. What was not sent stays pending. It does nothing if the outbox does not run.
func (o *outbox) Stop() {
	o.lifecycle.Lock()
	defer o.lifecycle.Unlock()
	if o.cancel != nil {
		o.cancel()
		o.cancel = nil
	}
}

// Wake makes the outbox look at the table now. It never blocks.
func (o *outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// wakeAt makes the outbox look at the table at the given time, or earlier.
func (o *outbox) wakeAt(t time.Time) {
	o.mu.Lock()
	earlier := t.Before(o.next)
	o.mu.Unlock()
	if earlier {
		o.Wake()
	}
}

// run is only the loop; resume and runOnce do the work.
func (o *outbox) run(ctx context.Context) {
	resumed := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-timer.C:
		}

		var next time.Time
		err := routine.SafeWrap(func() (err error) {
			if !resumed {
				if err := o.resume(ctx); err != nil {
					return err
				}
				resumed = true
			}
			next, err = o.runOnce()
			return err
		})()
		if err != nil {
			o.app.Logger().Error("Failed to find or claim due callbacks", "error", err)
			select { // places given back because of the error must not wake us at once
			case <-o.wake:
			default:
			}
		}

		wait := pollInterval
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(o.now()), 10*time.Millisecond))
		}
		o.mu.Lock()
		o.next = o.now().Add(wait)
		o.mu.Unlock()
		timer.Reset(wait)
	}
}

// resume makes due what the last process left: a first attempt without an outcome was
// under way when it ended, or waits for a key, which there is now. Only then may this
// process claim callbacks of its own.
func (o *outbox) resume(ctx context.Context) error {
	now := dateTime(o.now())
	resumable := dbx.And(
		dbx.HashExp{"state": statePending, "attempts": []any{0, 1}, "lastStatus": 0},
		dbx.NewExp("nextAttempt > {:now} AND ({:keyed} OR host = '')", dbx.Params{"now": now, "keyed": o.config.APIKey != ""}),
	)
	err := o.commits.do(func(tx core.App) error {
		_, err := tx.NonconcurrentDB().Update(callbackCollection, dbx.Params{"attempts": 0, "nextAttempt": now}, resumable).Execute()
		return err
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = ctx.Err() == nil
	return nil
}

// runOnce claims the callbacks that are due, as many as there is room for, and hands
// them to the senders. It returns when the next one is due, or the zero time.
func (o *outbox) runOnce() (next time.Time, err error) {
	hosts, err := pendingHosts(o.app)
	if err != nil {
		return next, err
	}
	for _, host := range hosts {
		room := o.room(host)
		if room == 0 {
			continue // the sender that makes room wakes us
		}
		due, err := findDue(o.app, host, o.now(), max(o.config.CallbackWindow, o.lease()), room)
		if err != nil {
			return next, err
		}
		if err := o.claimAndSend(due); err != nil {
			return next, err
		}
		t, err := findNext(o.app, host, o.now())
		if err != nil {
			return next, err
		}
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next, nil
}

// claimAndSend leases those of the callbacks that are not in memory already.
func (o *outbox) claimAndSend(due []*callback) error {
	var taken []*callback
	for _, cb := range due {
		if o.waitsForKey(cb) {
			continue
		}
		if o.reserve(cb) {
			taken = append(taken, cb)
		}
	}
	if len(taken) == 0 {
		return nil
	}

	var claimed []bool
	err := o.commits.do(func(tx core.App) error {
		claimed = make([]bool, len(taken))
		now := o.now()
		for i, cb := range taken {
			ok, err := claim(tx, cb, now, now.Add(o.lease()))
			if err != nil {
				return err
			}
			claimed[i] = ok
		}
		return nil
	})
	for i, cb := range taken {
		if err != nil || !claimed[i] {
			o.release(cb)
			continue
		}
		cb.Attempts++
		o.send(cb)
	}
	return err
}

// waitsForKey reports whether the callback can't be sent for want of a key, and has
// time left in which one may be set.
func (o *outbox) waitsForKey(cb *callback) bool {
	return o.config.APIKey == "" && cb.Host != "" && o.now().Before(cb.Expires.Time())
}

func (o *outbox) lease() time.Duration { return o.config.CallbackTimeout + leaseMargin }

// room returns how many more callbacks to host may be in memory.
func (o *outbox) room(host string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.lanes[host]; l != nil {
		return maxHeld - l.held
	}
	return maxHeld
}

// reserve takes a place in memory for the callback: whoever gets it may claim the row,
// and must then call send or release. It returns false if there is no room, if the
// callback has a place already, or if the outbox does not run.
func (o *outbox) reserve(cb *callback) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.running || o.held[cb.Id] {
		return false
	}
	l := o.lanes[cb.Host]
	if l == nil {
		l = &lane{}
		o.lanes[cb.Host] = l
	}
	if l.held >= maxHeld {
		return false
	}
	l.held++
	o.held[cb.Id] = true
	return true
}

// release gives back the callback's place.
func (o *outbox) release(cb *callback) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[cb.Host]
	delete(o.held, cb.Id)
	l.held--
	if l.held == 0 && l.sending == 0 && l.unanswered == 0 {
		delete(o.lanes, cb.Host)
	}
	if l.held == maxHeld/2 { // the table may hold more
		o.Wake()
	}
}

// send hands a claimed callback to the senders of its host. If the outbox was stopped
// meanwhile, the callback's row brings it back.
func (o *outbox) send(cb *callback) {
	if len(cb.Body) > maxHeldBody {
		cb.Body = nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[cb.Host]
	if !o.running {
		delete(o.held, cb.Id)
		l.held--
		return
	}
	l.waiting = append(l.waiting, cb)
	if l.sending < maxSending {
		l.sending++
		ctx := o.ctx
		o.senders.Go(func() { o.drain(ctx, l) })
	}
}

// drain sends what waits in the lane until nothing does.
func (o *outbox) drain(ctx context.Context, l *lane) {
	for {
		o.mu.Lock()
		if len(l.waiting) == 0 {
			l.sending--
			o.mu.Unlock()
			return
		}
		cb := l.waiting[0]
		l.waiting = l.waiting[1:]
		o.mu.Unlock()

		err := routine.SafeWrap(func() error {
			o.attempt(ctx, cb)
			return nil
		})()
		if err != nil {
			o.app.Logger().Error("Failed to send a callback", "error", err, "callback", cb.Id)
			o.release(cb)
		}
	}
}

// attempt sends a claimed callback once and has the outcome written to its row, which
// gives its place back.
func (o *outbox) attempt(ctx context.Context, cb *callback) {
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
		o.ingestRefused(cb, payload)
		return
	}

	var status int
	silence := o.silence(cb)
	switch {
	case cb.Refused && cb.URL == "":
		err = errors.New("no callback URL")
	case o.config.APIKey == "" && cb.Host != "":
		err = errNoKey
	case cb.Expires.Time().Before(o.now()) && silence != nil:
		err = silence
	default:
		status, err = o.client.SendCallback(ctx, cb.URL, cb.Body)
		if err != nil && ctx.Err() != nil {
			o.release(cb) // stopped: the row brings it back
			return
		}
		o.heard(cb, status, err)
	}

	now := o.now()
	switch {
	case cb.Refused && (err == nil || !modelriver.Retryable(err) || cb.URL == ""):
		set := map[string]any{"lastStatus": status, "lastError": cb.refusal()}
		if err == nil {
			set["deliveredAt"] = dateTime(now) // of the error callback
		} else if cb.URL != "" {
			set = cb.failed(status, err)
		}
		o.fail(cb, set)

	case err == nil:
		o.deliver(cb, now, status)

	default:
		var answered *modelriver.StatusError
		retryAfter := time.Duration(0)
		if errors.As(err, &answered) {
			retryAfter = answered.RetryAfter
		}
		delay, ok := nextDelay(cb.Attempts, retryAfter, cb.Expires.Time().Sub(now))
		if ok && modelriver.Retryable(err) && !errors.Is(err, errNoKey) {
			o.app.Logger().Warn("Callback attempt failed", "error", err, "callback", cb.Id, "attempt", cb.Attempts, "next", now.Add(delay))
			o.retry(cb, status, err, now.Add(delay))
			return
		}
		if cb.Refused {
			o.fail(cb, cb.failed(status, err))
			return
		}
		o.giveUp(ctx, cb, status, err)
	}
}

var errNoKey = errors.New("no API key was set within the callback window: set MODELRIVER_API_KEY, restart, and retry this callback")

var errSilent = errors.New("no answer to the last callbacks to this host, and the callback window has ended")

// notSent reports whether err is why a callback was not even sent.
func notSent(err error) bool {
	return errors.Is(err, errNoKey) || errors.Is(err, errSilent) || errors.Is(err, modelriver.ErrCallbackHost)
}

// heard notes whether the callback's host answered.
func (o *outbox) heard(cb *callback, status int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[cb.Host]
	l.unanswered++
	l.cause = err
	if status != 0 || errors.Is(err, modelriver.ErrCallbackHost) {
		l.unanswered = 0
	}
}

// silence returns an error if as many attempts in a row as are made at the same time
// found the callback's host without an answer. A callback whose window has ended is
// tried once all the same, for only ModelRiver knows when its window began, but not if
// that means to wait for each of thousands.
func (o *outbox) silence(cb *callback) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[cb.Host]
	switch {
	case l.unanswered < maxSending:
		return nil
	case cb.lastFailure() == "": // the row itself has no cause
		return fmt.Errorf("%w: %w", errSilent, l.cause)
	}
	return errSilent
}

// readBody reads the callback's body if it is not in memory, and the payload of a
// refused event. If that is stored all the same, there is no body, so that it is told.
func (o *outbox) readBody(cb *callback) (payload string, err error) {
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

// giveUp turns a success callback failed. ModelRiver is told by one error callback, as
// far as it can be reached; the row keeps both outcomes.
func (o *outbox) giveUp(ctx context.Context, cb *callback, status int, cause error) {
	if errors.Is(cause, modelriver.ErrCallbackHost) {
		cause = fmt.Errorf("%w. Add it to MODELRIVER_CALLBACK_HOSTS if you trust it with the key, restart, and retry this callback", cause)
	}
	set := cb.failed(status, cause)
	if !notSent(cause) && o.silence(cb) == nil {
		message := "The record was stored, but its callback failed: " + cause.Error()
		status, err := o.client.SendCallback(ctx, cb.URL, modelriver.ErrorCallbackBody(message))
		if err != nil && ctx.Err() != nil {
			o.release(cb)
			return
		}
		o.heard(cb, status, err)
		outcome := "accepted"
		if err != nil {
			outcome = err.Error()
		}
		set["lastError"] = cb.failure(cause) + errorCallback + outcome
	}
	o.fail(cb, set)
}

// ingestRefused ingests the event of a refused row that was armed again.
func (o *outbox) ingestRefused(cb *callback, payload string) {
	o.commit(func(tx core.App) error {
		return o.reingest(tx, cb, payload)
	}, func(err error) {
		var refused *refusal
		if errors.As(err, &refused) {
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

// deliver turns the callback's row delivered and gives its place back.
func (o *outbox) deliver(cb *callback, now time.Time, status int) {
	o.commit(func(tx core.App) error {
		return deliverCallback(tx, cb, now, status)
	}, func(err error) { o.written(cb, err) })
}

// retry has the callback sent again at the given time.
func (o *outbox) retry(cb *callback, status int, cause error, next time.Time) {
	o.commit(func(tx core.App) error {
		return retryCallback(tx, cb, o.now(), next, status, cb.failure(cause))
	}, func(err error) {
		o.written(cb, err)
		o.wakeAt(next)
	})
}

// fail turns the callback's row failed and gives its place back. A hook of the app may
// hear of it, but not prevent it: the callback would be sent for ever.
func (o *outbox) fail(cb *callback, set map[string]any) {
	if text, ok := set["lastError"].(string); ok {
		set["lastError"] = o.config.inWords(text)
	}
	o.app.Logger().Error("Callback failed", "error", set["lastError"], "callback", cb.Id, "attempt", cb.Attempts)
	o.commit(func(tx core.App) error {
		return failCallback(tx, cb, set)
	}, func(err error) {
		if err == nil || databaseFailed(err) {
			o.written(cb, err)
			return
		}
		o.app.Logger().Error("A hook refused that a callback failed: it is written without hooks", "error", err, "callback", cb.Id)
		o.commit(func(tx core.App) error {
			return failCallback(tx.UnsafeWithoutHooks(), cb, set)
		}, func(err error) { o.written(cb, err) })
	})
}

// commit adds a write that Stop waits for.
func (o *outbox) commit(run func(tx core.App) error, done func(err error)) {
	o.senders.Add(1)
	o.commits.add(&write{run: run, done: func(err error) {
		defer o.senders.Done()
		done(err)
	}})
}

// written ends an attempt. If its outcome could not be written down, the lease ends
// and the callback is sent again.
func (o *outbox) written(cb *callback, err error) {
	if err != nil {
		o.app.Logger().Error("Failed to store the outcome of a callback: it is sent again", "error", err, "callback", cb.Id)
	}
	o.release(cb)
}

// rearmEdited prepares a row that someone sets back to pending, in the dashboard or by
// the retry command, to be sent as if it were new.
func (o *outbox) rearmEdited(record *core.Record) {
	if record.GetString("state") != statePending || record.Original().GetString("state") == statePending {
		return
	}
	now := o.now()
	record.Set("attempts", 0)
	record.Set("nextAttempt", dateTime(now))
	record.Set("expires", dateTime(now.Add(o.config.CallbackWindow)))
	record.Set("deliveredAt", "")
	if record.GetString("payload") != "" {
		record.Set("body", "") // the event is ingested again
	}
	if host, err := o.client.Host(record.GetString("url")); err == nil {
		record.Set("host", host) // allowed since
	}
}

// deleteDelivered deletes callbacks that were delivered longer ago than Retention, and
// rows of records that were deleted longer ago.
func (o *outbox) deleteDelivered() {
	before := dateTime(o.now().Add(-o.config.Retention))
	for {
		var deleted int64
		err := o.commits.do(func(tx core.App) error {
			result, err := tx.NonconcurrentDB().NewQuery(`
				DELETE FROM modelriverCallbacks WHERE id IN (
					SELECT id FROM modelriverCallbacks
					WHERE state = 'delivered' AND deliveredAt < {:before} OR state = 'deleted' AND created < {:before} LIMIT 1000
				)`).Bind(dbx.Params{"before": before}).Execute()
			if err != nil {
				return err
			}
			deleted, err = result.RowsAffected()
			return err
		})
		if err != nil {
			o.app.Logger().Warn("Failed to delete delivered callbacks", "error", err)
			return
		}
		if deleted == 0 {
			return
		}
	}
}

// Package outbox sends callbacks: new ones at once, from memory, and from the table what is
// due again. At least once: a crash after an accepted attempt, before that is written
// down, sends once more.
//
// It also sends requests, from the table, at most once: see asking.
package outbox

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const (
	// PollInterval is how often the table is read for what another process, such as
	// the retry command, has made due.
	PollInterval = 2 * time.Second

	// leaseMargin is how much longer than an attempt its lease is.
	leaseMargin = 10 * time.Second

	// StopGrace is how long Stop lets callbacks that are being sent come to an end.
	StopGrace = 2 * time.Second
)

// Options are the settings of an [Outbox].
type Options struct {
	Keyed     bool          // an API key is set: without one, callbacks wait
	Timeout   time.Duration // of one attempt
	Window    time.Duration // in which a callback is tried
	Retention time.Duration // how long rows are kept that are done with

	PayloadRetention time.Duration // 0 for not at all

	// Leads reports whether this node is the one that works, of those that share the database:
	// no other can write. Nil if it is the only one.
	Leads func() bool

	// InWords returns a text that names settings as this app has them.
	InWords func(text string) string

	// Reingest stores the event of a refused row that was armed again, from its payload.
	// It returns a [*store.Refusal] if the event is refused again.
	Reingest func(tx core.App, cb *store.Callback, payload string) error
}

// An Outbox sends the callbacks of one app.
type Outbox struct {
	// Now is the clock.
	Now func() time.Time

	app     core.App
	commits *commit.Committer
	client  *modelriver.Client
	options Options

	callbacks loop
	asking    asking

	lifecycle sync.Mutex // held by Start and Stop
	cancel    context.CancelFunc
	ended     chan struct{} // closed when nothing is left of what the last Stop ended
	loops     sync.WaitGroup
	started   atomic.Bool // until it is stopped, or found that this node leads no more

	mu      sync.Mutex
	running bool
	ctx     context.Context // of the sends
	senders sync.WaitGroup  // and the writes of their outcomes
	lanes   map[string]*lane
	held    map[string]bool // ids of callbacks in memory
}

// New returns an outbox that does not run yet.
func New(app core.App, commits *commit.Committer, client *modelriver.Client, options Options) *Outbox {
	o := &Outbox{
		Now: time.Now, app: app, commits: commits, client: client, options: options,
		lanes: map[string]*lane{},
		held:  map[string]bool{},
	}
	o.callbacks = loop{what: "callbacks", wake: make(chan struct{}, 1), resume: o.resume, once: o.RunOnce}
	o.asking.loop = loop{what: "requests", wake: make(chan struct{}, 1), resume: o.resumeRequests, once: o.runRequests}
	o.asking.posts, o.asking.unmatched, o.asking.unsure = map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}
	o.asking.used.Store(true) // until the table says otherwise
	return o
}

// Start begins to send, first what a crash cut off, or what the node was sending that led before.
// Where several share the database it ends by itself when this one leads no more, as if this
// process had ended: Stop it then before it is started again. It does nothing if the outbox was
// started.
func (o *Outbox) Start() {
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
	for _, l := range o.lanes {
		l.unanswered, l.cause = 0, nil // that was then
	}
	o.mu.Unlock()
	o.asking.forget()
	o.started.Store(true)
	o.loops.Go(func() { o.run(loopCtx, &o.callbacks) })
	o.loops.Go(func() { o.run(loopCtx, &o.asking.loop) })
	o.cancel = func() {
		cancelLoop()
		o.dropWaiting()
		o.awaitEnd(cancelSends)
		o.client.CloseIdle()
	}
}

// Stop ends sending and returns when nothing of it is left, after a few seconds at
// most. What was not sent stays pending. It does nothing if the outbox does not run.
func (o *Outbox) Stop() {
	o.lifecycle.Lock()
	defer o.lifecycle.Unlock()
	if o.cancel != nil {
		o.cancel()
		o.cancel = nil
	}
}

// awaitEnd lets sends come to an end, or cuts them off; what they wrote is committed,
// unless the database hangs, and with it the loop. Either way the rows say what is left
// to do.
func (o *Outbox) awaitEnd(cancelSends func()) {
	ended := make(chan struct{})
	o.ended = ended
	go func() {
		o.loops.Wait()
		o.senders.Wait()
		close(ended)
	}()
	grace := time.AfterFunc(StopGrace, cancelSends)
	select {
	case <-ended:
	case <-time.After(StopGrace + time.Second):
	}
	grace.Stop()
	cancelSends()
}

// Leads reports whether this node leads, and has begun to work since: until then, what it knows
// of the database may be what that was when it led last.
func (o *Outbox) Leads() bool {
	return o.options.Leads == nil || o.started.Load() && o.options.Leads()
}

// leads reports whether this node leads, also while the outbox stops: what was sent may be
// written down then.
func (o *Outbox) leads() bool { return o.options.Leads == nil || o.options.Leads() }

// Running reports whether callbacks are sent from memory, which is a moment after Start.
func (o *Outbox) Running() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running
}

// Wake makes the outbox look at the table of callbacks now. It never blocks.
func (o *Outbox) Wake() { o.callbacks.wakeUp() }

// resume makes due what the last process left: a first attempt without an outcome was
// under way when it ended, or waits for a key, which there is now. Only then may this
// process claim callbacks of its own.
func (o *Outbox) resume() error {
	now := store.DateTime(o.Now())
	resumable := dbx.And(
		dbx.HashExp{"state": store.Pending, "attempts": []any{0, 1}, "lastStatus": 0},
		dbx.NewExp("nextAttempt > {:now} AND ({:keyed} OR host = '')", dbx.Params{"now": now, "keyed": o.options.Keyed}),
	)
	err := o.commits.Do(func(tx core.App) error {
		_, err := tx.NonconcurrentDB().Update(store.Callbacks, dbx.Params{"attempts": 0, "nextAttempt": now}, resumable).Execute()
		return err
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = o.started.Load()
	return nil
}

// RunOnce claims the callbacks that are due, as many as there is room for, and hands
// them to the senders, as the outbox does by itself while it runs. It returns when the
// next one is due, or the zero time.
func (o *Outbox) RunOnce() (next time.Time, err error) {
	hosts, err := store.PendingHosts(o.app)
	if err != nil {
		return next, err
	}
	for _, host := range hosts {
		room := o.room(host)
		if room == 0 {
			continue // the sender that makes room wakes us
		}
		due, err := store.FindDue(o.app, host, o.Now(), max(o.options.Window, o.lease()), room)
		if err != nil {
			return next, err
		}
		if err := o.claimAndSend(due); err != nil {
			return next, err
		}
		t, err := store.FindNext(o.app, host, o.Now())
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
func (o *Outbox) claimAndSend(due []*store.Callback) error {
	var taken []*store.Callback
	for _, cb := range due {
		if !o.waitsForKey(cb) && o.reserve(cb) {
			taken = append(taken, cb)
		}
	}
	if len(taken) == 0 {
		return nil
	}

	var claimed []bool
	err := o.commits.Do(func(tx core.App) error {
		claimed = make([]bool, len(taken))
		now := o.Now()
		for i, cb := range taken {
			ok, err := cb.Claim(tx, now, now.Add(o.lease()))
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

func (o *Outbox) lease() time.Duration { return o.options.Timeout + leaseMargin }

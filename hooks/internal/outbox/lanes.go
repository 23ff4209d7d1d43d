package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pocketbase/pocketbase/tools/routine"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// Bounds of each host on its own, so that one that hangs takes nothing from the others.
const (
	MaxSending  = 16       // callbacks that are sent at the same time
	MaxHeld     = 256      // callbacks in memory; more wait in the table
	maxHeldBody = 64 << 10 // a larger body is read when it is sent
)

// A lane is the callbacks of one host that are in memory.
type lane struct {
	held       int
	sending    int
	waiting    []*store.Callback
	unanswered int   // attempts in a row
	cause      error // of the last of them
}

// room returns how many more callbacks to host may be in memory.
func (o *Outbox) room(host string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.lanes[host]; l != nil {
		return MaxHeld - l.held
	}
	return MaxHeld
}

// Held returns how many callbacks are in memory.
func (o *Outbox) Held() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.held)
}

// reserve takes a place in memory for the callback: whoever gets it may claim the row,
// and must then call send or release. It returns false if there is no room, if the
// callback has a place already, or if the outbox does not run.
func (o *Outbox) reserve(cb *store.Callback) bool {
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
	if l.held >= MaxHeld {
		return false
	}
	l.held++
	o.held[cb.Id] = true
	return true
}

// release gives back the callback's place.
func (o *Outbox) release(cb *store.Callback) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[cb.Host]
	o.giveBack(l, cb.Id)
	if l.held == 0 && l.sending == 0 && l.unanswered == 0 {
		delete(o.lanes, cb.Host)
	}
}

// giveBack gives back a callback's place. The lock is held.
func (o *Outbox) giveBack(l *lane, id string) {
	delete(o.held, id)
	l.held--
	if l.held == MaxHeld/2 { // the table may hold more
		o.Wake()
	}
}

// dropWaiting gives up what is not being sent yet: the rows bring it back.
func (o *Outbox) dropWaiting() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started.Store(false)
	o.running = false
	for _, l := range o.lanes {
		for _, cb := range l.waiting {
			delete(o.held, cb.Id)
			l.held--
		}
		l.waiting = nil
	}
}

// withdraw gives up a callback that waits to be sent, as its row is gone or no longer says so.
func (o *Outbox) withdraw(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lanes {
		l.waiting = slices.DeleteFunc(l.waiting, func(cb *store.Callback) bool {
			if cb.Id == id {
				o.giveBack(l, id)
			}
			return cb.Id == id
		})
	}
}

// send hands a claimed callback to the senders of its host. If the outbox was stopped
// meanwhile, the callback's row brings it back.
func (o *Outbox) send(cb *store.Callback) {
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
	if l.sending < MaxSending {
		l.sending++
		ctx := o.ctx
		o.senders.Go(func() { o.drain(ctx, l) })
	}
}

// drain sends what waits in the lane until nothing does.
func (o *Outbox) drain(ctx context.Context, l *lane) {
	for {
		if !o.Leads() {
			o.dropWaiting()
		}
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

// noteAnswer notes whether the callback's host answered.
func (o *Outbox) noteAnswer(cb *store.Callback, status int, err error) {
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
func (o *Outbox) silence(cb *store.Callback) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[cb.Host]
	switch {
	case l.unanswered < MaxSending:
		return nil
	case lastFailure(cb) == "": // the row itself has no cause
		return fmt.Errorf("%w: %w", errSilent, l.cause)
	}
	return errSilent
}

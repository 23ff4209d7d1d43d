package outbox

import (
	"context"
	"time"

	"github.com/pocketbase/pocketbase/tools/routine"
)

// A loop looks at a table for what is due.
type loop struct {
	what   string // that is due
	wake   chan struct{}
	next   time.Time // when it wakes by itself
	resume func() error
	once   func() (next time.Time, err error)
}

func (l *loop) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// wakeAt makes the loop look at its table at the given time, or earlier.
func (o *Outbox) wakeAt(l *loop, t time.Time) {
	o.mu.Lock()
	earlier := t.Before(l.next)
	o.mu.Unlock()
	if earlier {
		l.wakeUp()
	}
}

// run is only the loop; its functions do the work. It ends when this node leads no more: nothing
// could be written any more, and the node that does has taken up what is due.
func (o *Outbox) run(ctx context.Context, l *loop) {
	resumed := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		if !o.Leads() {
			o.dropWaiting()
			return
		}

		var next time.Time
		err := routine.SafeWrap(func() (err error) {
			if !resumed {
				if err := l.resume(); err != nil {
					return err
				}
				resumed = true
			}
			next, err = l.once()
			return err
		})()
		if err != nil && o.Leads() { // else that is why
			o.app.Logger().Error("Failed to find or claim due "+l.what, "error", err)
			select { // places given back because of the error must not wake us at once
			case <-l.wake:
			default:
			}
		}

		wait := PollInterval
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(o.Now()), 10*time.Millisecond))
		}
		o.mu.Lock()
		l.next = o.Now().Add(wait)
		o.mu.Unlock()
		timer.Reset(wait)
	}
}

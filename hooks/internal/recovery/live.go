package recovery

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"
)

// endIfOver ends the process once another server writes to the replica: what this one would
// store from now on would be lost.
func (r *Recovery) endIfOver(err error) {
	over := r.client.over.Load()
	if !over && !isRefusal(err) {
		return
	}
	if over {
		err = errOver
	}
	r.mu.Lock()
	r.paused = true // nothing is acknowledged any more
	r.state.Error = "the server ended: " + err.Error()
	r.mu.Unlock()
	r.writeState(true)
	r.say(fmt.Sprintf("%v: this server ends", err))
	r.exit(1)
}

// live gives the sign by which another server sees that this one writes, and looks for a server
// that has taken the replica over while nothing is written here.
func (r *Recovery) live(ctx context.Context) {
	for tick := time.NewTicker(signEvery); ; {
		if r.client.begun() {
			e := *r.client.epoch.Load()
			err := r.signThere(ctx, e)
			if over, overErr := e.isOver(ctx, r.bucket); over {
				r.client.over.Store(true)
				r.endIfOver(errOver)
			} else if err = cmp.Or(err, overErr); err != nil && ctx.Err() == nil {
				r.app.Logger().Debug("The replica's store did not take the sign of life", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-r.client.changed:
		case <-tick.C:
		}
	}
}

// signThere gives a sign of life where the epoch is: without it the place is another one, as where
// a disk is not mounted.
func (r *Recovery) signThere(ctx context.Context, e epoch) error {
	if err := e.isThere(ctx, r.bucket); err != nil {
		return err
	}
	return r.giveSign(ctx, false)
}

// giveSign gives a sign of life, or of the end.
func (r *Recovery) giveSign(ctx context.Context, ended bool) error {
	host, _ := os.Hostname()
	return sign{Run: r.run, Host: host, Epoch: r.client.epoch.Load().Number, Count: int(r.signs.Add(1)), Ended: ended}.put(ctx, r.bucket)
}

// within returns what fn does, or the context's error: a folder of another machine may hang for
// ever.
func within(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

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
			over, err := e.isOver(ctx, r.bucket)
			if over {
				r.client.over.Store(true)
				r.endIfOver(errOver)
			} else if err = cmp.Or(r.signThere(ctx, e), err); err != nil && ctx.Err() == nil {
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
	s := sign{Run: r.run, Host: host, Epoch: r.client.epoch.Load().Number, Count: int(r.signs.Add(1)), Ended: ended}
	_ = r.local.noteSign(s)
	return s.put(ctx, r.bucket)
}

// hasOthers reports whether another server than those that ran here may still write to the replica.
// last is the sign that was given last.
func (r *Recovery) hasOthers(last sign, newest epoch, next step) bool {
	switch {
	case last.ended(newest):
		return false
	case last.Epoch != newest.Number:
		return true
	}
	return last.Run != r.run && !r.local.readGiven().before(r.local.here(), last, next)
}

// alone returns what is to be done once no other server writes to the replica, or a refusal.
func (r *Recovery) alone(ctx context.Context, f findings) (findings, error) {
	if !f.others || r.takesOver() {
		return f, nil
	}
	if err := awaitSilence(ctx, r.bucket, f.newest(), signWait, r.say); err != nil {
		return f, err
	}
	return r.look(ctx) // it may have written until it ended
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

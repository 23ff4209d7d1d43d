package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// Times and bounds of shipping.
const (
	shipEvery  = time.Second
	shipWithin = 20 * time.Second // a webhook that waits for longer is answered 503
	stopWithin = 4 * time.Second

	answerWithin = 10 * time.Second // a start with a database does not wait longer for the store
	stateEvery   = 5 * time.Second

	minUnshipped = 1 << 30 // bytes that may wait for a store that is away, or twice the database
)

var (
	errNotReached = errors.New("the replica's store has not answered since the start")
	errPaused     = errors.New("a backup is being restored")
)

// A shipping is the database as Litestream has it open. It is never closed while the app has
// the database open: closing a file gives up every lock of the process on it.
type shipping struct {
	db   *litestream.DB
	keep *keeper // nil until the epoch is known
}

// open has Litestream open the database, before the app does if it is there. It needs no store: from
// then on no change is missed, whenever the store answers. An error ends the process: Litestream has
// given up the locks on the database.
func (r *Recovery) open(ctx context.Context) (*shipping, error) {
	last, err := r.local.last()
	if err != nil {
		return nil, &refusal{err}
	}
	db := litestream.NewDB(r.local.data())
	db.SetMetaPath(r.local.dir)
	db.SetLogger(slog.New(slog.DiscardHandler)) // what fails is returned
	db.MonitorInterval, db.BusyTimeout, db.ShutdownSyncTimeout = 0, 10*time.Second, 0
	db.Replica = litestream.NewReplicaWithClient(db, r.client)
	db.Replica.MonitorEnabled = false
	if err := db.Open(); err != nil {
		return nil, &refusal{err}
	}
	r.client.known.Store(&ltx.FileInfo{MinTXID: last, MaxTXID: last})
	err = db.Sync(ctx)
	r.client.known.Store(nil)
	if err != nil && db.PageSize() == 0 {
		return nil, &refusal{fmt.Errorf("open the database for the replica: %w", err)}
	}
	return &shipping{db: db}, nil // what could not be read yet, the next turn reads
}

// Wait returns once all that is committed now is in the replica, or why it is not. It returns at
// once if webhooks don't wait for the replica.
func (r *Recovery) Wait(ctx context.Context) error {
	if r == nil || r.bucket == nil || r.options.Ack != AckWait {
		return nil
	}
	shipped := make(chan error, 1)
	r.mu.Lock()
	if r.paused {
		r.mu.Unlock()
		return errPaused
	}
	r.waiting = append(r.waiting, shipped)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it will look at what waits anyway
	}
	timeout := time.NewTimer(shipWithin)
	defer timeout.Stop()
	select {
	case err := <-shipped:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("the replica did not have it within %s", shipWithin)
	}
}

// start begins to ship.
func (r *Recovery) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan struct{})
	select {
	case r.wake <- struct{}{}:
	default:
	}
	go r.live(ctx)
	go func() {
		defer close(r.done)
		r.shipAll(ctx)
	}()
}

// shipAll ships every second, and at once what is waited for: all that wait share one turn.
func (r *Recovery) shipAll(ctx context.Context) {
	tick := time.NewTicker(shipEvery)
	defer tick.Stop()
	var failing time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		}
		r.mu.Lock()
		waiting := r.waiting
		r.waiting = nil
		r.mu.Unlock()

		began := time.Now()
		err := r.ship(ctx) // the first time, that is a whole copy
		for _, shipped := range waiting {
			shipped <- err
		}
		if ctx.Err() != nil {
			return
		}
		r.note(began, err, &failing)
		r.endIfOver(err)
	}
}

// note tells of a failure when it begins and when it ends, and writes down how it stands.
func (r *Recovery) note(began time.Time, err error, failing *time.Time) {
	r.mu.Lock()
	state := &r.state
	state.Epoch = r.client.epoch.Load().Number
	state.Error = ""
	switch {
	case err == nil:
		state.Shipped = began
	case !errors.Is(err, errPaused):
		state.Error = err.Error()
	}
	r.mu.Unlock()
	switch {
	case state.Error != "" && failing.IsZero():
		*failing = time.Now()
		r.app.Logger().Error("The replica does not get the changes: they are shipped when its store answers", "error", err)
		fmt.Fprintf(os.Stderr, "Replica: changes do not get there (%v): that is tried again.\n", err)
		r.writeState(true)
	case err == nil && !failing.IsZero():
		r.say("it has all changes again, after " + time.Since(*failing).Round(time.Second).String())
		*failing = time.Time{}
		r.writeState(true)
	default:
		r.writeState(false)
	}
}

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

// ship brings all that is committed into the replica.
func (r *Recovery) ship(ctx context.Context) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	r.mu.Lock()
	paused := r.paused
	r.mu.Unlock()
	if paused {
		return errPaused
	}
	if r.shipping == nil {
		s, err := r.open(ctx)
		if err != nil {
			return err
		}
		r.shipping = s
	}
	s := r.shipping
	if err := s.db.Sync(ctx); err != nil {
		return err
	}
	if err := r.upload(ctx, s); err != nil {
		return errors.Join(err, r.boundUnshipped(ctx, s))
	}
	return nil
}

func (r *Recovery) upload(ctx context.Context, s *shipping) error {
	if !r.client.begun() {
		if err := r.join(ctx, s); err != nil {
			return err
		}
	}
	if s.keep == nil {
		s.keep = newKeeper(s.db, r.bucket, *r.client.epoch.Load(), r.options.Retention, r.app.Logger())
	}
	if err := s.db.Replica.Sync(ctx); err != nil {
		return err
	}
	s.keep.do(ctx)
	return nil
}

// join finds out what the replica has, while the database is served: it cannot be put aside any
// more.
func (r *Recovery) join(ctx context.Context, s *shipping) error {
	f, err := r.look(ctx)
	if err != nil && !isRefusal(err) {
		return fmt.Errorf("%w: %w", errNotReached, err)
	}
	if err != nil {
		return err
	}
	switch f.next {
	case takeOver:
		return refuse("the replica went on without this server: what is here is compared when it starts again")
	case goOn:
		r.client.begin(f.newest())
		return nil
	}
	if !r.local.isWhole() {
		if err := r.readAnew(ctx, s); err != nil {
			return err
		}
		if f.id, err = r.local.readIdentity(); err != nil {
			return err
		}
	}
	s.db.Replica.SetPos(ltx.Pos{})
	return r.begin(ctx, f)
}

// readAnew has all of the database read, for an epoch that begins with it.
func (r *Recovery) readAnew(ctx context.Context, s *shipping) error {
	if err := r.markReplaced(true); err != nil {
		return err
	}
	if err := s.db.ResetLocalState(ctx); err != nil {
		return err
	}
	return s.db.Sync(ctx)
}

// boundUnshipped gives up what waits for the store once it is more than a whole copy is worth:
// a new epoch begins with that when the store answers.
func (r *Recovery) boundUnshipped(ctx context.Context, s *shipping) error {
	info, err := os.Stat(r.local.data())
	if err != nil {
		return err
	}
	size, err := sizeOf(r.local.ltxDir())
	if err != nil || size < max(minUnshipped, 2*info.Size()) {
		return err
	}
	r.say("the store was away for too long: a whole copy is shipped when it answers")
	r.client.begin(epoch{}) // what may be written to is found out again
	s.keep = nil
	return r.readAnew(ctx, s)
}

// markReplaced notes whether a new epoch must begin with all of the database. A database that was
// never shipped needs no note.
func (r *Recovery) markReplaced(replaced bool) error {
	id, err := r.local.readIdentity()
	if err != nil || id.Epoch == 0 || id.Replaced == replaced {
		return err
	}
	id.Replaced = replaced
	return r.local.writeIdentity(id)
}

func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := entry.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes, err
}

// live gives the sign by which another server sees that this one writes, and looks for a server
// that has taken the replica over while nothing is written here.
func (r *Recovery) live(ctx context.Context) {
	for tick := time.NewTicker(signEvery); ; {
		if r.client.begun() {
			e := *r.client.epoch.Load()
			err := cmp.Or(e.isThere(ctx, r.bucket), r.giveSign(ctx, false))
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

// finish ships what is left, within a bound, and says whether the replica has all.
func (r *Recovery) finish() {
	if r.stop == nil {
		return // it did not serve
	}
	r.stop()
	select {
	case <-r.done:
	case <-time.After(stopWithin): // a folder that hangs
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	err := within(ctx, func() error { return r.ship(ctx) })
	r.mu.Lock()
	r.paused = true
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	for _, shipped := range waiting {
		shipped <- err
	}
	if errors.Is(err, errPaused) {
		return
	}
	if err != nil {
		r.say(fmt.Sprintf("the last changes are not shipped yet (%v): they will be at the next start here", err))
		return
	}
	_ = r.giveSign(ctx, true) // else the next one waits a little
}

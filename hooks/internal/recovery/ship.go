package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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

	lookAgain          = time.Second // of a start that cannot serve yet
	restoreAgainAtLast = 5 * time.Minute

	minUnshipped = 1 << 30          // bytes that may wait for a store that is away, or twice the database
	measureEvery = 10 * time.Second // they are many files after a day
)

var (
	errNotReached = errors.New("the replica's store has not answered since the start")
	errPaused     = errors.New("a backup is being restored")
	errEnds       = errors.New("the server ends")
)

// A shipping is the database as Litestream has it open. It is never closed while the app has
// the database open: closing a file gives up every lock of the process on it.
type shipping struct {
	db   *litestream.DB
	keep *keeper // nil until the epoch is known
	wals int     // that were noted; 0 if none were of what is read

	measured time.Time // when what waits for the store was last
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
	db.MinCheckpointPageN = 10_000 // 40 MB: a checkpoint holds up writes, and a busy server writes a quarter of that in a second
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
	if !r.Configured() || r.options.Ack != AckWait {
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
	r.wakeUp()
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

// wakeUp has it shipped at once.
func (r *Recovery) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look at what waits anyway
	}
}

// start begins to ship.
func (r *Recovery) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done, r.silent = cancel, make(chan struct{}), make(chan struct{})
	r.wakeUp()
	go func() {
		defer close(r.silent)
		r.live(ctx)
	}()
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
		waiting := r.takeWaiting()
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

func (r *Recovery) takeWaiting() []chan error {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.waiting
	r.waiting = nil
	return waiting
}

// note tells of a failure when it begins and when it ends, and writes down how it stands.
func (r *Recovery) note(began time.Time, err error, failing *time.Time) {
	fails := err != nil && !errors.Is(err, errPaused)
	r.mu.Lock()
	r.state.Epoch, r.state.Error = r.client.epoch.Load().Number, ""
	if err == nil {
		r.state.Shipped = began
	}
	if fails {
		r.state.Error = err.Error()
	}
	r.mu.Unlock()
	switch {
	case fails && failing.IsZero():
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
	if err := s.noteWALs(ctx, r.local); err != nil {
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
		s.keep = newKeeper(s.db, &r.turn, r.bucket, *r.client.epoch.Load(), r.options.Retention, r.app.Logger())
	}
	asks := s.db.Replica.Pos().IsZero() // for what is there: after a failure, that may have been stored
	if err := s.db.Replica.Sync(ctx); err != nil {
		return err
	}
	if asks {
		if err := r.isShipped(ctx); err != nil {
			s.db.Replica.SetPos(ltx.Pos{}) // it is asked again
			return err
		}
	}
	s.keep.do(ctx)
	return nil
}

// isShipped returns an error unless the newest that the replica has was shipped from here, before
// another server took it over.
func (r *Recovery) isShipped(ctx context.Context) error {
	goesOn, err := r.local.goesOn(ctx, r.client)
	if err != nil {
		return err
	}
	over, err := r.client.epoch.Load().isOver(ctx, r.bucket)
	if err != nil {
		return err
	}
	if over || !goesOn {
		r.client.over.Store(true)
		return errOver
	}
	return nil
}

// finish ships what is left, within a bound, and says whether the replica has all.
func (r *Recovery) finish() {
	if r.stop == nil {
		return // it did not serve
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	r.stop()
	err := within(ctx, func() error {
		<-r.done // not where a folder hangs
		return r.ship(ctx)
	})
	r.mu.Lock()
	r.paused = true
	r.mu.Unlock()
	for _, shipped := range r.takeWaiting() {
		shipped <- errEnds // what they wait for may have come after that turn
	}
	if errors.Is(err, errPaused) {
		return
	}
	if err != nil {
		r.say(fmt.Sprintf("the last changes are not shipped yet (%v): they will be at the next start here", err))
		return
	}
	select {
	case <-r.silent: // a sign of life would come after that of the end
		_ = r.giveSign(ctx, true) // else the next one waits a little
	case <-ctx.Done():
	}
}

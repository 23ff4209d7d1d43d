// Package recovery ships each change of data.db to a replica, a folder or a bucket of an
// S3-compatible store, and restores the database from it. Litestream reads the changes from
// SQLite's WAL and puts them together again; what stands here decides who may write to the
// replica, what a server may go on from when it starts, and when a change is there.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/gofrs/flock"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"
)

// How a webhook is answered.
const (
	AckAsync = "async" // when it is on this machine's disk; it is shipped within about a second
	AckWait  = "wait"  // when the replica has it too
)

// Options are the settings of a replica.
type Options struct {
	URL       string        // of the replica; empty if there is none
	Ack       string        // AckAsync or AckWait
	Retention time.Duration // how far back any moment can be restored

	// Restored is called once after a restore, before anything is served.
	Restored func(app core.App) error

	// Describe returns what an operator should know of a database, in lines. It may find a
	// database of an earlier release.
	Describe func(db dbx.Builder) []string
}

// A Recovery keeps the replica of one app.
type Recovery struct {
	app     core.App
	rootCmd *cobra.Command
	options Options
	bucket  bucket // nil if there is no replica
	local   local
	exit    func(code int)        // os.Exit
	run     string                // of this process
	signs   atomic.Int64          // that it gave
	failure atomic.Pointer[error] // of the command restore

	lock     *flock.Flock // of the data directory, while this process serves
	takeover bool         // whoever writes to the replica is to end

	turn sync.Mutex // held while changes are shipped

	client   *epochClient
	shipping *shipping // nil until the database is open; of the turn
	stop     context.CancelFunc
	done     chan struct{}
	wake     chan struct{}

	mu      sync.Mutex
	waiting []chan error
	paused  bool
	state   State
}

// New returns the recovery of app, or an error that says what is wrong with the options.
func New(app core.App, rootCmd *cobra.Command, options Options) (*Recovery, error) {
	var b bucket
	if options.URL != "" {
		var err error
		if b, err = openBucket(options.URL); err != nil {
			return nil, err
		}
	}
	return &Recovery{
		app: app, rootCmd: rootCmd, options: options, bucket: b, local: newLocal(app.DataDir()), exit: os.Exit,
		client: newEpochClient(b, epoch{}), run: newId(),
		wake: make(chan struct{}, 1), state: State{URL: options.URL, Ack: options.Ack},
	}, nil
}

// say tells the operator, in the terminal and, once there is one, in the log.
func (r *Recovery) say(text string) {
	fmt.Fprintln(os.Stderr, "Replica: "+text+".")
	if r.app.IsBootstrapped() {
		r.app.Logger().Info("Replica: " + text)
	}
}

// prepare makes the data directory's database the one that this server may go on from, before
// PocketBase opens it. If the store does not answer, a database that is there is served
// meanwhile; without one it waits for the store.
func (r *Recovery) prepare(ctx context.Context) error {
	if r.lock == nil {
		lock, err := r.local.lock()
		if err != nil {
			return err
		}
		r.lock = lock
	}
	r.local.tidy()
	if err := r.local.dropReplaced(); err != nil {
		return err
	}
	lost, err := r.local.lostWAL(ctx)
	if err != nil {
		return err
	}
	if lost {
		r.say("the end of the WAL is lost, as after a power failure with synchronous=NORMAL: what was shipped of it is restored")
		if err := os.RemoveAll(r.local.ltxDir()); err != nil {
			return err
		}
	}
	var told time.Time
	for {
		hasData, err := r.local.hasData()
		if err != nil {
			return err
		}
		found, err := r.lookFor(ctx, hasData)
		if err == nil {
			err = r.act(ctx, found)
		}
		switch {
		case err == nil || isRefusal(err):
			return err
		case hasData && found.next != takeOver:
			r.say(fmt.Sprintf("the store does not answer (%v): what is here is served meanwhile", err))
			return nil
		case time.Since(told) > 30*time.Second:
			r.say(fmt.Sprintf("there is no database to serve, and what the replica has cannot be restored or seen (%v): trying again. Is REPLICA_URL right?", err))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// lookFor is look for a start. With a database that can be served meanwhile, a slow store is not
// waited for.
func (r *Recovery) lookFor(ctx context.Context, hasData bool) (findings, error) {
	if hasData {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerWithin)
		defer cancel()
	}
	var f findings
	err := within(ctx, func() (err error) {
		f, err = r.look(ctx)
		return err
	})
	if err != nil {
		return findings{}, err // f may be written to still
	}
	return f, nil
}

// A refusal is why a server must not start, whatever the store answers later.
type refusal struct{ error }

func refuse(format string, args ...any) error { return &refusal{fmt.Errorf(format, args...)} }

func isRefusal(err error) bool {
	var refused *refusal
	return errors.As(err, &refused)
}

// What is to be done with the database that is here.
type step int

const (
	beginHere step = iota + 1 // it begins an epoch
	goOn                      // it goes on in its epoch
	takeOver                  // it is put aside, if there is one, and the replica restored
)

// findings are what the data directory and the replica have, and what follows.
type findings struct {
	next   step
	id     identity
	epochs []epoch
	owned  bool // the newest epoch is this data directory's
	begun  bool // and was begun with what is here, but nothing was shipped in it
}

func (f findings) newest() epoch { return f.epochs[len(f.epochs)-1] }

// look compares the data directory with the replica.
//
//	here            in the replica           what follows
//	nothing         nothing                  a first epoch begins
//	nothing         something                it is restored, and a new epoch begins
//	never shipped   nothing                  a first epoch begins
//	never shipped   something                refused: nobody can tell which is meant
//	ours, same line, equal or ahead          it goes on, in the same epoch
//	else                                     put aside, restored, and a new epoch begins
func (r *Recovery) look(ctx context.Context) (f findings, err error) {
	if f.id, err = r.local.readIdentity(); err != nil {
		return f, &refusal{err}
	}
	hasData, err := r.local.hasData()
	if err != nil {
		return f, &refusal{err}
	}
	replica, err := readId(ctx, r.bucket)
	if err != nil {
		return f, err
	}
	if f.epochs, err = readEpochs(ctx, r.bucket); err != nil {
		return f, err
	}
	if len(f.epochs) == 0 && f.id.Epoch > 0 && f.id.URL == r.options.URL {
		return f, refuse("REPLICA_URL: %s is empty, though the database here was shipped to it. If it is a disk, mount it; to begin anew with what is here, delete %s",
			r.options.URL, r.local.dir)
	}
	if len(f.epochs) == 0 {
		f.next = beginHere
		return f, nil
	}
	known := f.id.Replica != "" && f.id.Replica == replica
	f.owned = known && f.newest().Owner == f.id.Owner
	switch {
	case hasData && !known && r.local.isUntouched(ctx):
		r.say("the database here has nothing yet but what commands made before the first start")
	case hasData && !known:
		return f, refuse("REPLICA_URL: %s holds a database already, and the one in %s was never shipped there. To go on with the replica's, move %s away, with its -wal and -shm; to ship the one that is here, set REPLICA_URL to an empty place; to look at it, unset REPLICA_URL",
			r.options.URL, r.local.dataDir, r.local.data())
	case f.owned && hasData && f.id.Replaced:
		f.next = beginHere
		return f, nil
	case f.owned && hasData && f.newest().Number != f.id.Epoch && f.newest().From == nil:
		last, err := newEpochClient(r.bucket, f.newest()).lastOf(ctx)
		if err != nil {
			return f, err
		}
		if last.MaxTXID == 0 { // the store's answer to its beginning was lost
			f.next, f.begun = beginHere, true
			return f, nil
		}
	case f.owned && hasData && f.newest().Number == f.id.Epoch:
		goesOn, err := r.local.goesOn(ctx, newEpochClient(r.bucket, f.newest()))
		if err != nil {
			return f, err
		}
		if goesOn {
			f.next = goOn
			return f, nil
		}
		r.say("it has changes that the database here has not, or other ones")
	}
	f.next = takeOver
	return f, nil
}

// act does what follows, while nobody has the database open.
func (r *Recovery) act(ctx context.Context, f findings) error {
	switch f.next {
	case goOn:
		r.client.begin(f.newest())
		return nil
	case beginHere:
		if err := r.local.dropPart(); err != nil {
			return &refusal{err}
		}
		return r.begin(ctx, f)
	}
	if !f.owned && !r.takeover {
		if err := awaitSilence(ctx, r.bucket, signWait, r.say); err != nil {
			return err
		}
	}
	return r.takeOver(ctx, f)
}

// begin begins an epoch with the database that is here, or will be.
func (r *Recovery) begin(ctx context.Context, f findings) (err error) {
	id, number := f.id, f.id.Epoch+1
	if len(f.epochs) > 0 {
		number = f.newest().Number + 1
	}
	id.URL = r.options.URL
	if id.Replica, err = makeId(ctx, r.bucket); err != nil {
		return err
	}
	if err := r.local.writeIdentity(id); err != nil { // the owner is known before it owns something
		return &refusal{err}
	}
	var e epoch
	if f.begun {
		e = f.newest()
	} else {
		e, err = beginEpoch(ctx, r.bucket, number, id.Owner, nil)
	}
	if errors.Is(err, errExists) {
		return fmt.Errorf("another server began to write to the replica at the same time: %w", err)
	}
	if err != nil {
		return err
	}
	id.Epoch, id.Replaced = e.Number, false
	if err := r.local.writeIdentity(id); err != nil {
		return &refusal{err}
	}
	r.client.begin(e)
	_ = r.giveSign(ctx, false) // what is given next is seen to be another
	return nil
}

// takeOver ends the epoch before, restores what it wrote, and begins a new one with that. From
// the moment that the new epoch is there, nothing that the earlier owner writes is acknowledged.
func (r *Recovery) takeOver(ctx context.Context, f findings) (err error) {
	id := f.id
	id.URL = r.options.URL
	if id.Replica, err = makeId(ctx, r.bucket); err != nil {
		return err
	}
	if err := r.local.writeIdentity(id); err != nil { // the owner is known before it owns something
		return &refusal{err}
	}
	e, err := r.nextEpoch(ctx, id.Owner, f.newest())
	if err != nil {
		return err
	}
	r.client.begin(e)
	_ = r.giveSign(ctx, false)
	began := time.Now()
	from, err := findSource(ctx, r.bucket, f.epochs, time.Time{})
	if err != nil && !errors.Is(err, errNothing) { // with nothing, what is here goes on, if anything is
		return err
	}
	if from != nil {
		restored := filepath.Join(r.local.dir, "restored.db")
		if err := from.restore(ctx, restored, nil); err != nil {
			return fmt.Errorf("restore the replica: %w", err)
		}
		moment, err := from.moment(ctx)
		if err != nil {
			return err
		}
		said, err := r.local.putInPlace(ctx, restored)
		if said != "" {
			r.say(said)
		}
		if err != nil {
			return &refusal{err}
		}
		id.RestoredTo = &moment
		r.say(fmt.Sprintf("restored the database as of %s, its last change there, from %s, in %s; what came in the last second before the end of the other server may be missing", moment.Format(time.RFC3339), humanize.IBytes(uint64(from.size())), time.Since(began).Round(time.Millisecond)))
	}
	id.Epoch, id.Replaced = e.Number, false
	if err := r.local.writeIdentity(id); err != nil {
		return &refusal{err}
	}
	return nil
}

// nextEpoch begins the epoch after newest, unless that is ours and nothing was shipped in it: a
// start that failed half-way is repeated.
func (r *Recovery) nextEpoch(ctx context.Context, owner string, newest epoch) (epoch, error) {
	if newest.Owner == owner {
		last, err := newEpochClient(r.bucket, newest).lastOf(ctx)
		if err != nil || last.MaxTXID == 0 {
			return newest, err
		}
	}
	return beginEpoch(ctx, r.bucket, newest.Number+1, owner, &position{Epoch: newest.Number})
}

// tellRestored tells the app once that its database was restored.
func (r *Recovery) tellRestored() error {
	id, err := r.local.readIdentity()
	if err != nil || id.RestoredTo == nil {
		return err
	}
	for _, line := range r.options.Describe(r.app.DB()) {
		r.say(line)
	}
	if err := r.options.Restored(r.app); err != nil {
		return err
	}
	id.RestoredTo = nil
	return r.local.writeIdentity(id)
}

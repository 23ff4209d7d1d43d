package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

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
	if err := r.checkWAL(ctx); err != nil {
		return err
	}
	var told time.Time
	behind := false // of the replica, or of another line, when that answered last
	restoreAgain := lookAgain
	for {
		again := lookAgain
		hasData, err := r.local.hasData()
		if err != nil {
			return err
		}
		found, err := r.lookFor(ctx, hasData)
		if err == nil {
			found, err = r.alone(ctx, found)
		}
		if found.next != 0 {
			behind = found.next == takeOver
		}
		if err == nil {
			if hasData && found.next == takeOver && told.IsZero() {
				r.say("it has changes that the database here has not")
			}
			err = r.act(ctx, found)
			if errors.Is(err, errWentOn) {
				behind = true
				continue
			}
			again, restoreAgain = restoreAgain, min(2*restoreAgain, restoreAgainAtLast) // it may have read all of the replica
		}
		switch {
		case err == nil || isRefusal(err):
			return err
		case hasData && !behind:
			r.say(fmt.Sprintf("the store does not answer (%v): what is here is served meanwhile", err))
			return nil
		case time.Since(told) > 30*time.Second:
			r.say(fmt.Sprintf("nothing is served yet: the replica's cannot be restored: %v; trying again", err))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

// checkWAL has all of the database read anew where what was read of it may have gaps.
func (r *Recovery) checkWAL(ctx context.Context) error {
	lost, missed, err := r.local.checkWAL(ctx)
	if err != nil {
		return err
	}
	if lost {
		r.say("the end of the WAL is lost, as after a power failure, or the database is an older copy: what was shipped is in the replica")
	}
	if missed {
		r.say("something else wrote to the database while no server ran, or a file in " + r.local.ltxDir() + " is missing or damaged: all of it is shipped anew")
		return r.dropRead()
	}
	return nil
}

// dropRead deletes what was read of the database, and has all of it read anew, for a new epoch.
func (r *Recovery) dropRead() error {
	if err := r.markReplaced(); err != nil {
		return err
	}
	return os.RemoveAll(r.local.ltxDir())
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
	owned  bool // the newest epoch is this data directory's, or of one that it is a copy of
	last   sign // of life
	others bool // another server may still write
	begun  bool // and was begun with what is here, but nothing was shipped in it
}

func (f findings) newest() epoch { return f.epochs[len(f.epochs)-1] }

// look finds out what the data directory and the replica have, and whether another server writes.
func (r *Recovery) look(ctx context.Context) (findings, error) {
	f, err := r.compare(ctx)
	if err != nil || len(f.epochs) == 0 {
		return f, err
	}
	if f.last, err = readSign(ctx, r.bucket); err != nil {
		return f, err
	}
	f.others = r.hasOthers(f.last, f.newest(), f.next)
	if f.others && f.next == goOn && r.takesOver() {
		f.next = takeOver // in an epoch of its own, so that the other one ends
	}
	return f, nil
}

// compare compares the data directory with the replica.
//
//	here            in the replica           what follows
//	nothing         nothing                  a first epoch begins
//	nothing         something                it is restored, and a new epoch begins
//	never shipped   nothing                  a first epoch begins
//	never shipped   something                refused: nobody can tell which is meant
//	ours, same line, equal or ahead          it goes on, in the same epoch
//	else                                     put aside, restored, and a new epoch begins
func (r *Recovery) compare(ctx context.Context) (f findings, err error) {
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
	if replica == "" && len(f.epochs) == 0 && f.id.Epoch > 0 && placeOf(f.id.URL) == r.bucket.Place() {
		return f, refuse("REPLICA_URL: %s is empty, though the database here was shipped to it. If it is a disk, mount it; to begin anew with what is here, delete %s",
			r.options.URL, r.local.dir)
	}
	if len(f.epochs) == 0 {
		f.next = beginHere
		return f, nil
	}
	known := f.id.Replica != "" && f.id.Replica == replica
	inNewest := known && f.newest().Number == f.id.Epoch // another place may count as many
	if !known {
		if known, err = r.wasAboutTo(ctx, f); err != nil {
			return f, err
		}
	}
	f.owned = known && f.newest().Owner == f.id.Owner
	switch {
	case hasData && !known && r.local.isUntouched(ctx):
		r.say("the database here has nothing yet but what commands made before the first start")
	case hasData && !known:
		return f, refuse("REPLICA_URL: %s holds a database already, and the one in %s was never shipped there, or elsewhere since. To go on with the replica's, move %s away, with its -wal and -shm; to ship the one that is here, set REPLICA_URL to an empty place; to look at it, unset REPLICA_URL",
			r.options.URL, r.local.dataDir, r.local.data())
	}
	var begins, goesOn bool
	switch {
	case !f.owned || !hasData:
	case !inNewest:
		begins, err = r.wasBegun(ctx, f)
		f.begun = begins
	case f.id.Replaced:
		begins, err = r.followsOn(ctx, f, f.newest())
	default:
		goesOn, err = r.local.goesOn(ctx, newEpochClient(r.bucket, f.newest()))
	}
	switch {
	case err != nil:
	case begins:
		f.next = beginHere
	case goesOn:
		f.next = goOn
	default:
		f.next = takeOver
	}
	return f, err
}

// wasAboutTo reports whether what is here was about to be shipped to this place, and didn't go elsewhere since.
func (r *Recovery) wasAboutTo(ctx context.Context, f findings) (bool, error) {
	if f.newest().Owner != f.id.Owner || f.id.Replica != "" && len(f.epochs) > 1 {
		return false, nil
	}
	shipped, err := newEpochClient(r.bucket, f.newest()).lastOf(ctx)
	return err == nil && shipped.MaxTXID == 0, err
}

// followsOn reports whether what is here was replaced in an epoch, and that has nothing which was not here.
func (r *Recovery) followsOn(ctx context.Context, f findings, e epoch) (bool, error) {
	if !f.id.Replaced || f.id.Epoch != e.Number {
		return false, nil
	}
	client := newEpochClient(r.bucket, e)
	if f.id.Last > 0 {
		shipped, err := client.lastOf(ctx)
		return err == nil && shipped.MaxTXID <= f.id.Last, err
	}
	return client.isOf(ctx, r.local.headerBefore)
}

// wasBegun reports whether the newest epoch was begun with what is here, and has nothing: the store's answer
// to its beginning was lost. A copy of the data directory may lack what it was begun with.
func (r *Recovery) wasBegun(ctx context.Context, f findings) (bool, error) {
	if f.newest().From != nil {
		return false, nil
	}
	shipped, err := newEpochClient(r.bucket, f.newest()).lastOf(ctx)
	if err != nil || shipped.MaxTXID > 0 || len(f.epochs) == 1 {
		return err == nil && shipped.MaxTXID == 0, err
	}
	return r.followsOn(ctx, f, f.epochs[len(f.epochs)-2])
}

// act does what follows, while nobody has the database open.
func (r *Recovery) act(ctx context.Context, f findings) error {
	switch f.next {
	case goOn:
		r.client.begin(f.newest())
		return nil
	case beginHere:
		if !r.local.isWhole() {
			if err := r.dropRead(); err != nil {
				return &refusal{err}
			}
			var err error
			if f.id, err = r.local.readIdentity(); err != nil {
				return &refusal{err}
			}
		}
		return r.begin(ctx, f)
	}
	return r.takeOver(ctx, f)
}

// takesOver reports whether whoever writes to the replica is to end.
func (r *Recovery) takesOver() bool {
	if r.rootCmd == nil {
		return false
	}
	takeover, err := r.rootCmd.PersistentFlags().GetBool("takeover")
	return takeover && err == nil
}

package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
)

// errWentOn is returned by begin if a copy of the data directory wrote until it was ended by that. The next look
// finds what follows.
var errWentOn = errors.New("another server, on a copy of the data directory, wrote until this one began")

// begin begins an epoch with the database that is here, or will be.
func (r *Recovery) begin(ctx context.Context, f findings) error {
	number := 1 // for all that find none: one of them is first
	if len(f.epochs) > 0 {
		number = f.newest().Number + 1
	}
	if dir, ok := r.bucket.(folder); ok && dir.isMissing() {
		r.say(fmt.Sprintf("created %s, which was not there: is its disk mounted?", dir))
	}
	id, err := r.claim(ctx, f.id)
	if err != nil {
		return err
	}
	var e epoch
	if f.begun {
		e = f.newest()
	} else {
		e, err = beginEpoch(ctx, r.bucket, number, id.Owner, nil)
	}
	if err != nil {
		return err
	}
	if len(f.epochs) > 0 && !f.begun {
		if follows, err := r.followsOn(ctx, f, f.newest()); err != nil || !follows {
			return cmp.Or(err, errWentOn)
		}
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
func (r *Recovery) takeOver(ctx context.Context, f findings) error {
	id, err := r.claim(ctx, f.id)
	if err != nil {
		return err
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
	if from == nil {
		id.Epoch, id.Replaced = e.Number, false
		if err := r.local.writeIdentity(id); err != nil {
			return &refusal{err}
		}
		return nil
	}
	moment, err := r.fetch(ctx, from, nil)
	if err != nil {
		return err
	}
	if err := r.putBack(ctx, id, e, moment, r.say); err != nil {
		return err
	}
	missing := ""
	if !f.last.ended(f.newest()) {
		missing = "; what the server before wrote in its last second may be missing, but for webhooks that it answered with REPLICA_ACK=wait"
	}
	r.say(fmt.Sprintf("restored the database as of %s, its last change there, from %s, in %s%s",
		moment.Format(time.RFC3339), humanize.IBytes(uint64(from.size())), time.Since(began).Round(time.Millisecond), missing))
	return nil
}

// claim makes the data directory's name durable, before it owns something there, and returns what it is
// once it does. Until then, what is here is known where it was.
func (r *Recovery) claim(ctx context.Context, id identity) (identity, error) {
	if err := r.local.writeIdentity(id); err != nil {
		return id, &refusal{err}
	}
	var err error
	id.URL = r.options.URL
	id.Replica, err = makeId(ctx, r.bucket)
	return id, err
}

// fetch restores a state beside the database, and returns when it was the database's.
func (r *Recovery) fetch(ctx context.Context, from *source, progress io.Writer) (time.Time, error) {
	moment, err := from.moment(ctx)
	if err != nil {
		return moment, err
	}
	if err := from.restore(ctx, r.local.restored(), progress); err != nil {
		return moment, fmt.Errorf("restore the replica: %w", err)
	}
	return moment, nil
}

// putBack makes what was fetched the database, with which the epoch begins, and says what it put aside for
// that.
func (r *Recovery) putBack(ctx context.Context, id identity, e epoch, moment time.Time, say func(string)) error {
	said, err := r.local.putAside(ctx)
	if said != "" {
		say(said)
	}
	if err == nil {
		id.Epoch, id.Replaced, id.RestoredTo = e.Number, false, &moment
		err = r.local.putInPlace(id)
	}
	if err != nil {
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

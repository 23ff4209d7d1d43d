package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sync/errgroup"
)

// The objects of a replica:
//
//	replica.json            the replica's id, which each database that is shipped there knows
//	epochs/0000000001.json  who may write from then on, and where that begins
//	0000000001/0/…          what was written in that epoch, in Litestream's levels
//	alive.json              the sign of life of the one who writes
const (
	replicaKey = "replica.json"
	aliveKey   = "alive.json"
	epochsDir  = "epochs/"
)

// An epoch is the time of one writer: it ends when the next one begins. What it wrote stands by
// itself, from a whole copy of the database on.
type epoch struct {
	Number  int       `json:"epoch"`
	Owner   string    `json:"owner"` // the data directory
	Host    string    `json:"host"`
	Started time.Time `json:"started"`

	// From is what the database was when the epoch began: where to restore from until the
	// epoch has a copy of its own. It is nil if the database was new to the replica.
	From *position `json:"from,omitempty"`
}

// A position is a transaction of an epoch.
type position struct {
	Epoch int      `json:"epoch"`
	TXID  ltx.TXID `json:"txid"`
}

func epochKey(number int) string { return fmt.Sprintf("%s%010d.json", epochsDir, number) }

// epoch returns the number in the key of an epoch, or 0.
func (o object) epoch() (number int) {
	_, _ = fmt.Sscanf(o.key, epochsDir+"%d", &number)
	return number
}

func epochDir(number int) string { return fmt.Sprintf("%010d/", number) }

// readEpochs returns all epochs of the replica, the newest last.
func readEpochs(ctx context.Context, b bucket) ([]epoch, error) {
	objects, err := b.List(ctx, epochsDir, "")
	if err != nil {
		return nil, err
	}
	objects = slices.DeleteFunc(objects, func(o object) bool { return epochKey(o.epoch()) != o.key }) // as what an editor left
	epochs := make([]epoch, len(objects))
	group, ctx := errgroup.WithContext(ctx) // a replica that is years old has many
	group.SetLimit(32)
	for i, object := range objects {
		group.Go(func() error {
			content, err := readAll(ctx, b, object.key)
			if err != nil {
				return err
			}
			if json.Unmarshal(content, &epochs[i]) != nil || epochs[i].Number != object.epoch() {
				return damagedEpoch(object)
			}
			return nil
		})
	}
	return epochs, group.Wait()
}

// A crash of the store may leave an object without what was in it. A hand decides what is done then.
const orAnew = "; or set REPLICA_URL to an empty place, to ship the database that is here"

func damagedEpoch(o object) error {
	// Its owner is not needed to restore it.
	return fmt.Errorf(`%s is damaged: write {"epoch":%d,"started":"%s"} into it, to restore what the replica has`+orAnew, o.key, o.epoch(), o.written.UTC().Format(time.RFC3339))
}

var errIgnoresCondition = errors.New("the store overwrites objects though it is asked not to (If-None-Match: *), so that two servers could write to one replica: use one that honours it, as AWS S3, MinIO, Ceph and Cloudflare R2 do")

// beginEpoch makes owner the only one who may write. It fails with errExists if somebody else
// was first.
func beginEpoch(ctx context.Context, b bucket, number int, owner string, from *position) (epoch, error) {
	host, _ := os.Hostname()
	e := epoch{Number: number, Owner: owner, Host: host, Started: time.Now().UTC(), From: from}
	content, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	if err := putNew(ctx, b, epochKey(number), content); errors.Is(err, errExists) {
		return e, fmt.Errorf("another server began to write to the replica at the same time: %w", err)
	} else if err != nil {
		return e, err
	}
	// A store that ignores the condition would let two servers write.
	err = b.Put(ctx, epochKey(number), bytes.NewReader(content), int64(len(content)), true)
	if err == nil {
		return e, &refusal{errIgnoresCondition}
	}
	if !errors.Is(err, errExists) {
		return e, err
	}
	return e, nil
}

// putNew stores an object that nobody else may have stored. An answer that was lost on its way
// may have been a success.
func putNew(ctx context.Context, b bucket, key string, content []byte) error {
	err := b.Put(ctx, key, bytes.NewReader(content), int64(len(content)), true)
	if !errors.Is(err, errExists) {
		return err
	}
	stored, readErr := readAll(ctx, b, key)
	if readErr != nil || bytes.Equal(stored, content) {
		return readErr // and not errExists, unless somebody else was first
	}
	return err
}

// isOver reports whether a later epoch has begun.
func (e epoch) isOver(ctx context.Context, b bucket) (bool, error) {
	content, err := b.Get(ctx, epochKey(e.Number+1), 0, 1)
	if errors.Is(err, errMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, content.Close()
}

// errGone is returned while the place is not the one that the epoch was begun in.
var errGone = errors.New("REPLICA_URL: the place is not the one that this server wrote to: is its disk mounted?")

// isThere returns errGone unless the epoch is in the replica, as it is for as long as there is one.
func (e epoch) isThere(ctx context.Context, b bucket) error {
	content, err := readAll(ctx, b, epochKey(e.Number))
	if errors.Is(err, errMissing) {
		return errGone
	}
	if err != nil {
		return err
	}
	var stored epoch
	if err := json.Unmarshal(content, &stored); err != nil || stored.Owner != e.Owner || !stored.Started.Equal(e.Started) {
		return errGone
	}
	return nil
}

// readId returns the replica's id, or "" if it has none yet.
func readId(ctx context.Context, b bucket) (string, error) {
	content, err := readAll(ctx, b, replicaKey)
	if errors.Is(err, errMissing) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var replica struct{ Id string }
	if err := json.Unmarshal(content, &replica); err != nil || replica.Id == "" {
		return "", fmt.Errorf("%s is damaged: delete it, to restore what the replica has"+orAnew, replicaKey)
	}
	return replica.Id, nil
}

// makeId gives the replica an id, unless it has one.
func makeId(ctx context.Context, b bucket) (string, error) {
	id, err := readId(ctx, b)
	if id != "" || err != nil {
		return id, err
	}
	content := []byte(`{"id":"` + newId() + `"}`)
	if err := b.Put(ctx, replicaKey, bytes.NewReader(content), int64(len(content)), true); err != nil && !errors.Is(err, errExists) {
		return "", err
	}
	return readId(ctx, b)
}

// A sign is what the writer renews while it lives. Whoever wants to write sees by two looks
// whether it changes, which no clock decides.
type sign struct {
	Run   string `json:"run"` // one start of the server
	Epoch int    `json:"epoch"`
	Host  string `json:"host"`
	Count int    `json:"count"`
	Ended bool   `json:"ended"`
}

// How often the writer gives a sign, and how long it is waited for.
const (
	signEvery = 10 * time.Second
	signWait  = 35 * time.Second
)

func (s sign) put(ctx context.Context, b bucket) error {
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return b.Put(ctx, aliveKey, bytes.NewReader(content), int64(len(content)), false)
}

func readSign(ctx context.Context, b bucket) (s sign, err error) {
	content, err := readAll(ctx, b, aliveKey)
	if err != nil && !errors.Is(err, errMissing) {
		return s, err
	}
	if whole := json.Unmarshal(content, &s) == nil; !whole { // the first was lost, or a crash of the store left it: whoever writes gives it anew
		return sign{Run: "unknown", Host: "an unknown machine"}, nil
	}
	return s, nil
}

// ended reports whether the sign is of the end of who wrote in the epoch. Who was stopped before it
// noticed that its own epoch was over tells nothing of the next one.
func (s sign) ended(e epoch) bool { return s.Ended && s.Epoch == e.Number }

// awaitSilence returns a refusal that says who writes to the replica, if anybody does.
func awaitSilence(ctx context.Context, b bucket, newest epoch, wait time.Duration, say func(string)) error {
	first, err := readSign(ctx, b)
	if err != nil || first.ended(newest) {
		return err
	}
	say(fmt.Sprintf("Looking for %s whether the server that wrote to the replica last, on %s, still does", wait, first.Host))
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Second, wait)):
		}
		now, err := readSign(ctx, b)
		if err != nil {
			return err
		}
		if now.ended(newest) {
			return nil
		}
		if now != first {
			return refuse("another server, on %s, writes to this replica: stop it first. With --takeover this one ends it and goes on in its place; what only this machine has is put aside then. A copy of its data directory needs a REPLICA_URL of its own", now.Host)
		}
	}
	return nil
}

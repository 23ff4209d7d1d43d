package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// What the replica keeps: every second of the last five minutes, then what thirty seconds changed
// together, within Retention, and a whole copy of each day. Files of thirty seconds are put
// together to those of five minutes, and those to ones of an hour, so that a restore reads few.
const (
	secondsLevel  = 0
	secondsKept   = 5 * time.Minute
	snapshotEvery = 24 * time.Hour
)

// A duty is what is done on a level, time and again.
type duty struct {
	level int
	every time.Duration
}

var (
	levels = []duty{{1, 30 * time.Second}, {2, 5 * time.Minute}, {3, time.Hour}}
	duties = append(slices.Clone(levels), duty{secondsLevel, secondsKept}, duty{litestream.SnapshotLevel, time.Hour})
)

// A keeper puts files of one epoch together, and deletes those that are not needed any more.
type keeper struct {
	db        *litestream.DB
	turn      sync.Locker // held while changes are shipped
	client    *epochClient
	compactor *litestream.Compactor
	retention time.Duration
	logger    *slog.Logger

	next    map[int]time.Time // when a level is due
	working chan struct{}

	last map[int]*ltx.FileInfo // of each level, where it is known; by who holds working
}

func newKeeper(db *litestream.DB, turn sync.Locker, b bucket, e epoch, retention time.Duration, logger *slog.Logger) *keeper {
	client := newEpochClient(b, e) // of its own: what is begun in an epoch must not end in the next
	k := &keeper{
		db: db, turn: turn, client: client, compactor: litestream.NewCompactor(client, logger), retention: retention, logger: logger,
		next: map[int]time.Time{}, working: make(chan struct{}, 1), last: map[int]*ltx.FileInfo{},
	}
	// What is asked of the store for each file costs money: what is known here is not asked.
	k.compactor.LocalFileOpener = func(level int, minTXID, maxTXID ltx.TXID) (io.ReadCloser, error) {
		return os.Open(db.LTXPath(level, minTXID, maxTXID))
	}
	k.compactor.CacheGetter = func(level int) (*ltx.FileInfo, bool) {
		info, known := k.last[level]
		return info, known
	}
	k.compactor.CacheSetter = func(level int, info *ltx.FileInfo) { k.last[level] = info }
	now := time.Now()
	for _, d := range duties {
		k.next[d.level] = now.Add(d.every)
	}
	k.next[litestream.SnapshotLevel] = now.Add(time.Minute) // a start that was short of a day must not put it off
	return k
}

// do begins what is due. It does not wait for it: a whole copy of a large database takes long,
// and changes are shipped meanwhile.
func (k *keeper) do(ctx context.Context) {
	now := time.Now()
	var due []int
	for _, d := range duties {
		if !now.Before(k.next[d.level]) {
			due = append(due, d.level)
			k.next[d.level] = now.Add(d.every)
		}
	}
	if len(due) == 0 {
		return
	}
	if !k.take() {
		return // what was begun is not done
	}
	go func() {
		defer func() { <-k.working }()
		for _, level := range due {
			if err := k.keep(context.WithoutCancel(ctx), level); err != nil && !k.client.over.Load() {
				k.logger.Warn("Failed to put the replica's files together: it is tried again", "level", level, "error", err)
			}
		}
	}()
}

// take keeps the keeper from beginning anything, unless it does something.
func (k *keeper) take() bool {
	select {
	case k.working <- struct{}{}:
		return true
	default:
		return false
	}
}

func (k *keeper) keep(ctx context.Context, level int) error {
	switch level {
	case litestream.SnapshotLevel:
		return k.snapshot(ctx)
	case secondsLevel:
		return k.forgetSeconds(ctx)
	}
	_, err := k.compactor.Compact(ctx, level)
	if errors.Is(err, litestream.ErrNoCompaction) {
		return nil
	}
	return err
}

// forgetSeconds deletes what is a part of a later file, and older than the seconds that are kept.
// The newest stays: by it a start sees whether the database here is of the replica's line.
func (k *keeper) forgetSeconds(ctx context.Context) error {
	joined, err := k.compactor.MaxLTXFileInfo(ctx, levels[0].level)
	if err != nil {
		return err
	}
	infos, err := k.client.files(ctx, secondsLevel)
	if err != nil || len(infos) == 0 {
		return err
	}
	newest, old := infos[len(infos)-1].CreatedAt, []*ltx.FileInfo{}
	for _, info := range infos[:len(infos)-1] {
		if info.MaxTXID > joined.MaxTXID || newest.Sub(info.CreatedAt).Abs() < secondsKept { // later, if the clock was set back
			break
		}
		old = append(old, info)
	}
	if err := k.client.DeleteLTXFiles(ctx, old); err != nil {
		return err
	}
	return k.forgetLocal(infos[len(old)].MinTXID)
}

// forgetLocal deletes what is here of the seconds before a transaction, which are in the replica.
func (k *keeper) forgetLocal(before ltx.TXID) error {
	dir := k.db.LTXLevelDir(secondsLevel)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if _, last, err := ltx.ParseFilename(entry.Name()); err != nil || last >= before {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// snapshot ships a whole copy once a day, and deletes what is older than the retention needs: the
// newest copy of before it stays, and what follows on that. It deletes no more than one copy at a time, and
// one epoch: a clock that is wrong for an hour does not take all that is there.
func (k *keeper) snapshot(ctx context.Context) error {
	copies, err := k.client.files(ctx, litestream.SnapshotLevel)
	if err != nil {
		return err
	}
	position, err := k.db.Pos()
	if err != nil {
		return err
	}
	copied, upTo := k.client.epoch.Load().Started, ltx.TXID(1) // an epoch begins with a whole copy
	if len(copies) > 0 {
		copied, upTo = copies[len(copies)-1].CreatedAt, copies[len(copies)-1].MaxTXID
	}
	if time.Since(copied).Abs() > snapshotEvery && upTo < position.TXID { // to come, if the clock was set back
		if err := k.copyWhole(ctx); err != nil {
			return fmt.Errorf("whole copy: %w", err)
		}
	}
	needed := 0
	for i, whole := range copies {
		if time.Since(whole.CreatedAt) > k.retention {
			needed = min(i, 1)
		}
	}
	if needed > 0 {
		if err := k.client.DeleteLTXFiles(ctx, copies[:needed]); err != nil {
			return err
		}
		for _, l := range levels {
			if err := k.compactor.EnforceRetentionByTXID(ctx, l.level, copies[needed].MaxTXID); err != nil {
				return err
			}
		}
	}
	if f, ok := k.client.bucket.(folder); ok {
		if err := f.sweep(); err != nil {
			return err
		}
	}
	return k.forgetEpochs(ctx)
}

// copyWhole ships a whole copy of what is shipped: a start would take one of later than the seconds for
// another's.
func (k *keeper) copyWhole(ctx context.Context) error {
	k.turn.Lock()
	position, content, err := k.db.SnapshotReader(ctx)
	shipped := k.db.Replica.Pos()
	k.turn.Unlock()
	if err != nil {
		return err
	}
	if shipped.TXID < position.TXID {
		err = errors.New("the replica has not all changes yet")
	} else {
		_, err = k.client.WriteLTXFile(ctx, litestream.SnapshotLevel, 1, position.TXID, content)
	}
	return cmp.Or(err, content.Close())
}

// forgetEpochs deletes what was written in the first epoch that ended before the retention, of those that
// have something still.
func (k *keeper) forgetEpochs(ctx context.Context) error {
	epochs, err := readEpochs(ctx, k.client.bucket)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(epochs); i++ {
		if time.Since(epochs[i+1].Started) < k.retention || epochs[i].Number >= k.client.epoch.Load().Number {
			continue
		}
		objects, err := k.client.bucket.List(ctx, epochDir(epochs[i].Number), "")
		if err != nil {
			return err
		}
		var keys []string
		for _, object := range objects {
			keys = append(keys, object.key)
		}
		if len(keys) > 0 {
			return k.client.bucket.Delete(ctx, keys)
		}
	}
	return nil
}

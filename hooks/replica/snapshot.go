package replica

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

const (
	// A snapshot is made when the log has grown by a quarter of the database, but not before the
	// first bound, and not after the second. One that failed is tried again after the pause.
	minGrowth     = 64 << 20
	maxGrowth     = 512 << 20
	snapshotPause = time.Minute

	// snapshotReserve is how much of the disk one leaves free.
	snapshotReserve = 32 << 20

	endOfLog = math.MaxUint64
)

// A snapshot is a database at a position of a log, in a file whose name says all of this, so that it
// is there whole or not at all.
type snapshot struct {
	path     string
	position uint64
	log      string // its id
	hash     string // SHA-256 of the file, in hex
}

func snapshotDir(path string) string { return filepath.Join(path+logSuffix, "snapshots") }

// temporary returns the path of the snapshot that is being made.
func temporary(dir string) string { return filepath.Join(dir, "new") }

// snapshots returns those in a folder, the newest first.
func snapshots(dir string) (all []snapshot) {
	files, _ := os.ReadDir(dir) // sorted; there is none before the first
	for _, file := range slices.Backward(files) {
		if s, ok := parseSnapshot(filepath.Join(dir, file.Name())); ok {
			all = append(all, s)
		}
	}
	return all
}

// parseSnapshot reports whether the name of a file says that it is one.
func parseSnapshot(path string) (s snapshot, ok bool) {
	name, whole := strings.CutSuffix(filepath.Base(path), ".db")
	parts := strings.Split(name, "-")
	position, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil || !whole || len(parts) != 3 {
		return s, false
	}
	return snapshot{path, position, parts[1], parts[2]}, true
}

// keepSnapshot makes the database that the applier has, which is the folder's temporary file, a
// snapshot, once it is found right and is on disk. It closes the database, and does no more than
// that with an error.
func keepSnapshot(a *applier, dir string, err error) (s snapshot, _ error) {
	var at standing
	if err == nil {
		at, err = a.standing()
	}
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return s, errors.Join(err, a.close())
	}
	if err := closeDurably(a, temporary(dir)); err != nil {
		return s, err
	}
	file, err := os.Open(temporary(dir))
	if err != nil {
		return s, err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return s, err
	}
	s = snapshot{"", at.position, at.log, hex.EncodeToString(hash.Sum(nil))}
	s.path = filepath.Join(dir, fmt.Sprintf("%020d-%s-%s.db", s.position, s.log, s.hash))
	return s, errors.Join(os.Rename(temporary(dir), s.path), disk.Sync(dir))
}

// check has SQLite look for damage.
func (a *applier) check() error {
	var found string
	err := a.conn.QueryRowContext(context.Background(), "PRAGMA quick_check(1)").Scan(&found)
	if err == nil && found != "ok" {
		err = errors.New(found)
	}
	return err
}

// errUnusable is of a snapshot for which another one may do.
var errUnusable = errors.New("this snapshot can't be used")

// isPassedOver reports whether it is because of the snapshot, or of the log after it, that it can't be
// brought to a position.
func isPassedOver(err error) bool {
	return errors.Is(err, errUnusable) || errors.Is(err, errTrimmed) || errors.Is(err, errHole) || isDiverged(err)
}

// copyTo copies the snapshot, which must be right.
func (s snapshot) copyTo(path string) error {
	removeDatabase(path)
	from, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(to, hash), from)
	if err == nil && hex.EncodeToString(hash.Sum(nil)) != s.hash {
		err = fmt.Errorf("its hash is another one than its name says: %w", errUnusable)
	}
	return errors.Join(err, to.Close())
}

// suffixes are those of the files that a database is, of which the first must not be there without
// the others.
var suffixes = []string{"-wal", "-shm", "-journal", ""}

func removeDatabase(path string) {
	for _, suffix := range suffixes {
		_ = os.Remove(path + suffix) // what is there all the same is an error of what comes next
	}
}

// Snapshot makes a snapshot of the database as the log has it, compares the two, and forgets what
// the log has before the last snapshot but one. A node does it by itself when it starts and whenever
// the log has grown, and nothing waits for it.
func (n *Node) Snapshot() error {
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed == nil {
		return errNotConnected
	}
	answer := make(chan error, 1)
	select {
	case n.asked <- answer:
		return <-answer
	case <-closed:
		return errNotConnected
	}
}

// keepSnapshots makes them, until the node is closed. A database that was made from one just now
// needs none.
func (n *Node) keepSnapshots(ctx context.Context, made bool) {
	now := make(chan time.Time, 1)
	now <- time.Now()
	var again <-chan time.Time
	if !made {
		again = now
	}
	for {
		var answer chan<- error
		select {
		case <-ctx.Done():
			return
		case answer = <-n.asked:
		case <-n.grew:
			if again != nil || n.growth.Load() < n.bound.Load() && !n.full.Load() {
				continue // one is tried soon, or it had grown while the last one was made
			}
		case <-again:
		}
		again = nil
		err := n.snapshot(ctx)
		if err != nil && ctx.Err() == nil {
			n.logger().Error("No snapshot of the database could be made: the log grows until one is", "error", err)
			again = time.After(snapshotPause)
		}
		if answer != nil {
			answer <- err
		}
	}
}

// snapshot is a snapshot before, with what the log has since then: so the database itself, which
// is compared with that, is found out if it was changed past the log.
func (n *Node) snapshot(ctx context.Context) error {
	if n.condemned.Load() {
		return errCondemned
	}
	dir := snapshotDir(n.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	removeDatabase(temporary(dir)) // of one that was cut off, which has the room that this one needs
	if err := checkSpace(n.path, dir); err != nil {
		return err
	}
	live, err := newApplier(n.path)
	if err != nil {
		return err
	}
	defer func() { _ = live.close() }() // of which only was read
	defer removeDatabase(temporary(dir))
	next, from, err := n.nextSnapshot(ctx, live)
	if err != nil {
		return err
	}
	differences, err := n.compare(ctx, live, next)
	position, positionErr := next.position()
	if err == nil && positionErr == nil && position == from.position { // nothing was written since then
		older := from
		for _, s := range snapshots(dir) {
			older = s
		}
		err = errors.Join(next.close(), n.trim(from, older))
	} else {
		err = n.keep(next, from, errors.Join(err, positionErr))
	}
	if err != nil || differences == "" {
		return err
	}
	return n.condemn(differences)
}

// checkSpace fails if a snapshot would fill the disk, on which nothing could be written then.
func checkSpace(path, dir string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	free, err := disk.Free(dir)
	if err != nil {
		return err
	}
	if need := uint64(info.Size() + info.Size()/4 + snapshotReserve); free < need {
		return fmt.Errorf("%d MB are free in %s, and a snapshot needs %d MB: make room", free>>20, dir, need>>20)
	}
	return nil
}

// nextSnapshot returns the newest snapshot that is right, brought to where the database is. If none
// can be, it is a copy of that.
func (n *Node) nextSnapshot(ctx context.Context, live *applier) (next *applier, from snapshot, err error) {
	at, err := live.standing()
	if err != nil {
		return nil, from, err
	}
	dir := snapshotDir(n.path)
	for s, err := range n.usable(n.path) {
		if err != nil {
			return nil, from, err
		}
		next, err := n.bring(ctx, s, temporary(dir), at.log, at.position)
		if err == nil {
			return next, s, nil
		}
		if !isPassedOver(err) {
			return nil, from, err
		}
		n.logger().Error("A snapshot can't be brought to where the database is", "file", s.path, "error", err)
	}
	if n.log.config.several() {
		return nil, from, errors.New("none can be brought to where the database is, and no other node has one that can")
	}
	n.logger().Error("No snapshot can be used: the next one is a copy of the database, whatever the log says")
	removeDatabase(temporary(dir))
	if err := live.copyInto(temporary(dir)); err != nil {
		return nil, from, err
	}
	next, err = newApplier(temporary(dir))
	return next, from, err
}

// bring makes a copy of a snapshot of a log, and brings it to a position.
func (n *Node) bring(ctx context.Context, s snapshot, path, log string, position uint64) (*applier, error) {
	if s.log != log {
		return nil, fmt.Errorf("it is of another log: %w", errUnusable)
	}
	if s.position > position {
		return nil, fmt.Errorf("it is newer than the database: %w", errUnusable)
	}
	if err := s.copyTo(path); err != nil {
		return nil, err
	}
	a, err := newApplier(path)
	if err != nil {
		return nil, err
	}
	err = a.exec(ctx, "PRAGMA synchronous = OFF") // it is synced when it is whole
	if err == nil {
		err = n.bringTo(ctx, a, position)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// bringWait is how long a copy of the database waits for the log: longer than an election takes.
const bringWait = 15 * time.Second

// bringTo is catchUp for a copy, which goes on when another node has begun to lead meanwhile: what is asked just then isn't answered.
func (n *Node) bringTo(ctx context.Context, a *applier, position uint64) error {
	for until := time.Now().Add(bringWait); ; {
		err := n.catchUp(ctx, a, position)
		if err == nil || !n.several() || ctx.Err() != nil || isDiverged(err) || errors.Is(err, errTrimmed) || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(healPause):
		}
	}
}

// keep makes what is to be the next snapshot that. All but this one and the one that it was made from
// are deleted then, and so is what the log has before those.
func (n *Node) keep(next *applier, from snapshot, err error) error {
	dir := snapshotDir(n.path)
	s, err := keepSnapshot(next, dir, err)
	if err != nil {
		return err
	}
	n.growth.Store(0)
	n.bound.Store(growthBound(n.path))
	for _, other := range snapshots(dir) {
		if other != s && other != from {
			if err := os.Remove(other.path); err != nil {
				return err
			}
		}
	}
	if from.path == "" {
		from = s
	}
	return n.trim(s, from)
}

// trim cuts off what the log has before the older of two snapshots: if it is so long that it may be full
// soon, before the newer one.
func (n *Node) trim(newer, older snapshot) error {
	n.keeps.Store(older.position)
	n.newest.Store(newer.position)
	if n.log.config.several() { // see trimTo
		return nil
	}
	state, err := n.log.state()
	if err != nil {
		return err
	}
	if state.Bytes > uint64(n.log.max/2) {
		older = newer
	}
	return n.log.trim(older.position)
}

// growthBound returns how much the log of a database grows before the next snapshot.
func growthBound(path string) int64 {
	size := int64(0)
	if info, err := os.Stat(path); err == nil {
		size = info.Size()
	}
	return min(max(size/4, minGrowth), maxGrowth)
}

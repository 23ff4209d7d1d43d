package recovery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/pocketbase/pocketbase/core"
	"github.com/superfly/ltx"
)

// What the plugin keeps in the data directory for the replica.
const (
	localDir     = ".replica"
	asidePrefix  = "superseded-"
	verifyDir    = ".replica-verify" // apart: Litestream deletes files of localDir when it opens the database
	dataFile     = "data.db"
	identityFile = "identity.json"
	headersFile  = "headers"
	stateFile    = "state.json"
	signFile     = "sign.json"
	lockFile     = "lock"
	verifyLock   = "verify.lock"
)

// A local is the data directory's side of a replica.
type local struct {
	dataDir string
	dir     string
}

func newLocal(dataDir string) local {
	return local{dataDir: dataDir, dir: filepath.Join(dataDir, localDir)}
}

func (l local) data() string { return filepath.Join(l.dataDir, dataFile) }

// hasData reports whether there is a database. A file of no bytes is none: SQLite would begin a new one, and
// that be shipped as what the replica's became.
func (l local) hasData() (bool, error) {
	info, err := os.Stat(l.data())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Size() > 0, err
}

// An identity is what the data directory knows of the line that its database belongs to.
type identity struct {
	Owner   string `json:"owner"`   // of the data directory
	Replica string `json:"replica"` // id of the replica that it was shipped to last; empty if to none
	URL     string `json:"url"`     // and where that was
	Epoch   int    `json:"epoch"`

	// Replaced says that data.db is not what was shipped: a backup was restored, too much waited
	// for the store, or a server ran without the replica. A new epoch must begin, with a whole copy,
	// unless the replica went on since from what was here until then: see noteHeaders.
	Replaced bool     `json:"replaced"`
	Last     ltx.TXID `json:"last"` // that was here until then, of a version that noted no headers; else 0

	// RestoredTo is the moment that the database was restored to, until the app was told.
	RestoredTo *time.Time `json:"restoredTo,omitempty"`
}

// readIdentity returns the identity, a new one if there is none.
func (l local) readIdentity() (identity, error) {
	content, err := os.ReadFile(filepath.Join(l.dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return identity{Owner: newId()}, nil
	}
	if err != nil {
		return identity{}, err
	}
	var id identity
	if err := json.Unmarshal(content, &id); err != nil || id.Owner == "" {
		return identity{}, fmt.Errorf("%s is damaged: move the data directory away to restore the replica into a new one", filepath.Join(l.dir, identityFile))
	}
	return id, nil
}

func (l local) writeIdentity(id identity) error { return l.write(identityFile, id) }

// write replaces one of the local files, durably.
func (l local) write(name string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return folder(l.dir).Put(context.Background(), name, bytes.NewReader(content), int64(len(content)), false)
}

// lock makes this process the only one that ships from the data directory, or restores into it.
func (l local) lock() (*flock.Flock, error) { return l.take((*flock.Flock).TryLockContext) }

// share makes it one of those that keep such a process away.
func (l local) share() (*flock.Flock, error) { return l.take((*flock.Flock).TryRLockContext) }

// take waits a little for a command, which has the lock for a moment.
func (l local) take(try func(*flock.Flock, context.Context, time.Duration) (bool, error)) (*flock.Flock, error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(l.dir, lockFile))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := try(lock, ctx, 20*time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, refuse("a server runs on %s, or a restore: stop it first", l.dataDir)
	}
	if err != nil {
		return nil, err
	}
	return lock, nil
}

// beforeCommand is beforeOther for a command. Beside a server that has the database open, nothing is to be
// done; beside one that has none yet, a command must not begin one.
func (l local) beforeCommand(ctx context.Context) error {
	lock := flock.New(filepath.Join(l.dir, lockFile))
	if _, err := os.Stat(lock.Path()); err != nil {
		return nil // no server has run here
	}
	if locked, err := lock.TryLock(); err != nil {
		return nil
	} else if locked {
		defer func() { _ = lock.Unlock() }()
		return l.beforeOther(ctx)
	}
	if hasData, err := l.hasData(); err != nil || hasData {
		return err
	}
	return refuse("a server starts on %s, and has no database yet: it says what it waits for", l.dataDir)
}

// beforeOther prepares the data directory for what opens the database without shipping it. Where there is
// none, that begins another one, which is not what was shipped from here. Else it ends the WAL, after which
// no start could tell that the end of that was lost.
func (l local) beforeOther(ctx context.Context) error {
	hasData, err := l.hasData()
	if err != nil {
		return err
	}
	if hasData {
		_, _, err := l.checkWAL(ctx)
		return err
	}
	if err := os.RemoveAll(l.ltxDir()); err != nil {
		return err
	}
	err = os.Remove(filepath.Join(l.dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// A place is a data directory on a machine that runs. A copy of the directory is another place, and
// so is one of the machine, which was booted by itself.
type place struct {
	Boot string `json:"boot"` // empty if the machine does not tell
	Lock string `json:"lock"` // the file
}

func (l local) here() place {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return place{Boot: strings.TrimSpace(string(boot)), Lock: fileId(filepath.Join(l.dir, lockFile))}
}

// A given is the last sign of life that was given from a place.
type given struct {
	Sign  sign  `json:"sign"`
	Place place `json:"place"`
}

// noteSign notes a sign, durably, before it is given.
func (l local) noteSign(s sign) error { return l.write(signFile, given{s, l.here()}) }

// readGiven returns what was given last from this data directory or what it is a copy of. Without the
// note, a start looks for who writes.
func (l local) readGiven() (g given) {
	if content, err := os.ReadFile(filepath.Join(l.dir, signFile)); err == nil {
		_ = json.Unmarshal(content, &g)
	}
	return g
}

// before reports whether the last sign that the replica has was given by the server that ran here
// before. That one has ended, since this process has its lock. Nothing tells a machine that was booted
// again from a copy of it that is started before the next sign is given: that is enough to go on in the
// epoch, where the one of two that writes second ends, but not to begin one, which ends the other.
func (g given) before(here place, last sign, next step) bool {
	return here.Lock != "" && g.Place.Lock == here.Lock && g.Sign.Run == last.Run && g.Sign.Count >= last.Count &&
		(here.Boot != "" && g.Place.Boot == here.Boot || next == goOn)
}

// isUntouched reports whether the database that is here was made by a command before a server ran:
// it holds nothing but superusers.
func (l local) isUntouched(ctx context.Context) bool {
	counts, err := countRecords(ctx, l.data())
	for _, c := range counts {
		if c.Collection != core.CollectionNameSuperusers {
			return false
		}
	}
	return err == nil
}

// verifyPlace returns an empty directory, of the disk that a restored database would be on, and what
// deletes it. What an earlier call left that was killed is deleted first.
func (l local) verifyPlace() (dir string, done func(), err error) {
	if _, err := os.Stat(l.dataDir); err != nil {
		dir, err = os.MkdirTemp("", "verify-*")
		return dir, func() { os.RemoveAll(dir) }, err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return "", nil, err
	}
	lock := flock.New(filepath.Join(l.dir, verifyLock))
	if locked, err := lock.TryLock(); err != nil || !locked {
		return "", nil, cmp.Or(err, fmt.Errorf("restore --verify runs on %s already", l.dataDir))
	}
	dir = filepath.Join(l.dataDir, verifyDir)
	done = func() {
		os.RemoveAll(dir)
		_ = lock.Unlock()
	}
	if err = os.RemoveAll(dir); err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		done()
	}
	return dir, done, err
}

// tidy deletes what was left by what was cut off.
func (l local) tidy() {
	for _, pattern := range []string{"restored.db*", tempPattern} {
		left, _ := filepath.Glob(filepath.Join(l.dir, pattern))
		for _, path := range left {
			_ = os.RemoveAll(path)
		}
	}
}

// dropReplaced deletes what was read of a database that was replaced since.
func (l local) dropReplaced() error {
	id, err := l.readIdentity()
	if err != nil || !id.Replaced {
		return err
	}
	return os.RemoveAll(l.ltxDir())
}

// isWhole reports whether what was read of the database begins with all of it, as an epoch must.
func (l local) isWhole() bool {
	_, err := os.Stat(l.ltxPath(1))
	return err == nil
}

// ltxDir is where Litestream keeps what is not shipped yet, and the last that is.
func (l local) ltxDir() string { return filepath.Join(l.dir, "ltx") }

// last returns the newest transaction that the database was read up to for the replica, 0 if none.
func (l local) last() (ltx.TXID, error) {
	txids, err := l.read()
	if err != nil || len(txids) == 0 {
		return 0, err
	}
	return txids[len(txids)-1], nil
}

// read returns the transactions that are here of what was read, in order.
func (l local) read() (txids []ltx.TXID, err error) {
	entries, err := os.ReadDir(filepath.Join(l.ltxDir(), "0"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, entry := range entries {
		if _, txid, err := ltx.ParseFilename(entry.Name()); err == nil {
			txids = append(txids, txid)
		}
	}
	return txids, err
}

func (l local) ltxPath(txid ltx.TXID) string {
	return filepath.Join(l.ltxDir(), "0", ltx.FormatFilename(txid, txid))
}

// header returns what the local file of a transaction begins with.
func (l local) header(txid ltx.TXID) (ltx.Header, error) {
	file, err := os.Open(l.ltxPath(txid))
	if err != nil {
		return ltx.Header{}, err
	}
	defer file.Close()
	header, _, err := ltx.PeekHeader(file)
	return header, err
}

// goesOn reports whether the database is what the epoch's owner may go on from: it has all that
// the replica has, and is of the same line.
func (l local) goesOn(ctx context.Context, client *epochClient) (bool, error) {
	return client.isOf(ctx, l.header)
}

// noteHeaders notes, durably, what the local files begin with, before the database is replaced.
func (l local) noteHeaders() error {
	txids, err := l.read()
	if err != nil {
		return err
	}
	var headers bytes.Buffer
	for _, txid := range txids {
		if header, err := l.header(txid); err == nil { // else it is damaged
			content, err := header.MarshalBinary()
			if err != nil {
				return err
			}
			headers.Write(content)
		}
	}
	return folder(l.dir).Put(context.Background(), headersFile, &headers, -1, false)
}

// headerBefore is header for what was here before the database was replaced.
func (l local) headerBefore(txid ltx.TXID) (header ltx.Header, err error) {
	headers, err := os.ReadFile(filepath.Join(l.dir, headersFile))
	if err != nil {
		return header, err
	}
	for content := range slices.Chunk(headers, ltx.HeaderSize) {
		if err := header.UnmarshalBinary(content); err == nil && header.MinTXID == txid {
			return header, nil
		}
	}
	return header, fs.ErrNotExist
}

package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/superfly/ltx"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// A source is a state of the database that the replica has.
type source struct {
	client *epochClient
	files  []*ltx.FileInfo // of which it is put together
}

func (s *source) epoch() int { return s.client.epoch.Load().Number }

func (s *source) txid() ltx.TXID { return s.files[len(s.files)-1].MaxTXID }

func (s *source) size() (bytes int64) {
	for _, file := range s.files {
		bytes += file.Size
	}
	return bytes
}

// moment returns when the state was the database's.
func (s *source) moment(ctx context.Context) (time.Time, error) {
	header, err := s.client.header(ctx, s.files[len(s.files)-1])
	return time.UnixMilli(header.Timestamp).UTC(), err
}

// errNothing is returned if the replica has no state to restore.
var errNothing = errors.New("the replica has nothing of that time")

// findSource returns the newest state that the replica has, or that it had at a time, if that is
// not zero. epochs are all, the newest last.
func findSource(ctx context.Context, b bucket, epochs []epoch, to time.Time) (*source, error) {
	var txid ltx.TXID // 0 means the newest
	for i := len(epochs) - 1; i >= 0; {
		e := epochs[i]
		if !to.IsZero() && e.Started.After(to) {
			i--
			continue
		}
		client := newEpochClient(b, e)
		moment := to
		if txid != 0 {
			moment = time.Time{}
		}
		files, err := litestream.CalcRestorePlan(ctx, client, txid, moment, slog.New(slog.DiscardHandler))
		if err == nil {
			return &source{client: client, files: files}, nil
		}
		if !errors.Is(err, litestream.ErrTxNotAvailable) {
			return nil, withWayOut(ctx, err)
		}
		if last, err := client.lastOf(ctx); err != nil {
			return nil, err
		} else if last.MaxTXID > 0 && moment.IsZero() {
			return nil, fmt.Errorf("epoch %d cannot be restored: files of its beginning are missing. If there were epochs before, restore --to a moment before %s brings back the last one", e.Number, e.Started.Format(time.DateTime))
		}
		// It ended before it had a copy of its own.
		i--
		if txid = 0; e.From != nil {
			txid = e.From.TXID
			i = slices.IndexFunc(epochs, func(before epoch) bool { return before.Number == e.From.Epoch })
		}
	}
	return nil, errNothing
}

// firstMoment returns the first moment that the replica has the database of, or zero if it has none.
func firstMoment(ctx context.Context, b bucket, epochs []epoch) (time.Time, error) {
	for _, e := range epochs {
		client := newEpochClient(b, e)
		var first *ltx.FileInfo // that needs none before it
		for level := range litestream.SnapshotLevel + 1 {
			files, err := client.files(ctx, level)
			if err != nil {
				return time.Time{}, err
			}
			for _, file := range files {
				if file.MinTXID == 1 && (first == nil || file.MaxTXID < first.MaxTXID) {
					first = file
				}
			}
		}
		if first != nil {
			return (&source{client: client, files: []*ltx.FileInfo{first}}).moment(ctx)
		}
	}
	return time.Time{}, nil
}

// restore writes the state to a file that is not there, and checks it. What is read from the
// replica is counted by progress, which may be nil.
func (s *source) restore(ctx context.Context, path string, progress io.Writer) error {
	for _, left := range []string{path, path + ".tmp", path + "-wal", path + "-shm"} {
		if err := os.Remove(left); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	s.client.read = progress
	options := litestream.NewRestoreOptions()
	options.OutputPath, options.TXID = path, s.txid()
	err := litestream.NewReplicaWithClient(nil, s.client).Restore(ctx, options)
	if err == nil {
		err = checkIntegrity(ctx, path)
	}
	return withWayOut(ctx, err)
}

// withWayOut adds to why a state cannot be restored how to find one that can.
func withWayOut(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w. If the replica is damaged, restore --verify --to an earlier moment finds one that is whole, and restore --to brings that back", err)
}

// checkIntegrity returns an error if SQLite finds a fault in a database that nobody has open.
func checkIntegrity(ctx context.Context, path string) error {
	return withDB(path, func(db *dbx.DB) error {
		var faults []string
		if err := db.NewQuery("PRAGMA integrity_check(10)").WithContext(ctx).Column(&faults); err != nil {
			return err
		}
		if len(faults) != 1 || faults[0] != "ok" {
			return fmt.Errorf("the restored database is damaged: %s", strings.Join(faults, "; "))
		}
		return nil
	})
}

// withDB opens a database that nobody has open.
func withDB(path string, fn func(db *dbx.DB) error) error {
	db, err := dbx.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	db.DB().SetMaxOpenConns(1) // what is attached is the connection's
	return cmp.Or(fn(db), db.Close())
}

// A count is how many records of a collection there are.
type count struct {
	Collection string
	Records    int
}

// countRecords returns the records of each collection of a database.
func countRecords(ctx context.Context, path string) ([]count, error) {
	return countIn(ctx, path, "", "SELECT COUNT(*) FROM {{%[1]s}}")
}

// countMissing returns how many records of a database another one does not have.
func countMissing(ctx context.Context, path, other string) ([]count, error) {
	return countIn(ctx, path, other, "SELECT COUNT(*) FROM main.{{%[1]s}} WHERE id NOT IN (SELECT id FROM other.{{%[1]s}})")
}

func countIn(ctx context.Context, path, other, query string) (counts []count, err error) {
	err = withDB(path, func(db *dbx.DB) error {
		if other != "" {
			if _, err := db.NewQuery("ATTACH {:path} AS other").Bind(dbx.Params{"path": other}).WithContext(ctx).Execute(); err != nil {
				return err
			}
		}
		var collections []string
		err := db.Select("name").From("_collections").Where(dbx.NewExp("type != {:view}", dbx.Params{"view": core.CollectionTypeView})).
			OrderBy("name").WithContext(ctx).Column(&collections)
		if err != nil {
			return err
		}
		for _, collection := range collections {
			c := count{Collection: collection}
			err := db.NewQuery(fmt.Sprintf(query, collection)).WithContext(ctx).Row(&c.Records)
			if err != nil && other != "" { // the other has no such collection
				err = db.NewQuery(fmt.Sprintf("SELECT COUNT(*) FROM {{%s}}", collection)).WithContext(ctx).Row(&c.Records)
			}
			if err != nil {
				return err
			}
			if c.Records > 0 {
				counts = append(counts, c)
			}
		}
		return nil
	})
	return counts, err
}

func inWords(counts []count) string {
	var words []string
	for _, c := range counts {
		words = append(words, fmt.Sprintf("%s %d", c.Collection, c.Records))
	}
	return strings.Join(words, ", ")
}

// putAside moves the database that is here, if there is one, into a directory of its own, where it
// stays; said tells what only that has. A crash does not part it from its WAL: that is copied before
// the database goes, and goes after it, since what is left of it would be taken for the next one's.
func (l local) putAside(ctx context.Context) (said string, err error) {
	aside := filepath.Join(l.dataDir, asidePrefix+time.Now().UTC().Format("20060102-150405.000"))
	for _, name := range []string{dataFile + "-journal", dataFile + "-wal"} {
		if err := copyInto(ctx, aside, filepath.Join(l.dataDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	for _, name := range []string{dataFile, dataFile + "-journal", dataFile + "-wal", dataFile + "-shm"} {
		path := filepath.Join(l.dataDir, name)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(aside, 0o700); err != nil {
			return "", err
		}
		if err := os.Rename(path, filepath.Join(aside, name)); err != nil {
			return "", err
		}
		if err := cmp.Or(disk.Sync(aside), disk.Sync(l.dataDir)); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(filepath.Join(aside, dataFile)); err == nil {
		said = l.tellAside(ctx, aside)
	}
	return said, nil
}

// copyInto copies a file into a directory, durably.
func copyInto(ctx context.Context, dir, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return folder(dir).Put(ctx, filepath.Base(path), file, -1, false)
}

// restored is what was fetched from the replica, until it is the database.
func (l local) restored() string { return filepath.Join(l.dir, "restored.db") }

// putInPlace makes what was fetched the database, where none is. It is known before it is there:
// while it is not, it is restored again.
func (l local) putInPlace(id identity) error {
	if err := os.RemoveAll(l.ltxDir()); err != nil { // of the database before
		return err
	}
	if err := l.writeIdentity(id); err != nil {
		return err
	}
	if err := os.Rename(l.restored(), l.data()); err != nil {
		return err
	}
	return disk.Sync(l.dataDir)
}

func (l local) tellAside(ctx context.Context, aside string) string {
	missing, err := countMissing(ctx, filepath.Join(aside, dataFile), l.restored())
	switch {
	case err != nil:
		return fmt.Sprintf("The database that was here is in %s; it could not be compared: %v", aside, err)
	case len(missing) == 0:
		return fmt.Sprintf("The database that was here is in %s; it has no record that the restored one has not", aside)
	}
	return fmt.Sprintf("The database that was here is in %s; records that only it has: %s", aside, inWords(missing))
}

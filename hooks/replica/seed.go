package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// Seed begins a log for a data.db that has rows and follows no log: what it has becomes the base
// snapshot, from which the log goes on. Nothing else may have the database open, and it may be done
// for one node only. If it fails or is cut off, nodes refuse the database until it is done again.
func Seed(path string) error {
	if err := checkDriver(sqliteDriver()); err != nil {
		return err
	}
	at, err := standingOf(path)
	if err == nil && at.empty {
		err = errors.New("it has no tables: a node begins a log for it by itself")
	}
	if err == nil && at.log != "" {
		err = errors.New("it follows a log already")
	}
	if err != nil {
		return fmt.Errorf("begin a log for %s: %w", path, err)
	}
	l := newStreamLog(slog.Default)
	if err := l.open(path+logSuffix, 0); err != nil {
		return fmt.Errorf("begin a log for %s: %w", path, err)
	}
	if err := errors.Join(beginLog(path, l), l.close()); err != nil {
		return fmt.Errorf("begin a log for %s: %w", path, err)
	}
	return nil
}

// beginLog makes a base snapshot of the database, makes the log begin with that, and the database
// follow the log, in this order: cut off before the last, the database is as before, and the next
// seed follows the one that is in the log.
func beginLog(path string, l *streamLog) (err error) {
	position, err := lastSeed(l)
	if err != nil {
		return err
	}
	position++
	// From its first transaction on, nobody else has the database.
	db, err := openApplier(path + "?_pragma=busy_timeout(1000)&_pragma=locking_mode(EXCLUSIVE)&_pragma=journal_mode(WAL)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	if err := db.exec(context.Background(), "BEGIN IMMEDIATE; COMMIT"); err != nil {
		return fmt.Errorf("stop what else has it open: %w", err)
	}
	if err := db.checkTables(); err != nil {
		return err
	}
	dir := snapshotDir(path)
	for _, s := range snapshots(dir) {
		if s.log != l.id {
			return fmt.Errorf("%s has snapshots of a log that is gone: put that back, or move it all away", l.dir)
		}
	}
	if err := os.RemoveAll(dir); err != nil { // of seeds before
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer removeDatabase(temporary(dir))
	if err := db.copyInto(temporary(dir)); err != nil {
		return err
	}
	base, err := newApplier(temporary(dir))
	if err != nil {
		return err
	}
	s, err := keepSnapshot(base, dir, base.begin(l.id, position))
	if err := errors.Join(err, disk.Sync(l.dir), disk.Sync(filepath.Dir(l.dir))); err != nil {
		return err
	}
	var entry changes
	entry.seed(l.id, s.hash)
	if err := l.append(position-1, entry.entry()); err != nil {
		return err
	}
	return db.begin(l.id, position)
}

var errHasEntries = errors.New("it has entries of a database already")

// lastSeed returns how far the log has come, which must have nothing but seeds.
func lastSeed(l *streamLog) (last uint64, err error) {
	err = l.read(0, func(position uint64, entry []byte) error {
		for c, err := range decode(entry) {
			if err != nil {
				return err
			}
			if c.kind != 'L' {
				return errHasEntries
			}
		}
		last = position
		return nil
	})
	if errors.Is(err, errTrimmed) {
		err = errHasEntries
	}
	if err != nil {
		err = fmt.Errorf("the log in %s can't begin: %w", l.dir, err)
	}
	return last, err
}

// checkTables refuses tables whose changes can't be logged.
func (a *applier) checkTables() error {
	var names *string
	err := a.conn.QueryRowContext(context.Background(), "SELECT group_concat(name, ', ') FROM pragma_table_list WHERE schema = 'main' AND (type = 'virtual' OR wr)").Scan(&names)
	if err == nil && names != nil {
		err = fmt.Errorf("virtual tables and tables WITHOUT ROWID can't be logged: drop %s", *names)
	}
	if err != nil {
		return err
	}
	var hidden int
	err = a.conn.QueryRowContext(context.Background(), hiddenRowids).Scan(&hidden)
	if err == nil && hidden > 0 {
		err = errHiddenRowid
	}
	return err
}

// copyInto copies the database as it is now into a new file, whatever is written meanwhile.
func (a *applier) copyInto(path string) error {
	_, err := a.conn.ExecContext(context.Background(), "VACUUM INTO ?", path)
	return err
}

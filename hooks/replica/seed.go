package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// seedPosition is that of a database with which a log begins: the log's first entry is its seed.
const seedPosition = 1

// seeded reports whether nothing follows the log's seed in the database.
func (s standing) seeded() bool { return s.log != "" && s.position == seedPosition }

// Seed makes a data.db that follows no log, or an empty one, what a log begins with, once a node starts with
// it. Nothing else may have it open. Of several nodes, this is done for one: the others begin with nothing, and get copies.
// The command "cluster init" does this.
func Seed(path string) error {
	err := checkDriver(sqliteDriver())
	if err == nil {
		err = beginAt(path)
	}
	if err != nil {
		return fmt.Errorf("begin a log for %s: %w", path, err)
	}
	return nil
}

var errHasLog = errors.New("there is a log already, which may have what was lost here")

func beginAt(path string) (err error) {
	at, err := standingOf(path)
	if err == nil && at.log != "" {
		err = errors.New("it follows a log already: start its server as a node, or end that by \"cluster leave\"")
	}
	if err != nil {
		return err
	}
	dir := path + logSuffix
	if _, err := os.Stat(filepath.Join(dir, server.JetStreamStoreDir)); err == nil {
		return fmt.Errorf("%w: move %s away", errHasLog, dir)
	}
	if len(snapshots(snapshotDir(path))) > 0 {
		return fmt.Errorf("%s has snapshots of a log that is gone: put that back, or move it all away", dir)
	}
	db, err := openAlone(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	if err := db.checkTables(); err != nil {
		return err
	}
	if err := db.begin(rand.Text(), seedPosition); err != nil {
		return err
	}
	return disk.Sync(filepath.Dir(path))
}

// openAlone opens a database that nobody else has then. What it commits is on disk.
func openAlone(path string) (*applier, error) {
	db, err := openApplier(path + "?_pragma=busy_timeout(1000)&_pragma=locking_mode(EXCLUSIVE)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	if err := db.exec(context.Background(), "BEGIN IMMEDIATE; COMMIT"); err != nil {
		return nil, errors.Join(fmt.Errorf("stop what else has it open: %w", err), db.close())
	}
	return db, nil
}

// base returns the snapshot that the log begins with, which is made of a database that is at its seed.
func (n *Node) base(path string, at standing) (snapshot, error) {
	dir := snapshotDir(path)
	for _, s := range snapshots(dir) {
		if s.log != at.log {
			return snapshot{}, fmt.Errorf("%s has snapshots of another log than the database follows: move them away", dir)
		}
		if s.position == seedPosition {
			return s, nil
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return snapshot{}, err
	}
	if err := checkSpace(path, dir); err != nil {
		return snapshot{}, err
	}
	removeDatabase(temporary(dir))
	defer removeDatabase(temporary(dir))
	db, err := newApplier(path)
	if err != nil {
		return snapshot{}, err
	}
	if err := errors.Join(db.copyInto(temporary(dir)), db.close()); err != nil {
		return snapshot{}, err
	}
	copied, err := newApplier(temporary(dir))
	if err != nil {
		return snapshot{}, err
	}
	s, err := keepSnapshot(copied, dir, nil)
	return s, errors.Join(err, disk.Sync(filepath.Dir(dir)), disk.Sync(filepath.Dir(path)))
}

// begin makes the log begin with its seed, unless it has begun.
func (n *Node) begin(at standing, base snapshot) error {
	err := n.log.look()
	if errors.Is(err, errNoStream) {
		err = n.log.create(at.log)
	}
	if err != nil {
		return err
	}
	state, err := n.log.state()
	if err != nil || n.log.id != at.log || state.LastSeq >= seedPosition {
		return err
	}
	var entry changes
	entry.seed(at.log, base.hash)
	err = n.log.append(0, entry.entry())
	if errors.Is(err, errBehind) { // another node has done so
		err = nil
	}
	return err
}

// checkBase fails if the log begins with another base snapshot than this database is.
func (n *Node) checkBase(base snapshot) error {
	var hash string
	err := n.log.readBeside(0, seedPosition, func(_ uint64, entry []byte) error {
		for c, err := range decode(entry) {
			if err != nil {
				return err
			}
			hash = c.hash
		}
		return nil
	})
	if errors.Is(err, errTrimmed) {
		return nil // so that it can't follow anyway
	}
	if err == nil && hash != base.hash {
		err = fmt.Errorf("it isn't what the log begins with: %w", errNoCopy)
	}
	return err
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
	if err != nil {
		return err
	}
	rows, err := a.conn.QueryContext(context.Background(), "SELECT name, sql FROM sqlite_schema WHERE sql NOTNULL")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, sql string
		if err := rows.Scan(&name, &sql); err != nil {
			return err
		}
		for _, s := range parse(sql) {
			if s.err != nil {
				return fmt.Errorf("%s: %w", name, s.err)
			}
		}
	}
	return rows.Err()
}

// copyInto copies the database as it is now into a new file, whatever is written meanwhile.
func (a *applier) copyInto(path string) error {
	_, err := a.conn.ExecContext(context.Background(), "VACUUM INTO ?", path)
	return err
}

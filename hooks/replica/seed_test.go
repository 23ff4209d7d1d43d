package replica

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// newStock returns a database with rows, as a server without a log leaves it.
func newStock(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "data.db")
	edit(t, path, "CREATE TABLE a (b)", "CREATE TABLE c (id INTEGER PRIMARY KEY AUTOINCREMENT, d TEXT UNIQUE)",
		"INSERT INTO a (rowid, b) VALUES (1, 'one'), (5, x'00'), (7, 1.0)", "INSERT INTO c (d) VALUES ('one'), ('two')", "DELETE FROM c WHERE d = 'two'")
	return path
}

// edit executes statements past the log.
func edit(t testing.TB, path string, statements ...string) {
	t.Helper()
	stock, err := core.DefaultDBConnect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	mustExec(t, stock.DB(), statements...)
}

// start has the leader open a database, until the test ends.
func (p *pair) start(t *testing.T, path string) *sql.DB {
	t.Helper()
	p.path = path
	db, err := p.leader.Connect(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db.DB()
}

// stop closes the leader and what reads its database.
func (p *pair) stop(t *testing.T, db *sql.DB) {
	t.Helper()
	db.Close()
	if err := p.leader.Close(); err != nil {
		t.Fatal(err)
	}
	for path, reader := range p.readers {
		reader.Close()
		delete(p.readers, path)
	}
}

// remove deletes a database, but for its log.
func remove(t *testing.T, path string) {
	t.Helper()
	for _, suffix := range suffixes {
		if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// mustRefuse fails unless a node refuses the database with that text.
func mustRefuse(t *testing.T, config Config, path, want string) {
	t.Helper()
	node, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if _, err := node.Connect(path); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := node.position(); !errors.Is(err, errNotConnected) {
		t.Errorf("got %v", err)
	}
}

// A database that has rows follows a log once it is seeded, which begins with those rows.
func TestSeed(t *testing.T) {
	t.Parallel()
	path := newStock(t)
	mustRefuse(t, Config{}, path, errUnseeded.Error())
	if _, err := os.Stat(path + logSuffix); err == nil {
		t.Error("a log was begun")
	}
	if err := Seed(path); err != nil {
		t.Fatal(err)
	}
	if err := Seed(path); err == nil || !strings.Contains(err.Error(), "it follows a log already") {
		t.Errorf("got %v", err)
	}
	p := newStreamPair(t)
	db := p.start(t, path)
	if got := fmt.Sprint(query(t, db, "SELECT rowid, quote(b) FROM a")); got != "[1|'one' 5|X'00' 7|1.0]" {
		t.Errorf("got %s", got)
	}
	base := snapshots(snapshotDir(path))
	if err := p.leader.read(0, func(position uint64, entry []byte) error {
		list, err := decodeAll(entry)
		if err != nil || len(list) != 1 || list[0].kind != 'L' || list[0].log != p.leader.log.id || len(base) != 1 || list[0].hash != base[0].hash || position != 1 {
			t.Errorf("the log begins with %+v, %v, the base is %v", list, err, base)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	p.same(t)
	mustExec(t, db, "INSERT INTO a VALUES ('two')", "INSERT INTO c (d) VALUES ('three')")
	p.same(t)
	if err := Seed(path); err == nil {
		t.Error("a running node's database was seeded")
	}
	want := fmt.Sprint(p.dump(t, path))
	p.stop(t, db)
	remove(t, path)
	p.start(t, path)
	if got := fmt.Sprint(p.dump(t, path)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Cut off before the database knows of its log, a seed is as if never begun: the database may be
// written to, and is seeded as it is then.
func TestSeedIsDoneAgain(t *testing.T) {
	t.Parallel()
	path := newStock(t)
	before := path + "-before"
	copyFile(t, path, before, 1)
	if err := Seed(path); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		remove(t, path)
		copyFile(t, before, path, 1)
		mustRefuse(t, Config{}, path, errUnseeded.Error())
		edit(t, path, fmt.Sprintf("INSERT INTO a VALUES ('since then %d')", i))
		if err := Seed(path); err != nil {
			t.Fatal(err)
		}
	}
	p := newStreamPair(t)
	db := p.start(t, path)
	p.same(t)
	want := fmt.Sprint(p.dump(t, path))
	p.stop(t, db)
	remove(t, path)
	db = p.start(t, path)
	if got := fmt.Sprint(p.dump(t, path)); got != want || !strings.Contains(got, "since then 1") || strings.Contains(got, "since then 0") {
		t.Errorf("got %s, want %s", got, want)
	}
	mustExec(t, db, "INSERT INTO a VALUES ('two')")
	p.stop(t, db)

	remove(t, path)
	copyFile(t, before, path, 1)
	if err := Seed(path); err == nil || !strings.Contains(err.Error(), errHasLog.Error()) {
		t.Errorf("got %v", err)
	}
}

// Wherever a seed is killed, it is done, or the database is as before and can be seeded.
func TestSeedIsKilled(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("REPLICA_SEED"); path != "" {
		if err := Seed(path); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	path := newStock(t)
	for range 4 {
		killed := exec.Command(os.Args[0], "-test.run=^TestSeedIsKilled$")
		killed.Env = append(os.Environ(), "REPLICA_SEED="+path)
		if err := killed.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
		killed.Process.Kill()
		if killed.Wait() == nil {
			t.Error("it ended by itself")
		}
	}
	at, err := standingOf(path)
	if err == nil && at.log == "" {
		err = Seed(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := newStreamPair(t)
	db := p.start(t, path)
	if got := fmt.Sprint(query(t, db, "SELECT rowid, quote(b) FROM a")); got != "[1|'one' 5|X'00' 7|1.0]" {
		t.Errorf("got %s", got)
	}
	mustExec(t, db, "INSERT INTO a VALUES ('two')")
	p.same(t)
}

func TestDatabaseThatCanNotBeSeeded(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, statement, want string
	}{
		{"without rowid", "CREATE TABLE a (b PRIMARY KEY) WITHOUT ROWID", "drop a"},
		{"a hidden rowid", "CREATE TABLE a (rowid, oid, _rowid_)", errHiddenRowid.Error()},
		{"a virtual table", "CREATE VIRTUAL TABLE a USING fts5(b)", "drop a"},
		{"a view of statistics", "CREATE VIEW a AS SELECT * FROM sqlite_stat1", "a: " + errStatistics.Error()},
		{"half of a statement", "CREATE TABLE a (b UNIQUE ON CONFLICT FAIL)", "a: " + errFail.Error()},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "data.db")
			if row.statement != "" {
				edit(t, path, row.statement)
			}
			if err := Seed(path); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %s", err, row.want)
			}
			if at, err := standingOf(path); err != nil || at.log != "" {
				t.Errorf("%+v, %v", at, err)
			}
		})
	}
	t.Run("a log of another one", func(t *testing.T) {
		t.Parallel()
		p := newStreamPair(t)
		path := filepath.Join(t.TempDir(), "data.db")
		db := p.start(t, path)
		mustExec(t, db, "CREATE TABLE a (b)")
		p.stop(t, db)
		remove(t, path)
		edit(t, path, "CREATE TABLE a (b)")
		if err := Seed(path); err == nil || !strings.Contains(err.Error(), errHasLog.Error()) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("open elsewhere", func(t *testing.T) {
		t.Parallel()
		path := newStock(t)
		other, err := core.DefaultDBConnect(path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		query(t, other.DB(), "SELECT * FROM a")
		if err := Seed(path); err == nil || !strings.Contains(err.Error(), "stop what else has it open") {
			t.Errorf("got %v", err)
		}
	})
}

// Snapshots of a log that is gone may be the last that is left of it.
func TestSnapshotsOfALostLogStay(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)")
	p.snapshot(t)
	p.stop(t, db)
	remove(t, path)
	if err := os.RemoveAll(filepath.Join(path+logSuffix, "jetstream")); err != nil {
		t.Fatal(err)
	}
	before := snapshots(snapshotDir(path))
	mustRefuse(t, Config{}, path, "has snapshots of a log that is gone: put that back, or move it all away")
	if after := snapshots(snapshotDir(path)); len(after) != 2 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got %v, want %v", after, before)
	}
}

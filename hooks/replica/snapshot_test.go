package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func (p *pair) snapshot(t *testing.T) {
	t.Helper()
	if err := p.leader.Snapshot(); err != nil {
		t.Fatal(err)
	}
}

// aside returns where databases were put that were replaced.
func (p *pair) aside(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(p.path), asidePrefix+"*", "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// mustMakeAgain deletes the database, and fails unless it is made again as it was.
func (p *pair) mustMakeAgain(t *testing.T, want []string) {
	t.Helper()
	remove(t, p.path)
	p.start(t, p.path)
	if got := p.dump(t, p.path); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %.1000s, want %.1000s", fmt.Sprint(got), fmt.Sprint(want))
	}
}

// Of snapshots two are kept, and the log from the older one on, and from that the database is made
// again.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	folder := filepath.Join(t.TempDir(), "a[b]") // a pattern to some
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	db := p.start(t, filepath.Join(folder, "data.db"))
	dir := snapshotDir(p.path)
	mustExec(t, db, "CREATE TABLE a (b)")
	var made []snapshot
	for i := range 4 {
		for range 5 {
			mustExec(t, db, fmt.Sprintf("INSERT INTO a VALUES ('%d'), (randomblob(1000))", i))
		}
		p.same(t)
		p.snapshot(t)
		p.snapshot(t) // for which nothing was written
		all := snapshots(dir)
		made = append(made, all[0])
		if all[0].position != p.position(t) || len(all) != 2 || i > 0 && all[1] != made[i-1] {
			t.Errorf("got %v, at %d", all, p.position(t))
		}
		if state, err := p.leader.log.state(); err != nil || state.FirstSeq != max(1, all[1].position) {
			t.Errorf("the log begins with %d, %v: %v", state.FirstSeq, err, all)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	mustExec(t, db, "INSERT INTO a VALUES ('since then')")
	want := p.dump(t, p.path)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
}

// Snapshots are made of what is written all the time, and hold nobody up.
func TestSnapshotsWhileOthersWrite(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.start(t, filepath.Join(t.TempDir(), "data.db"))
	mustExec(t, db, "CREATE TABLE a (id INTEGER PRIMARY KEY, b)", "CREATE INDEX i ON a (b)")
	done := make(chan error)
	stop := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := db.Exec("INSERT INTO a (b) VALUES (randomblob(?))", i%50*i%700000); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 8 {
		p.snapshot(t)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	want := p.dump(t, p.path)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
}

// A snapshot is made when the log has grown.
func TestSnapshotOfALogThatHasGrown(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.start(t, filepath.Join(t.TempDir(), "data.db"))
	p.leader.bound.Store(1000)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	if p.leader.growth.Load() >= 1000 {
		t.Fatal("it has grown already")
	}
	mustExec(t, db, "INSERT INTO a VALUES (randomblob(1000))")
	apptest.Eventually(t, "a snapshot is made", func() bool { return snapshots(snapshotDir(p.path))[0].position == 4 })
	apptest.Eventually(t, "it counts anew", func() bool { return p.leader.growth.Load() == 0 && p.leader.bound.Load() == minGrowth })
}

// What was written while a snapshot was made needs no other one, and after one that failed there is a pause.
func TestSnapshotsAreNotMadeOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{false, true} {
		p := newStreamPair(t)
		db := p.start(t, filepath.Join(t.TempDir(), "data.db"))
		dir := snapshotDir(p.path)
		if failed {
			p.leader.bound.Store(0)
			if err := errors.Join(os.Rename(dir, dir+"-moved"), os.WriteFile(dir, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := p.leader.Snapshot(); err == nil {
				t.Error("a snapshot was made in a file")
			}
			if err := errors.Join(os.Remove(dir), os.Rename(dir+"-moved", dir)); err != nil {
				t.Fatal(err)
			}
		}
		mustExec(t, db, "CREATE TABLE a (b)")
		p.leader.wantSnapshot()
		apptest.Eventually(t, "it is known that the log has grown", func() bool { return len(p.leader.grew) == 0 })
		for i := range 20 {
			mustExec(t, db, fmt.Sprintf("INSERT INTO a VALUES (%d)", i))
		}
		p.snapshot(t)
		if all := snapshots(dir); len(all) != 2 || all[0].position != p.position(t) || all[1].position != 1 {
			t.Errorf("after one that failed %t: got %v", failed, all)
		}
	}
}

// An old copy of the database, which the log was cut off behind, is replaced, and so is one that is
// damaged, or in which an entry finds other rows than it should.
func TestDatabaseThatTheLogDoesNotFitIsReplaced(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		trimmed bool
		spoil   func(t *testing.T, path string)
	}{
		{"old", true, func(*testing.T, string) {}},
		{"an update's row is gone", false, func(t *testing.T, path string) { edit(t, path, "DELETE FROM a WHERE b = 'old'") }},
		{"an insert's is there", false, func(t *testing.T, path string) { edit(t, path, "INSERT INTO a VALUES (2, 'other')") }},
		{"its table is gone", false, func(t *testing.T, path string) { edit(t, path, "DROP TABLE a") }},
		{"its table is another", false, func(t *testing.T, path string) { edit(t, path, "ALTER TABLE a ADD COLUMN c") }},
		{"no database", false, func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("no database", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"damaged", false, func(t *testing.T, path string) {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				_, err = file.WriteAt([]byte(strings.Repeat("damage", 500)), 100) // in the schema
			}
			if err := errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := newStreamPair(t)
			path := filepath.Join(t.TempDir(), "data.db")
			db := p.start(t, path)
			mustExec(t, db, "CREATE TABLE a (id INTEGER PRIMARY KEY, b)", "INSERT INTO a (b) VALUES ('old')")
			p.stop(t, db)
			old := path + "-old"
			copyFile(t, path, old, 1)
			db = p.start(t, path)
			mustExec(t, db, "INSERT INTO a (b) VALUES ('new')", "UPDATE a SET b = 'newer' WHERE b = 'old'")
			if row.trimmed {
				for i := range 2 {
					mustExec(t, db, fmt.Sprintf("INSERT INTO a (b) VALUES ('snapshot %d')", i))
					p.snapshot(t)
				}
			}
			want := fmt.Sprint(p.dump(t, path))
			p.stop(t, db)

			remove(t, path)
			copyFile(t, old, path, 1)
			row.spoil(t, path)
			spoilt, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			db = p.start(t, path)
			if got := fmt.Sprint(p.dump(t, path)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			aside := p.aside(t)
			if len(aside) != 1 {
				t.Fatalf("aside are %v", aside)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || len(kept) < len(spoilt) {
				t.Errorf("aside are %d bytes, %v", len(kept), err)
			}
			mustExec(t, db, "INSERT INTO a (b) VALUES ('afterwards')")
			p.snapshot(t) // and it is as it should be
		})
	}
}

// A snapshot that is damaged is passed over. If none is right, nothing is touched.
func TestDamagedSnapshots(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)")
	p.snapshot(t)
	mustExec(t, db, "INSERT INTO a VALUES (1)")
	p.snapshot(t)
	mustExec(t, db, "INSERT INTO a VALUES (2)")
	want := p.dump(t, path)
	damage := func(i int) {
		t.Helper()
		s := snapshots(snapshotDir(path))[i]
		content, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(s.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(0)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
	p.leader.Close()

	remove(t, path)
	obstacle := filepath.Join(path+".restored", "obstacle")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, Config{}, path, "it was missing, and it can't be replaced: open "+path+".restored")
	if err := os.RemoveAll(path + ".restored"); err != nil {
		t.Fatal(err)
	}
	damage(1)
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, Config{}, path, "no snapshot in "+snapshotDir(path)+" can take its place: put a copy of the whole data directory back")
	if content, err := os.ReadFile(path); err != nil || string(content) != "no database" {
		t.Errorf("it was touched: %q, %v", content, err)
	}
	if err := os.RemoveAll(snapshotDir(path)); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, Config{}, path, errNewLog.Error()+": there is none")
}

// A running node whose snapshots are damaged makes one from its database.
func TestSnapshotsThatAreDamagedWhileTheNodeRuns(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	for _, s := range snapshots(snapshotDir(path)) {
		if err := os.WriteFile(s.path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.snapshot(t)
	if all := snapshots(snapshotDir(path)); len(all) != 1 || all[0].position != 3 {
		t.Errorf("got %v", all)
	}
	mustExec(t, db, "INSERT INTO a VALUES (2)")
	want := p.dump(t, path)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
}

// So does one whose log is damaged after the last snapshot.
func TestLogThatIsDamagedAfterTheSnapshots(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES ('one')", "INSERT INTO a VALUES ('damaged')", "INSERT INTO a VALUES ('three')")
	p.stop(t, db)
	blocks, err := filepath.Glob(filepath.Join(path+logSuffix, "jetstream", "*", "streams", streamName, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("%v, %v", blocks, err)
	}
	content, err := os.ReadFile(blocks[0])
	if err == nil {
		err = os.WriteFile(blocks[0], bytes.Replace(content, []byte("damaged"), []byte("Damaged"), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 2 { // the server may find nothing after the damage that was in the same file
		db = p.start(t, path)
		mustExec(t, db, fmt.Sprintf("INSERT INTO a VALUES (%d)", i))
		p.snapshot(t)
		want = p.dump(t, path)
		p.stop(t, db)
	}
	p.mustMakeAgain(t, want)
}

// What somebody changed past the log is found, and the database replaced, with all that was
// acknowledged.
func TestDatabaseThatWasEdited(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{
		"UPDATE a SET b = 'edited' WHERE b = 'one'",
		"UPDATE a SET b = 'ONE' WHERE b = 'one'",
		"UPDATE a SET b = CAST(b AS BLOB) WHERE b = 'one'",
		"UPDATE a SET c = '1'",
		"UPDATE a SET c = 1.0",
		"UPDATE a SET id = 10 WHERE id = 1",
		"DELETE FROM a WHERE id = 1",
		"INSERT INTO a VALUES (10, 'more', 1)",
		"CREATE TABLE d (e)",
		"DROP TABLE f",
		"DROP INDEX i",
	} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			p := newStreamPair(t)
			path := filepath.Join(t.TempDir(), "data.db")
			db := p.start(t, path)
			mustExec(t, db, "CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT COLLATE NOCASE, c)", "CREATE TABLE f (g)", "CREATE INDEX i ON a (b)",
				"INSERT INTO a (b, c) VALUES ('one', 1)", "INSERT INTO a (b, c) VALUES ('two', 1)")
			want := fmt.Sprint(p.dump(t, path))
			p.stop(t, db)
			edit(t, path, statement)
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(p.dump(t, path)); got == want {
				t.Fatal("nothing was edited")
			}

			db = p.start(t, path)
			apptest.Eventually(t, "it is found out", func() bool {
				_, err := os.Stat(condemnedPath(path))
				return err == nil
			})
			if _, err := db.Exec("INSERT INTO a (b) VALUES ('three')"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			p.stop(t, db)
			db = p.start(t, path)
			if got := fmt.Sprint(p.dump(t, path)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o640 {
				t.Errorf("got %v, %v", info, err)
			}
			if aside := p.aside(t); len(aside) != 1 {
				t.Errorf("aside are %v", aside)
			}
			mustExec(t, db, "INSERT INTO a (b) VALUES ('three')")
			p.snapshot(t)
			p.stop(t, db)
			p.start(t, path)
			if aside := p.aside(t); len(aside) != 1 {
				t.Errorf("it was replaced again: %v", aside)
			}
		})
	}
}

// Nothing that a schema may have is taken for an edit, or keeps a snapshot from being made.
func TestDatabaseThatWasNotEdited(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.start(t, filepath.Join(t.TempDir(), "data.db"))
	mustExec(t, db,
		"CREATE TABLE a (b)", "CREATE TABLE next (main)", "CREATE TABLE c (rowid TEXT COLLATE NOCASE UNIQUE, \"order\", d AS (\"order\" || 'x'), e TEXT AS (upper(rowid)) STORED)",
		"CREATE VIEW v AS SELECT b FROM main.a", "CREATE TRIGGER main.t AFTER INSERT ON main.a BEGIN INSERT INTO next SELECT new.b FROM main.a; END",
		"CREATE INDEX main.i ON c (lower(rowid), d) WHERE e IS NOT NULL",
		"INSERT INTO a VALUES (1), (-0.0), (9e999), (x''), ('a' || char(0) || 'b')", "INSERT INTO c (rowid, \"order\") VALUES ('one', 1.0), (NULL, 2)", "UPDATE c SET rowid = 'ONE' WHERE rowid = 'one'",
		"ANALYZE", "PRAGMA optimize")
	p.snapshot(t)
	if why, err := os.ReadFile(condemnedPath(p.path)); err == nil {
		t.Errorf("it is condemned: %s", why)
	}
	if all := snapshots(snapshotDir(p.path)); all[0].position != p.position(t) {
		t.Errorf("got %v, at %d", all, p.position(t))
	}
	want := p.dump(t, p.path)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
}

// When the log can't be applied without an edit, because what was written since then builds on that,
// the database is kept, with all that was acknowledged, and the log goes on from it.
func TestEditThatTheLogBuildsOn(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)")
	edit(t, path, "INSERT INTO a VALUES ('edited')")
	mustExec(t, db, "UPDATE a SET b = b || ', updated'", "INSERT INTO a VALUES ('acknowledged')")
	p.snapshot(t)
	mustExec(t, db, "INSERT INTO a VALUES ('afterwards')")
	want := p.dump(t, path)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
	if got := fmt.Sprint(query(t, p.readers[path], "SELECT b FROM a")); got != "[edited, updated acknowledged afterwards]" {
		t.Errorf("got %s", got)
	}
}

// Whatever was cut off is done again: a snapshot, and a replacement before the database was put
// aside, between its files, and before the other one was in its place.
func TestReplacementIsDoneAgain(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	p.snapshot(t)
	stale := t.TempDir()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		copyFile(t, path+suffix, filepath.Join(stale, "data.db"+suffix), 1)
	}
	mustExec(t, db, "INSERT INTO a VALUES (2)")
	want := fmt.Sprint(p.dump(t, path))
	p.stop(t, db)
	for _, left := range [][]string{{"-wal", "-shm"}, {"", "-shm"}, {"", "-wal"}, {}} {
		remove(t, path)
		for _, suffix := range left {
			copyFile(t, filepath.Join(stale, "data.db"+suffix), path+suffix, 1)
		}
		for _, unfinished := range []string{path + ".restored", path + ".restored-wal", temporary(snapshotDir(path)), temporary(snapshotDir(path)) + "-wal"} {
			if err := os.WriteFile(unfinished, []byte("unfinished"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(condemnedPath(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		db = p.start(t, path)
		if got := fmt.Sprint(p.dump(t, path)); got != want {
			t.Errorf("after %v: got %s, want %s", left, got, want)
		}
		p.stop(t, db)
		if _, err := os.Stat(condemnedPath(path)); err == nil {
			t.Errorf("after %v: it is replaced again", left)
		}
	}
}

// A log that is full refuses what it has no room for, and says what helps; once a snapshot can be
// made, it takes changes again.
func TestLogThatIsFull(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	p.leader.log.max = 4 << 20
	path := filepath.Join(t.TempDir(), "data.db")
	db := p.start(t, path)
	mustExec(t, db, "CREATE TABLE a (b)")
	p.same(t)
	dir := snapshotDir(path)
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	written := 0
	for ; written < 100; written++ {
		if _, err := db.Exec("INSERT INTO a VALUES (randomblob(100000))"); err != nil {
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errFull) {
				t.Errorf("got %v", err)
			}
			break
		}
	}
	if written < 30 || written == 100 {
		t.Fatalf("%d of 100 KB were written to 4 MB", written)
	}
	server := p.leader.log.server
	for _, size := range []int{100_000, 2_000_000} { // in one message, and in several
		if _, err := db.Exec("INSERT INTO a VALUES (randomblob(?))", size); !errors.Is(err, errFull) {
			t.Errorf("%d bytes: got %v", size, err)
		}
	}
	if !p.leader.ready.Load() || p.leader.log.server != server {
		t.Error("the log was restarted")
	}
	p.same(t)

	if err := errors.Join(os.Remove(dir), os.Rename(dir+"-moved", dir)); err != nil {
		t.Fatal(err)
	}
	p.snapshot(t)
	mustExec(t, db, "INSERT INTO a VALUES (randomblob(2000000))")
	want := p.dump(t, path)
	p.stop(t, db)
	p.mustMakeAgain(t, want)
}

// Snapshot of a node without a database says so.
func TestSnapshotOfAClosedNode(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	for range 2 {
		if err := p.leader.Snapshot(); !errors.Is(err, errNotConnected) {
			t.Errorf("got %v", err)
		}
		p.stop(t, p.start(t, filepath.Join(t.TempDir(), "data.db")))
	}
}

// A snapshot that would fill the disk isn't begun, and what is left of one makes room for the next.
func TestSnapshotThatHasNoRoom(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data.db")
	left := temporary(snapshotDir(path))
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o700), os.WriteFile(left, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(path)
	if err == nil {
		err = file.Truncate(1 << 42) // of which nothing takes room
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	node := &Node{path: path}
	if err := node.snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "and a snapshot needs 5242912 MB: make room") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what was left of one is there")
	}
}

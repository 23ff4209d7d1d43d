package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A node that is killed is exact again when it has applied what the log has after its
// position, wherever it was killed: before an entry was in the log, after it and before the
// commit here, or between two transactions.
func TestKilledNodeReplaysItsLog(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("REPLICA_KILLED_IN"); dir != "" {
		writeUntilKilled(t, dir, os.Getenv("REPLICA_KILLED"))
		return
	}
	// in the log and in the database when it is killed, of those that the statements make
	for where, want := range map[string][2]int{"before the log": {5, 5}, "after the log": {6, 5}, "after the commit": {6, 6}} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			killed := exec.Command(os.Args[0], "-test.run=^TestKilledNodeReplaysItsLog$")
			killed.Env = append(os.Environ(), "REPLICA_KILLED_IN="+dir, "REPLICA_KILLED="+where)
			output, err := killed.CombinedOutput()
			if err == nil || len(output) > 0 { // a test that ends says so
				t.Fatalf("it wasn't killed: %v: %s", err, output)
			}
			replay(t, dir, want)
		})
	}
}

// replay opens the database of a killed node, which must have come as far as wanted, and
// applies the rest of its log.
func replay(t *testing.T, dir string, want [2]int) {
	t.Helper()
	p := newPair(t)
	p.log.entries = readEntries(t, dir)
	p.path = filepath.Join(dir, "data.db")
	if position := positionOf(t, p.path); len(p.log.entries) != want[0] || position != uint64(want[1]) {
		t.Errorf("%d entries, position %d: want %v", len(p.log.entries), position, want)
	}
	db, err := p.leader.Connect(p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p.same(t)
	for _, s := range written[:3] { // and goes on
		if _, err := db.NewQuery("INSERT INTO a (b) VALUES ({:s})").Bind(map[string]any{"s": s}).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	p.same(t)
}

// An entry of many messages is in the log or not, wherever its process is killed: while the
// messages come, and while the stream takes them.
func TestKilledInALargeEntry(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("REPLICA_LARGE_IN"); dir != "" {
		writeLarge(t, dir)
		return
	}
	for _, written := range []int64{1 << 20, 10 << 20, 22 << 20, 28 << 20} {
		t.Run(fmt.Sprintf("after %d MB", written>>20), func(t *testing.T) {
			t.Parallel()
			p := newStreamPair(t)
			p.path = filepath.Join(t.TempDir(), "data.db")
			killed := exec.Command(os.Args[0], "-test.run=^TestKilledInALargeEntry$")
			killed.Env = append(os.Environ(), "REPLICA_LARGE_IN="+filepath.Dir(p.path))
			if err := killed.Start(); err != nil {
				t.Fatal(err)
			}
			// The messages are collected first, and gone once the stream has them.
			for most, now := int64(0), int64(0); now < written && most-now < 5<<20; now = sizeOf(p.path + logSuffix) {
				most = max(most, now)
			}
			killed.Process.Kill()
			if killed.Wait() == nil {
				t.Error("it ended by itself")
			}
			db, err := p.leader.Connect(p.path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			t.Logf("killed with %d MB in the log, of which the row is %v", sizeOf(p.path+logSuffix)>>20, query(t, db.DB(), "SELECT count(*), max(length(b)) FROM a"))
			p.same(t)
			mustExec(t, db.DB(), "INSERT INTO a VALUES ('after')")
			p.same(t)
		})
	}
}

// writeLarge writes 20 MB, and then stands still.
func writeLarge(t *testing.T, dir string) {
	node, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := node.Connect(filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db.DB(), "CREATE TABLE a (b)", "INSERT INTO a VALUES (randomblob(20000000))")
	select {}
}

// sizeOf returns how much all files of a folder have, which may come and go.
func sizeOf(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, _ error) error {
		if entry != nil {
			if info, err := entry.Info(); err == nil && !entry.IsDir() {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

// What a power failure takes from the end of the file, which isn't synced with each commit, is
// applied again from the log.
func TestEndOfFileLostIsReplayed(t *testing.T) {
	t.Parallel()
	killed := t.TempDir()
	p := newPair(t)
	db := p.open(t)
	for _, statement := range written[:6] {
		mustExec(t, db, statement)
	}
	copyFile(t, p.path, filepath.Join(killed, "data.db"), 1)
	copyFile(t, p.path+"-wal", filepath.Join(killed, "data.db-wal"), 0.7)
	q := newPair(t)
	q.log.entries, q.path = p.log.entries, filepath.Join(killed, "data.db")
	if position := positionOf(t, q.path); position == 0 || position >= 6 {
		t.Fatalf("position %d: nothing was lost", position)
	}
	again, err := q.leader.Connect(q.path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	q.same(t)
}

// positionOf returns the position of a database that no node has open.
func positionOf(t *testing.T, path string) uint64 {
	t.Helper()
	a, err := newApplier(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	position, err := a.position()
	if err != nil {
		t.Fatal(err)
	}
	return position
}

// copyFile copies a part of a file, from its beginning.
func copyFile(t testing.TB, from, to string, part float64) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content[:int(float64(len(content))*part)], 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each makes one entry.
var written = []string{
	"CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT UNIQUE)",
	"INSERT INTO a (b) VALUES ('one'), ('two')",
	"CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET b = b || '!' WHERE id = new.id; END",
	"INSERT INTO a (b) VALUES ('three')",
	"DELETE FROM a WHERE id = 1",
	"UPDATE a SET b = b || '?'",
	"DROP TABLE a",
}

// writeUntilKilled keeps a log in a file, and kills itself with its sixth entry.
func writeUntilKilled(t *testing.T, dir, where string) {
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	kill := func(position uint64, here string) {
		if position == 6 && here == where {
			process, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = process.Kill()
			}
			if err != nil {
				t.Error(err)
			}
			select {}
		}
	}
	node := newNode(t, &memoryLog{})
	node.append = func(after uint64, entry []byte) error {
		kill(after+1, "before the log")
		_, err := file.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(entry))), entry...))
		kill(after+1, "after the log")
		return err
	}
	db, err := node.Connect(filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	for i, statement := range written {
		if _, err := db.NewQuery(statement).Execute(); err != nil {
			t.Fatal(err)
		}
		kill(uint64(i)+1, "after the commit")
	}
}

func readEntries(t *testing.T, dir string) (entries [][]byte) {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for {
		var length uint32
		if err := binary.Read(file, binary.BigEndian, &length); errors.Is(err, io.EOF) {
			return entries
		} else if err != nil {
			t.Fatal(err)
		}
		entry := make([]byte, length)
		if _, err := io.ReadFull(file, entry); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry)
	}
}

// What doesn't fit changes nothing, and says so.
func TestEntryThatDoesNotFitIsRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	for _, s := range []string{"CREATE TABLE a (b)", "INSERT INTO a VALUES (1), (2)"} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	p.catchUp(t)
	before := p.dump(t, p.copy)
	first := change{kind: 'I', table: "a", to: 9, values: []value{"first"}}
	rows := []struct {
		name     string
		position uint64
		entry    []byte
		want     string
	}{
		{"again", 2, p.log.entries[1], "has the log's first 2"},
		{"after a gap", 4, p.log.entries[1], "has the log's first 2"},
		{"a row that is missing", 3, encode([]change{first, {kind: 'D', table: "a", rowid: 3}}), "entry 3 can't be applied here: delete of row 3 of a: the row isn't there"},
		{"an update of one", 3, encode([]change{first, {kind: 'U', table: "a", rowid: 3, to: 3, columns: []int{0}, values: []value{nil}}}), "update of row 3 of a: the row isn't there"},
		{"a row that is there", 3, encode([]change{first, {kind: 'I', table: "a", to: 1, values: []value{nil}}}), "insert of row 1 into a: constraint failed"},
		{"more columns", 3, encode([]change{first, {kind: 'I', table: "a", to: 3, values: []value{nil, nil}}}), "2 values for 1 columns"},
		{"a column that is missing", 3, encode([]change{first, {kind: 'U', table: "a", rowid: 1, to: 1, columns: []int{1}, values: []value{nil}}}), "column 1 of 1"},
		{"a table that is missing", 3, encode([]change{first, {kind: 'D', table: "none", rowid: 3}}), "no such table: none"},
		{"a schema that can't be", 3, encode([]change{first, {kind: 'S', sql: "CREATE TABLE a (c)"}}), "table a already exists"},
		{"a schema that is undone", 3, encode([]change{{kind: 'S', sql: "ALTER TABLE a ADD COLUMN c"}, {kind: 'I', table: "a", to: 8, values: []value{nil, nil}}, {kind: 'D', table: "a", rowid: 3}}), "delete of row 3 of a: the row isn't there"},
		{"an entry cut short", 3, encode([]change{first, first})[:20], "cut short"},
		{"a log that begins", 3, encode([]change{first, {kind: 'L', log: "id", hash: "h"}}), "the beginning of the log id: it begins with another base snapshot"},
		{"a newer version", 3, []byte{2}, "run the newer program here that has written it"},
	}
	for _, row := range rows {
		err := p.follower.applier.apply(row.position-1, row.position, row.entry)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %s", row.name, err, row.want)
		}
		if fmt.Sprint(p.dump(t, p.copy)) != fmt.Sprint(before) {
			t.Fatalf("%s: it changed something", row.name)
		}
	}
	if _, err := db.Exec("INSERT INTO a VALUES (3)"); err != nil { // and the next one fits
		t.Fatal(err)
	}
	p.same(t)
}

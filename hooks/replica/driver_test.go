package replica

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"modernc.org/sqlite"
)

// What can't be logged is refused by name, with what helps, and changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	rows := []struct{ statement, want string }{
		{"CREATE VIRTUAL TABLE v USING fts5(a)", "virtual tables can't be logged: keep them in another file"},
		{"/* a */ create virtual table v using fts5(a)", "virtual tables"},
		{"CREATE TABLE v (a PRIMARY KEY) WITHOUT ROWID", "tables WITHOUT ROWID can't be logged: create the table without it"},
		{"CREATE TABLE v (a PRIMARY KEY) STRICT, without -- \n rowid", "tables WITHOUT ROWID"},
		{"CREATE TABLE v (oid, [RowID], _ROWID_ INTEGER PRIMARY KEY)", "a table with columns of all the names of its rowid can't be logged"},
		{"ALTER TABLE r ADD COLUMN oid", "a table with columns of all the names of its rowid can't be logged"},
		{"CREATE TABLE v AS SELECT 1", "CREATE TABLE AS can't be logged: create the table, then INSERT … SELECT"},
		{"CREATE TABLE IF NOT EXISTS main.v AS VALUES (1)", "CREATE TABLE AS"},
		{"PRAGMA user_version = 3", "PRAGMA user_version with a value can't be logged"},
		{"PRAGMA main.application_id(3)", "PRAGMA application_id with a value"},
		{"PRAGMA writable_schema = ON", "PRAGMA writable_schema with a value"},
		{"PRAGMA journal_mode = DELETE", "PRAGMA journal_mode with a value"},
		{"PRAGMA \"encoding\" = 'UTF-16'", "PRAGMA encoding with a value"},
		{"PRAGMA schema_version = 3", "PRAGMA schema_version with a value"},
		{"BEGIN", "use a transaction of the database, such as app.RunInTransaction"},
		{"BEGIN IMMEDIATE; INSERT INTO a VALUES (1); COMMIT", "as statements"},
		{"COMMIT", "as statements"},
		{"END TRANSACTION", "as statements"},
		{"ROLLBACK", "as statements"},
		{"INSERT OR FAIL INTO a VALUES (1)", "OR FAIL can't be logged, which keeps half of a statement: use ABORT, IGNORE or REPLACE"},
		{"UPDATE OR /**/ FAIL a SET b = 1", "OR FAIL"},
		{"WITH x AS (SELECT 1) INSERT OR FAIL INTO a SELECT * FROM x", "OR FAIL"},
		{"CREATE TABLE v (a UNIQUE ON CONFLICT FAIL)", "OR FAIL"},
		{"CREATE TRIGGER v AFTER INSERT ON a BEGIN SELECT RAISE(FAIL, 'no'); END", "OR FAIL"},
		{"CREATE TRIGGER v AFTER INSERT ON a BEGIN INSERT OR FAIL INTO s VALUES (1); END", "OR FAIL"},
		{"CREATE TEMP TRIGGER v AFTER INSERT ON a BEGIN UPDATE OR FAIL s SET id = 1; END", "OR FAIL"},
		{"CREATE TEMP TRIGGER v AFTER UPDATE ON _replicaPosition BEGIN INSERT INTO a VALUES (1); END", "the table _replicaPosition is the log's"},
		{"CREATE TRIGGER v AFTER INSERT ON a BEGIN DELETE FROM r; INSERT INTO s SELECT * FROM r; END", "INSERT … SELECT * in a trigger can't be logged: say which columns"},
		{"UPDATE main.sqlite_dbpage SET data = zeroblob(4096) WHERE pgno = 2", "pages of the file can't be written to when it is logged"},
		{"CREATE VIEW v AS SELECT * FROM main.sqlite_stat1", "a view or a trigger of statistics can't be logged"},
		{"ATTACH 'x.db' AS x", "ATTACH can't be logged: open the other file with a connection of its own"},
		{"DETACH x", "ATTACH"},
		{"UPDATE _replicaPosition SET position = 7", "the table _replicaPosition is the log's"},
		{"DELETE FROM _REPLICAPOSITION", "the table _replicaPosition is the log's"},
		{"DROP TABLE _replicaPosition", "the table _replicaPosition is the log's"},
		{"ALTER TABLE [_replicaposition] RENAME TO x", "the table _replicaPosition is the log's"},
		{"UPDATE sqlite_sequence SET seq = 7", "sqlite_sequence can't be written to when it is logged"},
	}
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)", "CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO s VALUES (1)", "CREATE TABLE r (rowid, _rowid_)")
	logged := p.log.len()
	before := p.dump(t, p.path)
	for _, row := range rows {
		check := func(how string, err error) {
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s %s: got %v, want %s", how, row.statement, err, row.want)
			}
		}
		_, err := db.Exec(row.statement)
		check("exec", err)
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(row.statement)
		check("exec in a transaction", err)
		tx.Rollback()
		var none string
		err = db.QueryRow(row.statement).Scan(&none)
		if errors.Is(err, errScript) {
			continue
		}
		check("query", err)
	}
	if p.log.len() != logged || fmt.Sprint(p.dump(t, p.path)) != fmt.Sprint(before) {
		t.Error("a refused statement changed something")
	}
}

func TestOtherDriversAreRefused(t *testing.T) {
	t.Parallel()
	if err := checkDriver(sqliteDriver()); err != nil {
		t.Error(err)
	}
	if err := checkDriver(&otherDriver{}); err == nil || !strings.Contains(err.Error(), "replica.otherDriver") {
		t.Errorf("got %v", err)
	}
	if err := disableTriggers(&conn{}); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("got %v", err)
	}
}

type otherDriver struct{ sqlite.Driver }

func TestNodeHasOneDatabase(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.open(t)
	if _, err := p.leader.Connect(filepath.Join(t.TempDir(), "data.db")); err == nil || !strings.Contains(err.Error(), "one database") {
		t.Errorf("got %v", err)
	}
	other, err := p.leader.Connect(filepath.Join(t.TempDir(), "auxiliary.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustExec(t, other.DB(), "BEGIN; CREATE VIRTUAL TABLE v USING fts5(a); COMMIT") // as ever
	if p.log.len() != 0 {
		t.Error("auxiliary.db was logged")
	}
}

// What the log refuses didn't happen.
func TestRefusedAppendRollsBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	db.SetMaxOpenConns(1) // which must be as new afterwards
	before := p.dump(t, p.path)
	noQuorum := errors.New("there is no quorum")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	p.log.set(noQuorum, nil)
	if err := tx.Commit(); !errors.Is(err, noQuorum) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := db.Begin(); !errors.Is(err, ErrUnavailable) { // rather than its commit
		t.Errorf("got %v", err)
	}
	if _, err := db.Exec("CREATE TABLE a (b)"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if fmt.Sprint(p.dump(t, p.path)) != fmt.Sprint(before) {
		t.Error("it happened")
	}
	p.log.set(nil, nil)
	awaitReady(t, p.leader)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (2)")
	p.same(t)
}

// When the append fails and yet the entry is in the log, this database is behind: it writes
// nothing more until it has applied what the log has, which it does by itself.
func TestUnsureAppendIsCaughtUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)")
	lost := errors.New("the answer was lost")
	p.log.set(nil, lost)
	if _, err := db.Exec("INSERT INTO a VALUES (1)"); !errors.Is(err, lost) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	p.log.set(nil, nil)
	awaitReady(t, p.leader)
	mustExec(t, db, "INSERT INTO a VALUES (3)")
	if got := query(t, db, "SELECT b FROM a ORDER BY b"); fmt.Sprint(got) != "[1 3]" {
		t.Errorf("got %v", got)
	}
	p.same(t)
}

// A commit that fails when the log has its entry is caught up like one whose answer was lost.
func TestCommitThatFailsAfterTheLog(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)")
	only := connOf(t, db)
	err := only.Raw(func(inner any) error {
		c := inner.(*conn)
		begun, err := c.BeginTx(t.Context(), driver.TxOptions{})
		if err != nil {
			return err
		}
		if _, err := c.ExecContext(t.Context(), "INSERT INTO a VALUES (1)", nil); err != nil {
			return err
		}
		begun.(*tx).Tx = failingTx{begun.(*tx).Tx, c}
		return begun.Commit()
	})
	if !errors.Is(err, errDisk) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	awaitReady(t, p.leader)
	if got := fmt.Sprint(query(t, db, "SELECT b FROM a")); got != "[1]" {
		t.Errorf("got %s", got)
	}
	p.same(t)
}

var errDisk = errors.New("the disk is broken")

// A failingTx fails when SQLite has called the commit hook.
type failingTx struct {
	driver.Tx
	conn *conn
}

func (t failingTx) Commit() error {
	if t.conn.onCommit() != 0 {
		return errors.New("the log was not asked")
	}
	return errors.Join(errDisk, t.Tx.Rollback())
}

// SQLite itself rolls some transactions back: nothing of them may be logged, nor of what
// follows in them.
func TestTransactionThatSQLiteRollsBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b UNIQUE)", "INSERT INTO a VALUES (1)")
	logged := p.log.len()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "INSERT INTO a VALUES (2)")
	if _, err := tx.Exec("INSERT OR ROLLBACK INTO a VALUES (3), (1)"); err == nil {
		t.Error("it should fail")
	}
	if _, err := tx.Exec("INSERT INTO a VALUES (4)"); !errors.Is(err, errRolledBack) {
		t.Errorf("got %v", err)
	}
	if err := tx.Commit(); !errors.Is(err, errRolledBack) {
		t.Errorf("got %v", err)
	}
	if p.log.len() != logged {
		t.Error("it was logged")
	}
	mustExec(t, db, "INSERT INTO a VALUES (5)")
	if got := query(t, db, "SELECT b FROM a ORDER BY b"); fmt.Sprint(got) != "[1 5]" {
		t.Errorf("got %v", got)
	}
	p.same(t)
}

// A foreign key that is checked last is checked before the log.
func TestBrokenForeignKeyIsNotLogged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (id INTEGER PRIMARY KEY)", "CREATE TABLE b (a REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
	logged := p.log.len()
	if _, err := db.Exec("INSERT INTO b VALUES (1)"); err == nil || !strings.Contains(err.Error(), "FOREIGN KEY") {
		t.Errorf("got %v", err)
	}
	if p.log.len() != logged {
		t.Error("it was logged")
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "INSERT INTO b VALUES (1)", "INSERT INTO a VALUES (1)")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	p.same(t)
}

// SQLite may have executed a statement just before it was cancelled, which nobody can tell: its
// transaction can't be committed.
func TestCancelledStatementEndsItsTransaction(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"INSERT INTO a VALUES ('cancelled')", "CREATE TABLE c (d)", "ROLLBACK TO s", "RELEASE s", "SAVEPOINT t"} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			db := p.open(t)
			mustExec(t, db, "CREATE TABLE a (b)")
			only := connOf(t, db)
			tx, err := only.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			mustExec(t, tx, "SAVEPOINT s", "INSERT INTO a VALUES ('before')")
			ctx, cancel := context.WithCancel(t.Context())
			err = only.Raw(func(inner any) error {
				c := inner.(*conn)
				_, err := c.run(ctx, parse(statement)[0], func() (driver.Result, error) {
					if _, err := c.Conn.ExecContext(ctx, statement, nil); err != nil {
						t.Error(err)
					}
					cancel() // once it is executed, and before the driver returns
					return nil, ctx.Err()
				})
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if err := tx.Commit(); !errors.Is(err, errCancelled) {
				t.Errorf("got %v", err)
			}
			if p.log.len() != 1 {
				t.Error("it was logged")
			}
			p.same(t)
		})
	}
}

// A transaction that is too large is refused before it is in memory as a whole.
func TestLargeTransactionIsRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)")
	if _, err := db.Exec("INSERT INTO a VALUES (zeroblob(34000000))"); err != nil {
		t.Error(err)
	}
	logged := p.log.len()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "INSERT INTO a VALUES (zeroblob(34000000))")
	if _, err := tx.Exec("INSERT INTO a VALUES (zeroblob(34000000))"); err == nil || !strings.Contains(err.Error(), "more than 64 MB can't be logged: write it in several") {
		t.Errorf("got %v", err)
	}
	if err := tx.Commit(); !errors.Is(err, errTooLarge) {
		t.Errorf("got %v", err)
	}
	if p.log.len() != logged {
		t.Error("it was logged")
	}
	mustExec(t, db, "DELETE FROM a")
	p.same(t)
}

// Who writes notices nothing: a script leaves what it leaves in a stock database, and fails
// where it fails there.
func TestScriptsDoWhatTheyDidBefore(t *testing.T) {
	t.Parallel()
	scripts := []struct {
		script string
		args   []any
	}{
		{"CREATE TABLE a (b INTEGER PRIMARY KEY, c UNIQUE); CREATE TABLE d (e)", nil},
		{"INSERT INTO a (c) VALUES (?); INSERT INTO d VALUES (?2), (?1)", []any{"one", 2}},
		{"INSERT INTO a (c) VALUES ($x); -- the end", []any{sql.Named("x", "a;b")}},
		{"INSERT INTO d VALUES ('kept'); INSERT INTO a (c) VALUES ('one'); INSERT INTO d VALUES ('not reached')", nil},
		{"CREATE TRIGGER t AFTER INSERT ON d WHEN new.e != 'x' BEGIN INSERT INTO d VALUES (CASE new.e WHEN 'y' THEN 'x' ELSE 'z' END); END; INSERT INTO d VALUES ('y'); DROP TRIGGER t", nil},
		{"WITH x (y) AS (VALUES (1), (2)) INSERT INTO d SELECT y FROM x; SELECT * FROM d; UPDATE d SET e = e || '!'", nil},
		{"no such statement", nil},
		{"INSERT INTO none VALUES (1)", nil},
		{"INSERT INTO d VALUES (?)", nil},
		{"SELECT 1; ; ;", nil},
		{"/* nothing */", nil},
		{"", nil},
		{"DELETE FROM d WHERE e = '2!' RETURNING e; INSERT INTO a VALUES (100, 7)", nil},
	}
	p := newPair(t)
	captured := p.open(t)
	path := filepath.Join(t.TempDir(), "stock.db")
	connected, err := core.DefaultDBConnect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	stock := connected.DB()
	mustExec(t, stock, "CREATE TABLE _replicaPosition (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL, log TEXT NOT NULL)")
	for _, db := range []*sql.DB{stock, captured} { // last_insert_rowid is a connection's
		db.SetMaxOpenConns(1)
	}
	for _, s := range scripts {
		want, wantErr := stock.Exec(s.script, s.args...)
		got, gotErr := captured.Exec(s.script, s.args...)
		if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Errorf("%s: got %v, want %v", s.script, gotErr, wantErr)
		}
		statements := parse(s.script)
		if wantErr != nil || len(statements) == 0 || statements[len(statements)-1].kind != kindWrite {
			continue // the result is of no statement, or of one before
		}
		wantID, _ := want.LastInsertId()
		wantRows, _ := want.RowsAffected()
		gotID, _ := got.LastInsertId()
		gotRows, _ := got.RowsAffected()
		if gotID != wantID || gotRows != wantRows {
			t.Errorf("%s: got row %d and %d rows, want %d and %d", s.script, gotID, gotRows, wantID, wantRows)
		}
	}
	mustExec(t, stock, "INSERT INTO _replicaPosition SELECT 1, "+fmt.Sprint(p.position(t))+", ''")
	want, got := p.dump(t, path), p.dump(t, p.path)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	p.same(t)
}

// An id that no row got is no change, and the next row that gets one makes up for it.
func TestIgnoredRowsTakeNoID(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE)", "INSERT INTO a (b) VALUES ('x')")
	logged := p.log.len()
	mustExec(t, db, "INSERT OR IGNORE INTO a (b) VALUES ('x'), ('x')")
	if p.log.len() != logged {
		t.Error("it was logged")
	}
	mustExec(t, db, "INSERT INTO a (b) VALUES ('y')")
	p.same(t)
}

// Many write at once: their order is the log's.
func TestWritersTogether(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b INTEGER PRIMARY KEY, c)", "INSERT INTO a VALUES (1, 0)")
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 20 {
				if _, err := db.Exec("UPDATE a SET c = c + 1; INSERT INTO a (c) VALUES (?)", 100*w+i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if got := query(t, db, "SELECT c FROM a WHERE b = 1"); fmt.Sprint(got) == "[0]" {
		t.Errorf("got %v", got)
	}
	p.same(t)
}

// What capturing costs, beside PocketBase's own connection: one record as it is created by a
// webhook.
func BenchmarkCommit(b *testing.B) {
	const row = "INSERT INTO a VALUES (lower(hex(randomblob(8))), ?, ?, ?, 'new_content', '', strftime('%Y-%m-%d %H:%M:%fZ'))"
	body := strings.Repeat("text of a generated article ", 60)
	run := func(b *testing.B, connect func(string) (*dbx.DB, error)) {
		path := filepath.Join(b.TempDir(), "data.db")
		db, err := connect(path)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		db.DB().SetMaxOpenConns(1)
		mustExec(b, db.DB(), "CREATE TABLE a (id TEXT PRIMARY KEY, channel TEXT, title TEXT, data JSON, event TEXT, user TEXT, created TEXT); CREATE INDEX a_created ON a (created)")
		for i := 0; b.Loop(); i++ {
			tx, err := db.DB().Begin()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := tx.Exec(row, fmt.Sprint("channel-", i), "a title", body); err != nil {
				b.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("stock", func(b *testing.B) { run(b, core.DefaultDBConnect) })
	b.Run("captured", func(b *testing.B) {
		log := &memoryLog{}
		run(b, newNode(b, log).Connect)
		b.ReportMetric(float64(len(log.entries[log.len()-1])), "bytes/entry")

		began := time.Now()
		db, err := newNode(b, log).Connect(filepath.Join(b.TempDir(), "data.db"))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		b.ReportMetric(float64(time.Since(began).Microseconds())/float64(log.len()), "µs/applied")
	})
	b.Run("logged", func(b *testing.B) {
		node, err := Open(Config{})
		if err != nil {
			b.Fatal(err)
		}
		defer node.Close()
		run(b, node.Connect)
	})
}

// Savepoints are told apart as SQLite does, whatever quotes their names have.
func TestSavepointsWithQuotes(t *testing.T) {
	t.Parallel()
	for back, want := range map[string]string{"a": "[0]", `"A"`: "[0]", `"'a'"`: "[0 1]", `['a']`: "[0 1]", `"a""b"`: "[0 1 2]", "`a\"b`": "[0 1 2]"} {
		p := newPair(t)
		db := p.open(t)
		mustExec(t, db, "CREATE TABLE t (i)")
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, tx, "INSERT INTO t VALUES (0)", "SAVEPOINT a", "INSERT INTO t VALUES (1)", `SAVEPOINT "'a'"`, "INSERT INTO t VALUES (2)", `SAVEPOINT [a"b]`, "INSERT INTO t VALUES (3)", "ROLLBACK TO "+back)
		if err := tx.Commit(); err != nil {
			t.Error(err)
		}
		if got := query(t, db, "SELECT i FROM t"); fmt.Sprint(got) != want {
			t.Errorf("%s: got %s", back, got)
		}
		p.same(t)
	}
}

// Statistics are of one file, and so is that they are gone.
func TestDroppedStatisticsAreNotLogged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)", "CREATE INDEX c ON a (b)", "INSERT INTO a VALUES (1)", "ANALYZE", "DROP TABLE main.sqlite_stat1", "INSERT INTO a VALUES (2)")
	p.same(t)
}

// What SQLite takes for the name of a parameter hides nothing that changes the schema.
func TestParameterThatHidesAStatement(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	var a any
	if err := db.QueryRow("SELECT $a('); CREATE TABLE b (c) --'", 1).Scan(&a); !errors.Is(err, errScript) {
		t.Errorf("got %v", err)
	}
	p.same(t)
}

// SQLite copies whole rows as they are, also those that are shorter than the table is now.
func TestCopiedRowsHaveTheDefaults(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)", "ALTER TABLE a ADD COLUMN c DEFAULT 5", "CREATE TABLE d (b, c DEFAULT 5)", "INSERT INTO d SELECT * FROM a")
	prepared, err := db.Prepare("INSERT INTO d SELECT * FROM main.a AS e -- all")
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	if _, err := prepared.Exec(); err != nil {
		t.Fatal(err)
	}
	p.same(t)
}

// SQLite doesn't undo what a statement has changed whose triggers call each other too often.
func TestStatementThatFailsHalfway(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)", "CREATE TRIGGER c AFTER INSERT ON a BEGIN INSERT INTO a VALUES (new.b + 1); END")
	logged := p.log.len()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, tx, "PRAGMA recursive_triggers = ON")
	if _, err := tx.Exec("INSERT INTO a VALUES (1)"); err == nil || !strings.Contains(err.Error(), "too many levels of trigger recursion") {
		t.Errorf("got %v", err)
	}
	if err := tx.Commit(); err == nil || !strings.Contains(err.Error(), "can only be rolled back") {
		t.Errorf("got %v", err)
	}
	if p.log.len() != logged {
		t.Error("it was logged")
	}
	p.same(t)
}

// A temporary table of the same name says nothing of the one that has rows.
func TestTemporaryTableHidesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	only := connOf(t, p.open(t))
	for _, row := range []struct{ statement, want string }{
		{"CREATE TABLE a (b)", ""},
		{"CREATE TEMP TABLE a (b INTEGER PRIMARY KEY)", ""},
		{"VACUUM", "VACUUM would change the rowids of a"},
		{"CREATE TEMP TABLE c (d)", ""},
		{"CREATE TABLE main.c (rowid, _rowid_, oid)", errHiddenRowid.Error()},
	} {
		if _, err := only.ExecContext(t.Context(), row.statement); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v", row.statement, err)
		}
	}
	p.same(t)
}

// What is prepared to apply updates of ever other columns doesn't grow without end.
func TestUpdatesOfAllSetsOfColumns(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9)", "INSERT INTO a (c0) VALUES (1)")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for set := 1; set < 1<<10; set++ {
		var sets []string
		for i := range 10 {
			if set&(1<<i) != 0 {
				sets = append(sets, fmt.Sprintf("c%d = %d", i, set))
			}
		}
		mustExec(t, tx, "UPDATE a SET "+strings.Join(sets, ","))
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	p.same(t)
	if got := len(p.follower.applier.statements); got > 500 {
		t.Errorf("%d are kept", got)
	}
}

// ALTER TABLE looks at all triggers, and must not find what one needs only because of what no other connection has.
func TestSchemaDoesNotNeedATemporaryTable(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	only := connOf(t, p.open(t))
	for _, row := range []struct{ statement, want string }{
		{"CREATE TABLE a (b)", ""},
		{"CREATE TABLE d (e)", ""},
		{"CREATE TABLE z (b)", ""},
		{"CREATE TRIGGER f AFTER INSERT ON a BEGIN INSERT INTO d VALUES (1); END", ""},
		{"DROP TABLE d", ""},
		{"CREATE TEMP TABLE A (b)", ""},
		{"CREATE TEMP TABLE d (e)", ""},
		{"ALTER TABLE z RENAME COLUMN b TO c", "temporary table that a trigger or a view names"},
		{"DROP TABLE temp.a", ""},
		{"DROP TABLE temp.d", ""},
		{"CREATE TABLE d (e)", ""},
		{"CREATE TEMP TABLE other (e)", ""},
		{"ALTER TABLE z RENAME COLUMN b TO c", ""},
	} {
		if _, err := only.ExecContext(t.Context(), row.statement); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v", row.statement, err)
		}
	}
	p.same(t)
}

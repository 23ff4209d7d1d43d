package prepared

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	_ "github.com/pocketbase/pocketbase/core" // its driver
)

func open(t *testing.T) *dbx.DB {
	t.Helper()
	db, err := Open(filepath.Join(t.TempDir(), "data.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(ON)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	exec(t, db, "CREATE TABLE items (id TEXT PRIMARY KEY, n INTEGER)")
	for i := range 3 {
		exec(t, db, fmt.Sprintf("INSERT INTO items VALUES ('%d', %d)", i, i))
	}
	return db
}

func exec(t *testing.T, db dbx.Builder, query string) {
	t.Helper()
	if _, err := db.NewQuery(query).Execute(); err != nil {
		t.Fatal(err)
	}
}

func sum(t *testing.T, db dbx.Builder) (sum int) {
	t.Helper()
	if err := db.NewQuery("SELECT SUM(n) FROM items").Row(&sum); err != nil {
		t.Fatal(err)
	}
	return sum
}

// keptBy are the queries that the only connection of the database keeps.
func keptBy(t *testing.T, db *dbx.DB) (queries []string) {
	t.Helper()
	one, err := db.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	err = one.Raw(func(raw any) error {
		for _, s := range raw.(*conn).kept {
			queries = append(queries, s.query)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return queries
}

// openFiles are those in the temporary directory of the test that this process has open.
func openFiles(t *testing.T) (paths []string) {
	t.Helper()
	open, _ := filepath.Glob("/proc/self/fd/*") // of Linux
	for _, file := range open {
		if path, err := os.Readlink(file); err == nil && strings.Contains(path, t.Name()) {
			paths = append(paths, path)
		}
	}
	return paths
}

func TestKeepsWhatItUsedLast(t *testing.T) {
	t.Parallel()
	db := open(t)
	db.DB().SetMaxOpenConns(1)
	var first *statement
	for range 3 {
		one, err := db.DB().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := one.QueryRowContext(t.Context(), "SELECT n FROM items WHERE id = ?", "2").Scan(&n); err != nil || n != 2 {
			t.Fatalf("got %d (%v)", n, err)
		}
		_ = one.Raw(func(raw any) error {
			kept := raw.(*conn).kept
			last := kept[len(kept)-1]
			if first == nil {
				first = last
			}
			if last != first {
				t.Error("the query was prepared again")
			}
			return nil
		})
		one.Close()
	}
	for i := range 2 * maxKept {
		exec(t, db, fmt.Sprintf("UPDATE items SET n = n + %d", i))
		sum(t, db)
	}
	kept := keptBy(t, db)
	if len(kept) != maxKept || kept[maxKept-1] != "SELECT SUM(n) FROM items" {
		t.Errorf("got %d kept, the last of them %q", len(kept), kept[len(kept)-1])
	}
}

// What is asked while its own rows are being read is another statement.
func TestSameQueryWithin(t *testing.T) {
	t.Parallel()
	db := open(t)
	db.DB().SetMaxOpenConns(1)
	err := db.Transactional(func(tx *dbx.Tx) error {
		var read [2][]int
		outer, err := tx.NewQuery("SELECT n FROM items ORDER BY n").Rows()
		if err != nil {
			return err
		}
		for outer.Next() {
			var n int
			if err := outer.Scan(&n); err != nil {
				return err
			}
			read[0] = append(read[0], n)
			var inner []int
			if err := tx.NewQuery("SELECT n FROM items ORDER BY n").Column(&inner); err != nil {
				return err
			}
			read[1] = append(read[1], inner...)
		}
		if got, want := fmt.Sprint(read), "[[0 1 2] [0 1 2 0 1 2 0 1 2]]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		return outer.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

// Rows that are read on after their statement was closed are not given to the next query.
func TestRowsOutliveTheirStatement(t *testing.T) {
	t.Parallel()
	db := open(t)
	tx, err := db.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	statement, err := tx.Prepare("SELECT n FROM items WHERE n >= ? ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	defer statement.Close()
	end := statement.Close
	rows, err := statement.Query(0)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	end()
	var read []int
	for rows.Next() {
		var n, other int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow("SELECT n FROM items WHERE n >= ? ORDER BY n", 2).Scan(&other); err != nil || other != 2 {
			t.Errorf("got %d (%v), want 2", other, err)
		}
		read = append(read, n)
	}
	if got, want := fmt.Sprint(read, rows.Err()), "[0 1 2] <nil>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSchemaChanges(t *testing.T) {
	t.Parallel()
	db := open(t)
	columns := func() (all []string) {
		t.Helper()
		// On two connections: one has not made the change itself.
		for range 2 {
			one, err := db.DB().Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer one.Close()
			rows, err := one.QueryContext(t.Context(), "SELECT * FROM items")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			names, err := rows.Columns()
			for rows.Next() {
				into := make([]any, len(names))
				for i := range into {
					into[i] = new(any)
				}
				if err := rows.Scan(into...); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(err, rows.Err()); err != nil {
				t.Fatal(err)
			}
			all = append(all, names...)
		}
		return all
	}
	for _, step := range []struct{ change, want string }{
		{"SELECT 1", "[id n id n]"},
		{"ALTER TABLE items ADD COLUMN more TEXT", "[id n more id n more]"},
		{"ALTER TABLE items DROP COLUMN n", "[id more id more]"},
		{"DROP TABLE items; CREATE TABLE items (other TEXT)", "[other other]"},
	} {
		exec(t, db, step.change)
		if got := fmt.Sprint(columns()); got != step.want {
			t.Errorf("after %s: got %s, want %s", step.change, got, step.want)
		}
	}
}

// A failure is the driver's own, and the query works again.
func TestFailures(t *testing.T) {
	t.Parallel()
	db := open(t)
	db.DB().SetMaxOpenConns(1)
	const insert = "INSERT INTO items VALUES ({:id}, {:n})"
	for i := range 3 {
		_, err := db.NewQuery(insert).Bind(dbx.Params{"id": "1", "n": 1}).Execute()
		coded, ok := err.(interface{ Code() int })
		if !ok || coded.Code() != 1555 { // SQLITE_CONSTRAINT_PRIMARYKEY
			t.Errorf("got %T: %v", err, err)
		}
		if _, err := db.NewQuery(insert).Bind(dbx.Params{"id": fmt.Sprint("new", i), "n": 10}).Execute(); err != nil {
			t.Error(err)
		}
	}
	if got, want := sum(t, db), 33; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	const endless = "SELECT COUNT(*) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c) WHERE x < {:n}"
	var n int
	if err := db.NewQuery(endless).Bind(dbx.Params{"n": 1}).WithContext(ctx).Row(&n); err == nil {
		t.Error("an endless query came to an end")
	}
	if got, want := sum(t, db), 33; got != want {
		t.Errorf("after a query that was cut off: got %d, want %d", got, want)
	}
}

// A statement that is kept keeps nobody from writing, and the file from nothing.
func TestHoldsNothing(t *testing.T) {
	t.Parallel()
	db := open(t)
	reader, err := db.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, query := range []string{"SELECT n FROM items WHERE id = '1'", "SELECT n FROM items WHERE id = 'nobody'"} {
		var n int
		if err := reader.QueryRowContext(t.Context(), query).Scan(&n); err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Fatal(err)
		}
	}
	exec(t, db, "INSERT INTO items VALUES ('4', 4)")
	var busy, logged, done int
	if err := db.NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Row(&busy, &logged, &done); err != nil || busy != 0 || logged != 0 {
		t.Errorf("checkpoint: busy %d, %d pages left (%v)", busy, logged, err)
	}
	exec(t, db, "VACUUM")
	exec(t, db, "DROP TABLE items")
	if len(openFiles(t)) == 0 {
		t.Skip("which files are open is not told here")
	}
	reader.Close()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if left := openFiles(t); len(left) > 0 {
		t.Errorf("still open: %s", left)
	}
}

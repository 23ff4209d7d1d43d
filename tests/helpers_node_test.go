package tests

import (
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/replica"
)

// connectNode makes the server of init one with a log. It refuses what refusingHook does, and
// restarts itself when it is asked to, as it does for a changed file of pb_hooks.
func connectNode() (connect core.DBConnectFunc, register func(core.App)) {
	node, err := replica.Open()
	if err != nil {
		log.Fatal(err)
	}
	return node.Connect, func(app core.App) {
		node.Register(app)
		app.OnRecordCreate("aiContent").BindFunc(func(e *core.RecordEvent) error {
			if e.Record.GetString("category") == "refused" {
				return errors.New("Not wanted")
			}
			return e.Next()
		})
		app.OnServe().BindFunc(func(e *core.ServeEvent) error {
			e.Router.POST("/restart", func(e *core.RequestEvent) error { return e.App.Restart() })
			return e.Next()
		})
	}
}

// startNode starts a host whose database has a log.
func startNode(t testing.TB, dir string, env ...string) *server {
	t.Helper()
	return startHost(t, dir, time.Minute, append(env, "TEST_NODE=1")...)
}

// newNodeRun is newFaultRun for a host whose database has a log.
func newNodeRun(t testing.TB, base string, seed uint64) *faultRun {
	t.Helper()
	s := startNode(t, filepath.Join(base, "pb_data"), "MODELRIVER_CALLBACK_HOSTS=127.0.0.1,callbacks.invalid")
	f := &faultRun{server: s, modelRiver: newModelRiver(t, s.URL, seed), t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	f.receivers = append(f.receivers, f.newReceiver(accepts))
	return f
}

// runNode is run, after which the log must make the same database again, to every row.
func (f *faultRun) runNode(fault func()) {
	f.t.Helper()
	f.run(false, fault)
	again := f.t.TempDir()
	if err := os.CopyFS(filepath.Join(again, "data.db-log"), os.DirFS(filepath.Join(f.Dir, "data.db-log"))); err != nil {
		f.t.Fatal(err)
	}
	node, err := replica.Open()
	if err != nil {
		f.t.Fatal(err)
	}
	defer node.Close()
	db, err := node.Connect(filepath.Join(again, "data.db"))
	if err != nil {
		f.t.Fatal(err)
	}
	db.Close()
	want, got := dumpDatabase(f.t, f.Dir), dumpDatabase(f.t, again)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			f.t.Fatalf("the log makes another database, from row %d of %d and %d on: %.500s", i, len(want), len(got), fmt.Sprint(want[min(i, len(want)):], got[min(i, len(got)):]))
		}
	}
}

// dumpDatabase returns the schema and each row of a database, but for statistics.
func dumpDatabase(t testing.TB, dir string) (lines []string) {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	column := func(query string) (values []string) {
		t.Helper()
		if err := db.NewQuery(query).Column(&values); err != nil {
			t.Fatal(err)
		}
		return values
	}
	lines = column("SELECT coalesce(sql, name) FROM sqlite_schema WHERE tbl_name NOT LIKE 'sqlite_stat%' ORDER BY name")
	for _, table := range column("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name") {
		columns := column("SELECT 'quote(`' || name || '`)' FROM pragma_table_info('" + table + "')")
		lines = append(lines, column("SELECT '"+table+" ' || _rowid_ || ' ' || "+strings.Join(columns, " || ',' || ")+" FROM `"+table+"` ORDER BY _rowid_")...)
	}
	return lines
}

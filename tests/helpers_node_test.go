package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/replica"
)

// connectNode makes the server of init one with a log, as TEST_NODE configures it. It refuses what refusingHook
// does, makes a snapshot when it is asked to, restarts itself, as it does for a changed file of pb_hooks, and writes
// what it logs but for single webhooks, and when it begins to lead.
func connectNode() (connect core.DBConnectFunc, register func(*pocketbase.PocketBase, *hooks.Config)) {
	var config replica.Config
	err := json.Unmarshal([]byte(os.Getenv("TEST_NODE")), &config)
	if err != nil {
		log.Fatal(err)
	}
	node, err := replica.Open(config)
	if err != nil {
		log.Fatal(err)
	}
	node.OnLead(func() { fmt.Println(beginsToLead) })
	return node.Connect, func(app *pocketbase.PocketBase, config *hooks.Config) {
		node.Register(app, app.RootCmd)
		config.Node = node
		app.OnModelCreate(core.LogsTableName).BindFunc(func(e *core.ModelEvent) error {
			if entry := e.Model.(*core.Log); entry.Data["type"] != "request" && entry.Data["channelId"] == nil && entry.Data["callback"] == nil {
				fmt.Println(entry.Created, entry.Message, entry.Data)
			}
			return e.Next()
		})
		app.OnRecordCreate("aiContent").BindFunc(func(e *core.RecordEvent) error {
			if e.Record.GetString("category") == "refused" {
				return errors.New("Not wanted")
			}
			return e.Next()
		})
		app.OnServe().BindFunc(func(e *core.ServeEvent) error {
			e.Router.POST("/restart", func(e *core.RequestEvent) error { return e.App.Restart() })
			e.Router.POST("/snapshot", func(e *core.RequestEvent) error {
				if err := node.Snapshot(); err != nil {
					return err
				}
				return e.NoContent(http.StatusNoContent)
			})
			e.Router.GET("/{path...}", apis.Static(os.DirFS(filepath.Join("..", "pb_public")), false))
			e.Router.GET("/leads", func(e *core.RequestEvent) error {
				if !node.Leads() {
					return e.NoContent(http.StatusConflict)
				}
				return e.NoContent(http.StatusNoContent)
			})
			e.Router.GET("/state", func(e *core.RequestEvent) error { return e.JSON(http.StatusOK, node.State()) })
			return e.Next()
		})
	}
}

const beginsToLead = "This node begins to lead"

// startNode starts a host whose database has a log.
func startNode(t testing.TB, dir string, env ...string) *server {
	t.Helper()
	return startHost(t, dir, time.Minute, append(env, "TEST_NODE={}")...)
}

// newNodeRun is newFaultRun for a host whose database has a log.
func newNodeRun(t testing.TB, base string, seed uint64) *faultRun {
	t.Helper()
	s := startNode(t, filepath.Join(base, "pb_data"), "MODELRIVER_CALLBACK_HOSTS=127.0.0.1,callbacks.invalid")
	f := &faultRun{server: s, modelRiver: newModelRiver(t, s.URL, seed), t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	f.receivers = append(f.receivers, f.newReceiver(accepts))
	return f
}

// snapshot asks for a snapshot, and returns the status of the answer, 0 if there is none.
func (f *faultRun) snapshot() int {
	response, err := http.Post(f.URL+"/snapshot", "", nil)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// mustSnapshot waits until a snapshot is made.
func (f *faultRun) mustSnapshot() {
	f.t.Helper()
	await(f.t, "a snapshot is made", func() bool { return f.snapshot() == http.StatusNoContent })
}

// replaced returns how many databases were put aside.
func (f *faultRun) replaced() int {
	f.t.Helper()
	aside, err := filepath.Glob(filepath.Join(f.Dir, "superseded-*", "data.db"))
	if err != nil {
		f.t.Fatal(err)
	}
	return len(aside)
}

// loseDatabase deletes the database, but for its log.
func (f *faultRun) loseDatabase() {
	f.t.Helper()
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Remove(filepath.Join(f.Dir, "data.db"+suffix)); err != nil && !os.IsNotExist(err) {
			f.t.Fatal(err)
		}
	}
}

// copyDatabase copies one that no process has open.
func copyDatabase(t testing.TB, from, to string) {
	t.Helper()
	for _, suffix := range []string{"-wal", ""} {
		content, err := os.ReadFile(from + suffix)
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// killInStart starts a host whose database has a log, and kills it within that time.
func killInStart(t testing.TB, dir string, within time.Duration) {
	t.Helper()
	command := exec.Command(os.Args[0], "serve", "--dev=false", "--dir", dir, "--http", "127.0.0.1:0")
	command.Env = append(os.Environ(), "TEST_NODE={}", "TEST_CALLBACK_WINDOW=1m")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(within))
	command.Process.Kill()
	command.Wait()
}

// runNode is run, after which the log must make the same database again, to every row.
func (f *faultRun) runNode(fault func()) {
	f.t.Helper()
	f.run(false, fault)
	again := f.t.TempDir()
	if err := os.CopyFS(filepath.Join(again, "data.db-log"), os.DirFS(filepath.Join(f.Dir, "data.db-log"))); err != nil {
		f.t.Fatal(err)
	}
	node, err := replica.Open(replica.Config{})
	if err != nil {
		f.t.Fatal(err)
	}
	defer node.Close()
	db, err := node.Connect(filepath.Join(again, "data.db"))
	if err != nil {
		f.t.Fatal(err)
	}
	db.Close()
	mustEqual(f.t, "the log makes another database", dumpDatabase(f.t, f.Dir), dumpDatabase(f.t, again))
}

// mustEqual fails unless two databases are the same.
func mustEqual(t testing.TB, what string, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("%s, from row %d of %d and %d on: %.500s", what, i, len(want), len(got), fmt.Sprint(want[min(i, len(want)):], got[min(i, len(got)):]))
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

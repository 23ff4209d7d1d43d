package tests

import (
	"bufio"
	"flag"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/pocketriver/pocketriver/hooks/replica"
)

var nodeKills = flag.Int("kills", 4, "how often TestNodeFaults kills a server whose database has a log; TestThreeNodes does all of its own a quarter as often")

// A server whose database has a log is as a server without one, whatever happens, and its log
// is as complete as its database.
func TestNodeFaults(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		fault func(f *faultRun)
	}{
		{"kill -9", func(f *faultRun) {
			for range *nodeKills {
				f.sleep(20*time.Millisecond, 400*time.Millisecond)
				f.Restart()
			}
			f.await(200, 50)
		}},

		{"kill -9 while snapshots are made, the log is cut off, and the database replaced", func(f *faultRun) {
			for i := range *nodeKills {
				f.await(200, 20)
				go f.snapshot()
				f.sleep(0, 150*time.Millisecond)
				f.Kill()
				if i%2 == 1 {
					f.loseDatabase()
				}
				killInStart(f.t, f.Dir, 300*time.Millisecond)
				f.Start()
			}
			f.await(200, 50)
			f.mustSnapshot()
		}},

		{"somebody edits the database", func(f *faultRun) {
			f.await(200, 50)
			f.Kill()
			db := openDatabase(f.t, f.Dir)
			if _, err := db.NewQuery("UPDATE aiContent SET title = 'edited'").Execute(); err != nil {
				f.t.Fatal(err)
			}
			db.Close()
			f.Start()
			await(f.t, "the server has replaced the database", func() bool { return f.replaced() == 1 })
			f.await(200, 50)
			f.mustSnapshot()
		}},

		{"an old copy of the database is put back", func(f *faultRun) {
			f.await(200, 50)
			f.Kill()
			old := filepath.Join(f.t.TempDir(), "old")
			copyDatabase(f.t, filepath.Join(f.Dir, "data.db"), old)
			f.Start()
			for range 2 {
				f.await(200, 50)
				f.mustSnapshot()
			}
			f.Kill()
			f.loseDatabase()
			copyDatabase(f.t, old, filepath.Join(f.Dir, "data.db"))
			f.Start()
			f.await(200, 50)
			if f.replaced() != 1 {
				f.t.Errorf("%d databases were put aside", f.replaced())
			}
		}},

		{"SIGTERM, then PocketBase restarts itself", func(f *faultRun) {
			f.await(200, 50)
			if took := f.terminate(); took > 5*time.Second {
				f.t.Errorf("exit took %s, want at most 5 s", took)
			}
			f.Start()
			f.await(200, 50)
			if response, err := http.Post(f.URL+"/restart", "", nil); err == nil { // which ends without an answer
				response.Body.Close()
				f.t.Errorf("restart: %s", response.Status)
			}
			f.await(200, 50)
		}},

		{"the process stands still", func(f *faultRun) {
			f.await(200, 30)
			f.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(3 * time.Second) // longer than an append may take
			f.cmd.Process.Signal(syscall.SIGCONT)
			f.await(200, 30)
		}},

		{"the log's disk fails to sync", func(f *faultRun) {
			f.await(200, 50)
			stop := f.strace("-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "-P", logFile(f.t, f.Dir), "-o", os.DevNull)
			f.await(503, connections)
			stop()
			f.await(200, 50)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := newNodeRun(t, t.TempDir(), rand.Uint64())
			f.runNode(func() { row.fault(f) })
		})
	}
}

// JetStream switches itself off when the disk is full: it is on again when there is space.
func TestNodeWhoseDiskIsFull(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	mount(t, base, "128m")
	f := newNodeRun(t, base, rand.Uint64())
	f.runNode(func() {
		f.await(200, 50)
		free := fill(t, base, "128m")
		f.await(503, connections)
		if got := f.snapshot(); got == http.StatusNoContent {
			t.Error("a snapshot was made of nothing")
		}
		free()
		f.await(200, 50)
		f.mustSnapshot()
		free = fill(t, base, "128m")
		f.await(503, connections)
		f.Kill()
		free()
		f.Start()
		f.await(200, 50)
	})
}

// Wherever its first start is killed, the next one works.
func TestNodeKilledInItsFirstStart(t *testing.T) {
	t.Parallel()
	for range *nodeKills {
		base := t.TempDir()
		for range 3 {
			killInStart(t, filepath.Join(base, "pb_data"), 300*time.Millisecond)
		}
		f := newNodeRun(t, base, rand.Uint64())
		f.runNode(func() { f.await(200, 10) })
	}
}

// A database whose log is lost is refused, and so is one that has rows and no log, until it is seeded.
func TestSeededNode(t *testing.T) {
	t.Parallel()
	f := newNodeRun(t, t.TempDir(), rand.Uint64())
	f.runNode(func() {
		f.await(200, 100)
		f.terminate()
		refuse := func(want string) {
			t.Helper()
			if out, err := f.command("serve", "--http", "127.0.0.1:0"); err == nil || !strings.Contains(out, want) {
				t.Errorf("it isn't refused: %v, %s", err, out)
			}
		}
		if err := os.RemoveAll(filepath.Join(f.Dir, "data.db-log")); err != nil {
			t.Fatal(err)
		}
		refuse(`end it with "cluster leave", and begin a new one with "cluster init"`)
		if _, err := replica.Leave(filepath.Join(f.Dir, "data.db")); err != nil {
			t.Fatal(err)
		}
		refuse(`it has rows and follows no log: "cluster init" begins one with it`)
		if err := replica.Seed(filepath.Join(f.Dir, "data.db")); err != nil {
			t.Fatal(err)
		}
		f.Start()
		f.await(200, 50)
	})
}

// logFile returns the file that the log is written to.
func logFile(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data.db-log", "jetstream", "*", "streams", "*", "msgs", "*.blk"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files of the log: %v, %v", files, err)
	}
	return files[0]
}

// A power failure takes what was not synced: of the database all that it has not written into
// its file, of the log what nobody was answered for.
func TestNodeOutlivesAPowerFailure(t *testing.T) {
	t.Parallel()
	f := newNodeRun(t, t.TempDir(), rand.Uint64())
	f.runNode(func() {
		trace := f.traceLog()
		for range 2 { // of which what was cut off is not synced
			f.await(200, 20)
			f.mustSnapshot()
		}
		f.await(200, 150)
		f.Kill()
		trace.loseUnsynced()
		if lost := f.count(200) - stored(t, f.Dir); lost < 50 { // all since the last checkpoint
			t.Errorf("%d records were lost: too few", lost)
		}
		f.Start()
		f.await(200, 50)
	})
}

// stored returns how many records a copy of the database's file has.
func stored(t testing.TB, dir string) (n int) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "data.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := dbx.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.NewQuery("SELECT count(*) FROM aiContent").Row(&n) // or not even the table is left
	return n
}

// A logTrace is what strace sees a server write to its log.
type logTrace struct {
	*faultRun
	path string
	stop func()
}

func (f *faultRun) traceLog() *logTrace {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "trace")
	return &logTrace{f, path, f.strace("-e", "trace=pwrite64,fsync", "-y", "-s", "0", "-o", path)}
}

// loseUnsynced takes from the data of a server that was killed what a power failure may take.
func (l *logTrace) loseUnsynced() {
	l.t.Helper()
	l.stop()
	lost, err := filepath.Glob(filepath.Join(l.Dir, "data.db-log", "jetstream", "*", "*", "*", "msgs", "index.db"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, path := range append(lost, filepath.Join(l.Dir, "data.db-wal")) {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			l.t.Fatal(err)
		}
	}
	lengths := syncedLengths(l.t, l.path)
	if len(lengths) == 0 {
		l.t.Fatal("the log wasn't written to")
	}
	for path, synced := range lengths {
		if info, err := os.Stat(path); err == nil && info.Size() > synced {
			if err := os.Truncate(path, synced); err != nil {
				l.t.Fatal(err)
			}
		}
	}
}

// syncedLengths returns how much was synced of each file of a log, which only grow, by what strace saw of them.
func syncedLengths(t testing.TB, trace string) map[string]int64 {
	t.Helper()
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	call := regexp.MustCompile(`^(\d+) +(?:(pwrite64|fsync)\(\d+<(.*\.blk)>(?:, .*, (\d+), (\d+))?(\) += \d+| <unfinished)|<\.\.\. fsync resumed>\) += 0)`)
	type syncing struct {
		path string
		end  int64
	}
	ends, synced, begun := map[string]int64{}, map[string]int64{}, map[string]syncing{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		m := call.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		switch pid, path := m[1], m[3]; {
		case m[2] == "pwrite64":
			length, _ := strconv.ParseInt(m[4], 10, 64)
			offset, _ := strconv.ParseInt(m[5], 10, 64)
			if _, known := synced[path]; !known { // what was there before
				synced[path] = offset
			}
			ends[path] = max(ends[path], offset+length)
		case m[2] == "fsync" && strings.HasSuffix(m[6], "unfinished"):
			begun[pid] = syncing{path, ends[path]}
		case m[2] == "fsync":
			synced[path] = max(synced[path], ends[path])
		default:
			was := begun[pid]
			synced[was.path] = max(synced[was.path], was.end)
		}
	}
	delete(synced, "")
	return synced
}

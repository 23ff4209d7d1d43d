package tests

import (
	"bufio"
	"flag"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
)

var nodeKills = flag.Int("kills", 4, "how often TestNodeFaults kills a server whose database has a log")

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
		free()
		f.await(200, 50)
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
			command := exec.Command(os.Args[0], "serve", "--dev=false", "--dir", filepath.Join(base, "pb_data"), "--http", "127.0.0.1:0")
			command.Env = append(os.Environ(), "TEST_NODE=1", "TEST_CALLBACK_WINDOW=1m")
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
			command.Process.Kill()
			command.Wait()
		}
		f := newNodeRun(t, base, rand.Uint64())
		f.runNode(func() { f.await(200, 10) })
	}
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
		blk := logFile(t, f.Dir)
		trace := filepath.Join(t.TempDir(), "trace")
		stop := f.strace("-e", "trace=pwrite64,fsync", "-y", "-s", "0", "-o", trace, "-P", blk)
		f.await(200, 200)
		f.Kill()
		stop()
		if err := os.Truncate(blk, syncedLength(t, trace)); err != nil {
			t.Fatal(err)
		}
		for _, lost := range []string{filepath.Join(f.Dir, "data.db-wal"), filepath.Join(filepath.Dir(blk), "index.db")} {
			if err := os.Remove(lost); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		if left := stored(t, f.Dir); left >= f.count(200)/2 {
			t.Errorf("the database has %d records: too little was lost", left)
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

// syncedLength returns how much of a file that only grows was synced, by what strace saw of it.
func syncedLength(t testing.TB, trace string) (synced int64) {
	t.Helper()
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write := regexp.MustCompile(`pwrite64\(.*, (\d+), (\d+)(\) += \d+| <unfinished)`)
	end, syncing := int64(0), map[string]int64{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		pid, call, _ := strings.Cut(lines.Text(), " ")
		call = strings.TrimLeft(call, " ")
		if m := write.FindStringSubmatch(call); m != nil {
			length, _ := strconv.ParseInt(m[1], 10, 64)
			offset, _ := strconv.ParseInt(m[2], 10, 64)
			end = max(end, offset+length)
		}
		switch {
		case strings.HasPrefix(call, "fsync(") && strings.Contains(call, "<unfinished"):
			syncing[pid] = end
		case strings.HasPrefix(call, "fsync(") && strings.Contains(call, "= 0"):
			synced = end
		case strings.HasPrefix(call, "<... fsync resumed>") && strings.Contains(call, "= 0"):
			synced = max(synced, syncing[pid])
		}
	}
	if synced == 0 {
		t.Fatal("nothing was synced")
	}
	return synced
}

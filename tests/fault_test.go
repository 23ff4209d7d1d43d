package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		once  bool // no callback may come twice
		fault func(f *faultRun)
	}{
		{"no fault", true, func(f *faultRun) { f.await(200, 500) }},

		{"kill -9", false, func(f *faultRun) {
			for range 8 {
				f.sleep(20*time.Millisecond, 400*time.Millisecond)
				f.Restart()
			}
			f.await(200, 50)
		}},

		{"kill -9 while callbacks hang", false, func(f *faultRun) {
			f.receivers[0].set(hangs)
			for range 3 {
				f.await(200, 30)
				f.Restart()
			}
			f.receivers[0].set(accepts)
		}},

		{"SIGTERM", false, func(f *faultRun) {
			for range 3 {
				f.await(200, 50)
				if took := f.terminate(); took > 5*time.Second {
					f.t.Errorf("exit took %s, want at most 5 s", took)
				}
				f.Start()
			}
		}},

		{"SIGTERM while callbacks hang", false, func(f *faultRun) {
			f.receivers[0].set(hangs)
			f.await(200, 50)
			if took := f.terminate(); took > 5*time.Second {
				f.t.Errorf("exit took %s, want at most 5 s", took)
			}
			f.receivers[0].set(accepts)
			f.Start()
			f.await(200, 50)
		}},

		{"SIGTERM while the database is locked", false, func(f *faultRun) {
			f.await(200, 50)
			release := f.hold()
			defer release()
			time.Sleep(200 * time.Millisecond) // webhooks wait now
			if took := f.terminate(); took > 5*time.Second {
				f.t.Errorf("exit took %s, want at most 5 s", took)
			}
			release()
			f.Start()
			f.await(200, 50)
		}},

		{"restart during the callback window", false, func(f *faultRun) {
			f.receivers[0].set(answers(503))
			f.await(200, 50)
			f.terminate()
			f.Start()
			f.Restart()
			f.receivers[0].set(accepts)
			f.await(200, 50)
		}},

		{"another process writes", true, func(f *faultRun) {
			for i := range 3 {
				for _, args := range [][]string{
					{"superuser", "upsert", fmt.Sprintf("root%d@example.com", i), "correct horse"},
					{"migrate", "up"},
					{"modelriver", "send", "--no-callback", "--url", f.URL + "/api/health"},
				} {
					out, err := f.command(args...)
					if (err != nil) != (args[0] == "modelriver") { // which is not where webhooks go
						f.t.Errorf("%v: %v\n%s", args, err, out)
					}
				}
			}
			f.await(200, 50)
			if got := f.count(503); got != 0 {
				f.t.Errorf("answers of 503: got %d, want none", got)
			}
		}},

		{"a second serve on the same port", true, func(f *faultRun) {
			out, err := f.command("serve", "--http", strings.TrimPrefix(f.URL, "http://"))
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				f.t.Errorf("second serve: got %v, want exit status 1\n%s", err, out)
			}
			f.await(200, 50)
		}},

		{"a backup from the dashboard", true, func(f *faultRun) {
			f.await(200, 200)
			for i := range 3 {
				f.API(f.token, http.MethodPost, "/api/backups", map[string]string{"name": fmt.Sprintf("backup%d.zip", i)}, nil)
			}
			f.await(200, 50)
			if got := f.count(503); got != 0 {
				f.t.Errorf("answers of 503: got %d, want none", got)
			}
			f.checkBackup("backup2.zip", 200)
		}},

		// PocketBase's own backup gives up the locks on the database, so that the command
		// would delete the WAL that the server goes on to write to.
		{"a backup, then a command, then kill -9", false, func(f *faultRun) {
			f.await(200, 50)
			f.API(f.token, http.MethodPost, "/api/backups", map[string]string{"name": "backup.zip"}, nil)
			if out, err := f.command("superuser", "upsert", "other@example.com", "correct horse"); err != nil {
				f.t.Errorf("superuser upsert: %v\n%s", err, out)
			}
			f.await(200, 50)
			f.Restart()
			f.await(200, 50)
		}},

		{"another writer holds the lock for a while", true, func(f *faultRun) {
			f.await(200, 50)
			release := f.hold()
			time.Sleep(3 * time.Second)
			release()
			f.await(200, 50)
			if got := f.count(503); got != 0 {
				f.t.Errorf("answers of 503: got %d, want none: the wait was bearable", got)
			}
		}},

		{"another writer holds the lock for 30 s", false, func(f *faultRun) {
			f.await(200, 50)
			release := f.hold()
			defer release()
			started := time.Now()
			f.await(503, 2*connections)
			time.Sleep(time.Until(started.Add(30 * time.Second)))
			release()
			f.await(200, 50)
		}},

		{"the process stands still", false, func(f *faultRun) {
			for range 3 {
				f.await(200, 30)
				f.cmd.Process.Signal(syscall.SIGSTOP)
				f.sleep(100*time.Millisecond, 2*time.Second)
				f.cmd.Process.Signal(syscall.SIGCONT)
			}
			f.await(200, 30)
		}},

		{"the disk fails to sync", false, func(f *faultRun) {
			f.await(200, 50)
			stop := f.inject("fdatasync,fsync", "EIO")
			f.await(503, connections)
			stop()
			f.await(200, 50)
			f.Restart() // the leases of outcomes that could not be written take 40 s
		}},

		{"the file system turns read-only", false, func(f *faultRun) {
			f.await(200, 50)
			stop := f.inject("pwrite64,ftruncate", "EROFS")
			f.await(503, connections)
			stop()
			f.await(200, 50)
			f.Restart()
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := newFaultRun(t, t.TempDir(), rand.Uint64())
			f.run(row.once, func() { row.fault(f) })
		})
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	mount(t, base, "64m")
	f := newFaultRun(t, base, rand.Uint64())
	f.run(false, func() {
		for range 2 {
			f.await(200, 50)
			free := fill(t, base, "64m")
			f.await(503, connections)
			free()
			f.await(200, 50)
		}
		// And from full into a crash.
		free := fill(t, base, "64m")
		f.await(503, connections)
		f.Kill()
		free()
		f.Start()
		f.await(200, 50)
	})
}

// A data directory that cannot be written is an error at the start, and harms nothing.
func TestReadOnlyDataDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	mount(t, base, "64m")
	f := newFaultRun(t, base, rand.Uint64())
	f.run(false, func() {
		f.await(200, 50)
		f.terminate()
		if err := syscall.Mount("", base, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		out, err := f.command("serve", "--http", "127.0.0.1:0")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, f.Dir+": it must be writable") {
			t.Errorf("serve: got %v, want exit status 1 and a reason\n%s", err, out)
		}
		if err := syscall.Mount("", base, "", syscall.MS_REMOUNT, "size=64m"); err != nil {
			t.Fatal(err)
		}
		f.Start()
		f.await(200, 50)
	})
}

// The first start creates the tables; wherever it is killed, the next one works.
func TestKilledFirstStart(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := newDataDir(t, base)
	for range 8 {
		command := exec.Command(buildBinary(t), "serve", "--dev=false", "--dir", dir, "--http", "127.0.0.1:0")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		command.Process.Kill()
		command.Wait()
	}
	f := newFaultRun(t, base, rand.Uint64())
	f.run(true, func() { f.await(200, 50) })
}

package tests

import (
	"bufio"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/archive"

	"github.com/pocketriver/pocketriver/hooks"
)

// init turns this test binary into a server with a short callback window and timeout,
// which the real binary has no setting for. It runs under the race detector if the tests
// do.
func init() {
	window, err := time.ParseDuration(os.Getenv("TEST_CALLBACK_WINDOW"))
	if err != nil {
		return
	}
	connect, register := hostConnect()
	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: connect})
	config, _ := hooks.ConfigFromEnv()
	register(app, &config)
	config.CallbackWindow, config.CallbackTimeout = window, max(time.Second, window/30)
	hooks.MustRegister(app, app.RootCmd, config)
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.InstallerFunc = nil
		return e.Next()
	})
	if err := app.Start(); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}

// hostConnect returns what opens the databases: as the binary does, as PocketBase does, or
// with a log, and what that needs of the app and of its configuration.
func hostConnect() (connect core.DBConnectFunc, register func(*pocketbase.PocketBase, *hooks.Config)) {
	switch {
	case os.Getenv("TEST_DEFAULT_CONNECT") != "":
		return core.DefaultDBConnect, func(*pocketbase.PocketBase, *hooks.Config) {}
	case os.Getenv("TEST_NODE") != "":
		return connectNode()
	}
	return hooks.DBConnect, func(*pocketbase.PocketBase, *hooks.Config) {}
}

// startHost starts the server of init.
func startHost(t testing.TB, dir string, window time.Duration, env ...string) *server {
	t.Helper()
	return startServerBinary(t, os.Args[0], dir, append(env, "TEST_CALLBACK_WINDOW="+window.String())...)
}

// A faultRun is a real server under load, and the ledger of what it was sent.
type faultRun struct {
	*server
	*modelRiver
	t     testing.TB
	rng   *rand.Rand
	token string // of a superuser
}

const connections = 8

// newFaultRun starts the real binary on the data directory base/pb_data.
func newFaultRun(t testing.TB, base string, seed uint64, env ...string) *faultRun {
	t.Helper()
	s := startServer(t, newDataDir(t, base), append(env, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1,callbacks.invalid")...)
	f := &faultRun{server: s, modelRiver: newModelRiver(t, s.URL, seed), t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	f.token = s.Superuser()
	f.receivers = append(f.receivers, f.newReceiver(accepts))
	return f
}

// sleep waits for a random time.
func (f *faultRun) sleep(from, to time.Duration) {
	time.Sleep(from + time.Duration(f.rng.Int64N(int64(to-from))))
}

// run loads the server while the fault happens, and balances the ledger.
func (f *faultRun) run(once bool, fault func()) {
	f.t.Helper()
	f.load(connections, 5*time.Millisecond, fault)
	settle(f.t, f.Dir, 8*time.Minute) // a window, an attempt and a lease may still be left
	f.server.Stop()
	f.check(f.Dir, once)
	f.t.Log(f.summary())
}

// count returns how many webhooks had this answer so far.
func (m *modelRiver) count(status int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses[status]
}

// await waits for n more webhooks with this answer.
func (m *modelRiver) await(status, n int) {
	m.t.Helper()
	want := m.count(status) + n
	await(m.t, fmt.Sprintf("%d more webhooks are answered %d", n, status), func() bool { return m.count(status) >= want })
}

// terminate ends the process as a service manager does, and returns how long it took.
func (f *faultRun) terminate() time.Duration {
	f.t.Helper()
	started := time.Now()
	f.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-f.exited:
	case <-time.After(30 * time.Second):
		f.t.Fatalf("the server does not stop\n%s", f.output)
	}
	if code := f.cmd.ProcessState.ExitCode(); code != 0 {
		f.t.Errorf("exit status after SIGTERM: got %d, want 0\n%s", code, f.output)
	}
	return time.Since(started)
}

// command runs the binary on the data of the server.
func (f *faultRun) command(args ...string) (string, error) {
	command := exec.Command(f.binary, append(args, "--dev=false", "--dir", f.Dir)...)
	command.Env = f.env
	out, err := command.CombinedOutput()
	return string(out), err
}

// checkBackup looks for at least this many records in a backup.
func (f *faultRun) checkBackup(name string, records int) {
	f.t.Helper()
	dir := f.t.TempDir()
	if err := archive.Extract(filepath.Join(f.Dir, "backups", name), dir); err != nil {
		f.t.Fatal(err)
	}
	var integrity string
	var got int
	db := openDatabase(f.t, dir)
	err := errors.Join(db.NewQuery("PRAGMA integrity_check").Row(&integrity), db.NewQuery("SELECT COUNT(*) FROM aiContent").Row(&got))
	if err != nil || integrity != "ok" || got < records*3/4 { // some are refused or ignored
		f.t.Errorf("backup: got %d records, integrity %q, %v", got, integrity, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "auxiliary.db")); err != nil {
		f.t.Error(err)
	}
}

// hold takes the write lock of the database as another program would, and returns what
// gives it back.
func (f *faultRun) hold() (release func()) {
	f.t.Helper()
	db, err := dbx.Open("sqlite", filepath.Join(f.Dir, "data.db")+"?_txlock=immediate&_pragma=busy_timeout(20000)")
	if err != nil {
		f.t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		f.t.Fatal(err)
	}
	return func() {
		tx.Rollback()
		db.Close()
	}
}

// inject makes system calls of the server on its database fail, and returns what ends
// that.
func (f *faultRun) inject(calls, errno string) (stop func()) {
	f.t.Helper()
	return f.strace("-e", "trace="+calls, "-e", "inject="+calls+":error="+errno,
		"-P", filepath.Join(f.Dir, "data.db"), "-P", filepath.Join(f.Dir, "data.db-wal"), "-o", os.DevNull)
}

// strace attaches to the server and returns what ends that.
func (s *server) strace(args ...string) (stop func()) {
	s.t.Helper()
	command := exec.Command("strace", append([]string{"-f", "-p", strconv.Itoa(s.cmd.Process.Pid)}, args...)...)
	stderr, err := command.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		s.t.Fatalf("%v: this test needs strace (apt-get install strace)", err)
	}
	attached, said := make(chan struct{}), &output{}
	go func() {
		first := true
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(said, lines.Text())
			if first && strings.Contains(lines.Text(), "attached") {
				close(attached)
				first = false
			}
		}
	}()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			command.Process.Signal(syscall.SIGTERM)
			command.Wait()
		}
	}
	s.t.Cleanup(stop)
	select {
	case <-attached:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("strace cannot attach: this test needs ptrace (Docker: --cap-add SYS_PTRACE)\n%s", said)
	}
	return stop
}

// mount mounts a file system in memory of this size on dir.
func mount(t testing.TB, dir, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount: %v: this test needs root and mounts (Docker: --cap-add SYS_ADMIN)", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill leaves no space on what mount mounted, and returns what gives it back.
func fill(t testing.TB, dir, size string) (free func()) {
	t.Helper()
	remount := func(size string) error {
		return syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size="+size)
	}
	var stat syscall.Statfs_t
	for try := range 100 {
		if err := syscall.Statfs(dir, &stat); err != nil {
			t.Fatal(err)
		}
		used := (stat.Blocks - stat.Bfree) * uint64(stat.Bsize)
		if err := remount(strconv.FormatUint(used, 10)); err == nil {
			break
		} else if try == 99 {
			t.Fatalf("mount: %v", err)
		} // it grew meanwhile
	}
	return func() {
		if err := remount(size); err != nil {
			t.Errorf("mount: %v", err)
		}
	}
}

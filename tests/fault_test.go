package tests

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
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
// which the real binary has no setting for. It runs under the race detector if the
// tests do.
func init() {
	window, err := time.ParseDuration(os.Getenv("TEST_CALLBACK_WINDOW"))
	if err != nil {
		return
	}
	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: hostConnect()})
	config, _ := hooks.ConfigFromEnv()
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

func hostConnect() core.DBConnectFunc {
	if os.Getenv("TEST_DEFAULT_CONNECT") != "" {
		return core.DefaultDBConnect
	}
	return hooks.DBConnect
}

// startHost starts the server of init.
func startHost(t testing.TB, dir string, window time.Duration, env ...string) *server {
	t.Helper()
	return startServerBinary(t, os.Args[0], dir, append(env, "TEST_CALLBACK_WINDOW="+window.String())...)
}

// newDataDir returns a data directory that does not exist yet, with refusingHook.
func newDataDir(t testing.TB, base string) string {
	t.Helper()
	hooksDir := filepath.Join(base, "pb_hooks")
	if err := os.MkdirAll(hooksDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(hooksDir, "refuse.pb.js"), []byte(refusingHook), 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(base, "pb_data")
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
func newFaultRun(t testing.TB, base string, seed uint64) *faultRun {
	t.Helper()
	s := startServer(t, newDataDir(t, base), "MODELRIVER_CALLBACK_HOSTS=127.0.0.1,callbacks.invalid")
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
func (f *faultRun) count(status int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.statuses[status]
}

// await waits for n more webhooks with this answer.
func (f *faultRun) await(status, n int) {
	f.t.Helper()
	want := f.count(status) + n
	await(f.t, fmt.Sprintf("%d more webhooks are answered %d", n, status), func() bool { return f.count(status) >= want })
}

// await waits until the condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
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

// Every kind of receiver ends in the state it should, and none keeps callbacks from
// another.
func TestCallbackReceivers(t *testing.T) {
	t.Parallel()
	t.Run("failed", func(t *testing.T) {
		t.Parallel()
		testCallbackReceivers(t, "failed", 7*time.Second)
	})
	t.Run("delivered", func(t *testing.T) { // in time on any machine
		t.Parallel()
		testCallbackReceivers(t, "delivered", 5*time.Minute)
	})
}

func testCallbackReceivers(t *testing.T, state string, window time.Duration) {
	dir := newDataDir(t, t.TempDir())
	s := startHost(t, dir, window, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1,callbacks.invalid")
	m := newModelRiver(t, s.URL, rand.Uint64())
	trap := m.newReceiver(func(m *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) {
		m.violate("a redirect was followed: %s %s", r.Method, r.URL)
	})

	const each = 20 // more than is sent to a host at a time
	type row struct {
		name      string
		behave    behaviour
		url       string // instead of a receiver
		state     string
		lastError string // a part of it
	}
	rows := slices.DeleteFunc([]row{
		{"hangs for ever", hangs, "", "failed", "no answer"},
		{"trickles its answer", trickles, "", "failed", "no answer"},
		{"resets every connection", resets, "", "failed", "connection reset"},
		{"refuses connections", nil, closedPort(t), "failed", "connection refused"},
		{"has no address", nil, "https://callbacks.invalid", "failed", "callbacks.invalid"},
		{"500 for longer than the window", answers(500), "", "failed", "answered 500"},
		{"redirects with 301", redirects(301, trap.url), "", "failed", "answered 301"},
		{"redirects with 307", redirects(307, trap.url), "", "failed", "answered 307"},
		{"refuses for good", answers(410), "", "failed", "answered 410"},
		{"trickles the body of its answer", tricklesBody, "", "delivered", ""},
		{"resets within the body", resetsInBody, "", "delivered", ""},
		{"answers 200 with 100 MB", answersHugely, "", "delivered", ""},
		{"429 with seconds", retryAfter(false), "", "delivered", ""},
		{"429 with a date", retryAfter(true), "", "delivered", ""},
		{"closes kept connections", closesConnections, "", "delivered", ""},
	}, func(r row) bool { return r.state != state })
	sent := map[string][]*sentWebhook{}
	for _, row := range rows {
		url := row.url
		if url == "" {
			url = m.newReceiver(row.behave).url
		}
		for range each {
			sent[row.name] = append(sent[row.name], m.newWebhook(kindCallback, url, 100))
		}
	}
	good := m.newReceiver(accepts)
	for i := range each {
		for _, row := range rows {
			if status := m.post(sent[row.name][i]); status != 200 {
				t.Fatalf("webhook: got %d", status)
			}
		}
		// The good receiver is served at once, whatever the others do.
		w := m.newWebhook(kindCallback, good.url, 100)
		if status := m.post(w); status != 200 {
			t.Fatalf("webhook: got %d", status)
		}
		await(t, "the good receiver's callback", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return w.accepted > 0
		})
	}
	if rss := residentMemory(t, s); rss > 1<<30 {
		t.Errorf("memory: got %d MB", rss>>20)
	}

	settle(t, dir, 3*time.Minute)
	s.Stop()
	m.check(dir, false)
	db := openDatabase(t, dir)
	for _, row := range rows {
		for _, w := range sent[row.name] {
			var got callbackRow
			if err := db.Select().From("modelriverCallbacks").Where(dbx.Like("url", "/"+w.channel).Match(true, false)).One(&got); err != nil {
				t.Fatal(err)
			}
			if got.State != row.state || !strings.Contains(got.LastError, row.lastError) {
				t.Errorf("%s: got %s, %q, want %s, %q", row.name, got.State, got.LastError, row.state, row.lastError)
				break
			}
		}
	}
	t.Log(m.summary())
}

// residentMemory returns how many bytes of memory the process has.
func residentMemory(t testing.TB, s *server) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	kb, _ := strconv.Atoi(string(match[1]))
	return kb << 10
}

// Thousands of callbacks of a host that hangs wait in the table, not in memory, and are sent
// when it answers again.
func TestWaitingCallbacksTakeNoMemory(t *testing.T) {
	t.Parallel()
	n := 600
	if *tortureFor > shortTorture {
		n = 10_000
	}
	const size = 50_000
	s := startServer(t, "")
	m := newModelRiver(t, s.URL, rand.Uint64())
	slow, good := m.newReceiver(hangs), m.newReceiver(accepts)
	var senders sync.WaitGroup
	for range connections {
		senders.Go(func() {
			for range n / connections {
				m.deliver(context.Background(), m.newWebhook(kindCallback, slow.url, size))
			}
		})
	}
	senders.Wait()
	if got := m.statuses[200]; got != n {
		t.Fatalf("webhooks answered 200: got %d, want %d", got, n)
	}
	// 256 of the bodies may be held, 12 MB.
	await(t, "memory returns", func() bool { return residentMemory(t, s) < 200<<20 })
	t.Logf("%d MB of bodies wait, %d MB are resident", n*size>>20, residentMemory(t, s)>>20)

	w := m.newWebhook(kindCallback, good.url, 100)
	m.post(w)
	await(t, "the good receiver's callback", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return w.accepted == 1
	})
	if slow.most > 2*16 { // 16 at a time, and those given up that the receiver has not noticed
		t.Errorf("callbacks to one host at a time: got %d, want at most 16", slow.most)
	}
	slow.set(accepts)
	s.Restart() // what hangs would take its 30 s
	settle(t, s.Dir, 3*time.Minute)
	s.Stop()
	m.check(s.Dir, false)
}

// syncReport reads what strace saw and returns how many webhooks were answered 200, and
// how many of those before their commit was on disk.
func syncReport(t testing.TB, path string) (answered, early int) {
	t.Helper()
	trace, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var (
		written = 0 // calls that wrote to the WAL, begun
		synced  = 0 // of those, on disk
		last    = 0 // written when the last webhook was answered
		syncing = map[string]int{}
	)
	for line := range strings.Lines(string(trace)) {
		pid, call, _ := strings.Cut(line, " ")
		call = strings.TrimLeft(call, " ")
		switch {
		case strings.HasPrefix(call, "pwrite64(") && strings.Contains(call, "data.db-wal>"):
			written++
		case strings.HasPrefix(call, "fdatasync(") || strings.HasPrefix(call, "fsync("):
			if !strings.Contains(call, "data.db-wal>") {
				continue
			}
			if strings.Contains(call, "<unfinished") {
				syncing[pid] = written
			} else if strings.Contains(call, "= 0") {
				synced = written
			}
		case strings.HasPrefix(call, "<... fdatasync resumed>") || strings.HasPrefix(call, "<... fsync resumed>"):
			if n, ok := syncing[pid]; ok && strings.Contains(call, "= 0") {
				synced = max(synced, n)
			}
			delete(syncing, pid)
		case strings.HasPrefix(call, "write(") && strings.Contains(call, `"HTTP/1.1 200 OK`) && strings.Contains(call, "received"):
			answered++
			if synced < written || written == last {
				early++
			}
			last = written
		}
	}
	return answered, early
}

// Acknowledged means on disk: between a webhook's last write to the database's log and
// its 200 the log is synced. A host that opens data.db as PocketBase does is the
// control: there it is not.
func TestAcknowledgedMeansSynced(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		start  func(dir string) *server
		synced bool
	}{
		{"the binary", func(dir string) *server { return startServer(t, dir) }, true},
		{"a host with synchronous=NORMAL", func(dir string) *server {
			return startHost(t, dir, time.Minute, "TEST_DEFAULT_CONNECT=1")
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := row.start(newDataDir(t, t.TempDir()))
			m := newModelRiver(t, s.URL, rand.Uint64())
			trace := filepath.Join(t.TempDir(), "trace")
			stop := s.strace("-e", "trace=pwrite64,fdatasync,fsync,write", "-y", "-s", "400", "-o", trace)
			const n = 50
			for range n { // one after the other, with no callback to write down
				if status := m.post(m.newWebhook(kindNoCallback, "", 1000)); status != 200 {
					t.Fatalf("webhook: got %d", status)
				}
			}
			stop()
			answered, early := syncReport(t, trace)
			if answered != n {
				t.Fatalf("answers in the trace: got %d, want %d", answered, n)
			}
			if row.synced && early > 0 {
				t.Errorf("%d of %d webhooks were answered 200 before they were on disk", early, n)
			}
			if !row.synced && early == 0 {
				t.Error("every webhook was synced: this test would not see one that is not")
			}
		})
	}
}

const shortTorture = 8 * time.Second

var (
	tortureFor  = flag.Duration("torture", shortTorture, "how long TestTorture goes on")
	tortureSeed = flag.Uint64("seed", 0, "of TestTorture's faults (default: a new one)")
)

// Every fault, at random moments and on top of each other.
func TestTorture(t *testing.T) {
	t.Parallel()
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run TestTorture . -torture %s -seed %d", *tortureFor, seed)

	base := t.TempDir()
	size := "64m"
	if *tortureFor > shortTorture {
		size = "8g"
	}
	mount(t, base, size)
	f := newFaultRun(t, base, seed)
	faults, kills := map[string]int{}, 0
	end := time.Now().Add(*tortureFor)

	// Two receivers are good, the others change. Two that can't be reached take the
	// whole window to fail, and so are part of long runs only, and not of their end.
	good := f.receivers[0]
	f.receivers = append(f.receivers, f.newReceiver(accepts))
	var moody []*receiver
	for range 4 {
		moody = append(moody, f.newReceiver(accepts))
	}
	f.receivers = append(f.receivers, moody...)
	reachable := f.receivers
	window := 5*time.Minute + 90*time.Second
	if *tortureFor > window {
		f.receivers = append(f.receivers[:len(f.receivers):len(f.receivers)], &receiver{url: closedPort(t)}, &receiver{url: "https://callbacks.invalid"})
	}
	moods := []behaviour{
		accepts, accepts, hangs, trickles, tricklesBody, resets, resetsInBody, answersHugely, closesConnections,
		retryAfter(false), retryAfter(true), answers(500), answers(503), answers(410), redirects(307, good.url),
	}

	// A fault of the surroundings begins, and its end is returned. It may leave the
	// process unable to start.
	var background sync.WaitGroup
	defer background.Wait()
	surroundings := []struct {
		name  string
		begin func() (end func())
	}{
		{"calm", func() func() { return func() {} }},
		{"locked database", f.hold},
		{"full disk", func() func() { return fill(t, base, size) }},
		{"failed syncs", func() func() { return f.inject("fdatasync,fsync", "EIO") }},
		{"failed writes", func() func() { return f.inject("pwrite64", "EIO") }},
		{"backup", func() func() {
			background.Go(func() { // it may be refused, or cut off
				request, _ := http.NewRequest(http.MethodPost, f.URL+"/api/backups", strings.NewReader(`{"name":"torture.zip"}`))
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("Authorization", f.token)
				if response, err := http.DefaultClient.Do(request); err == nil {
					response.Body.Close()
				}
			})
			return func() {}
		}},
		{"command", func() func() {
			args := [][]string{{"superuser", "upsert", "other@example.com", "correct horse"}, {"migrate", "up"}}[f.rng.IntN(2)]
			background.Go(func() { f.command(args...) })
			return func() {}
		}},
		{"junk", func() func() {
			stop := make(chan struct{})
			for range 4 {
				background.Go(func() { sendJunk(f.URL, stop) })
			}
			return func() { close(stop) }
		}},
	}
	happenings := []struct {
		name   string
		happen func() (ended bool)
	}{
		{"nothing", func() bool { return false }},
		{"kill -9", func() bool { f.Kill(); kills++; return true }},
		{"kill -9", func() bool { f.Kill(); kills++; return true }},
		{"SIGTERM", func() bool {
			if took := f.terminate(); took > 5*time.Second {
				t.Logf("exit took %s", took)
			}
			return true
		}},
		{"standstill", func() bool {
			f.cmd.Process.Signal(syscall.SIGSTOP)
			f.sleep(10*time.Millisecond, 3*time.Second)
			f.cmd.Process.Signal(syscall.SIGCONT)
			return false
		}},
	}

	ending := *tortureFor <= window
	f.run(false, func() {
		for time.Now().Before(end) {
			if time.Until(end) < window {
				f.modelRiver.mu.Lock()
				f.receivers = reachable
				if !ending { // an old webhook that comes again arms its failed callback
					f.modelRiver.answered = nil
				}
				f.modelRiver.mu.Unlock()
				ending = true
			}
			for _, r := range moody {
				if f.rng.IntN(3) == 0 {
					r.set(moods[f.rng.IntN(len(moods))])
				}
			}
			around := surroundings[f.rng.IntN(len(surroundings))]
			f.note("%s", around.name)
			finish := around.begin()
			f.sleep(10*time.Millisecond, 1500*time.Millisecond)
			what := happenings[f.rng.IntN(len(happenings))]
			f.note("%s in %s", what.name, around.name)
			ended := what.happen()
			f.sleep(10*time.Millisecond, 300*time.Millisecond)
			finish()
			if ended {
				f.Start()
			}
			if f.rng.IntN(4) == 0 && ended { // once more, before it has settled
				f.sleep(time.Millisecond, 50*time.Millisecond)
				f.Kill()
				kills++
				f.Start()
			}
			f.note("%s over", around.name)
			faults[around.name]++
			faults[what.name]++
			f.sleep(10*time.Millisecond, time.Second)
		}
		for _, r := range moody {
			r.set(accepts)
		}
		if *tortureFor <= shortTorture {
			f.Restart() // leases would take 40 s
		}
	})
	t.Logf("survived %d kills and these faults: %v", kills, faults)
}

// note logs an event of a long run with what the ledger knows then.
func (f *faultRun) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t.Logf("%s (%d webhooks, answers %v)", fmt.Sprintf(format, args...), f.last, f.statuses)
}

// sendJunk posts what nobody signed, over one connection, and returns how much.
func sendJunk(url string, stop <-chan struct{}) (sent int) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for {
		select {
		case <-stop:
			return sent
		default:
		}
		request, err := http.NewRequest(http.MethodPost, url+"/webhooks/modelriver", strings.NewReader(`{"type":"task.ai_generated","ai_response":{"data":{}}}`))
		if err != nil {
			panic(err)
		}
		request.Header.Set("mr-signature", strings.Repeat("0", 64))
		response, err := client.Do(request)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		sent++
	}
}

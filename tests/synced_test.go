package tests

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Acknowledged means on disk: between a webhook's last write to the database's log and
// its 200 the log is synced. A host that opens data.db as PocketBase does is the
// control: there it is not.
func TestAcknowledgedMeansSynced(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		start  func(dir string) *server
		file   string // the end of its path
		synced bool
	}{
		{"the binary", func(dir string) *server { return startServer(t, dir) }, "data.db-wal", true},
		{"a host with synchronous=NORMAL", func(dir string) *server {
			return startHost(t, dir, time.Minute, "TEST_DEFAULT_CONNECT=1")
		}, "data.db-wal", false},
		{"a node", func(dir string) *server { return startNode(t, dir) }, ".blk", true},
		{"a node's database, which its log makes up for", func(dir string) *server { return startNode(t, dir) }, "data.db-wal", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := row.start(newDataDir(t, t.TempDir()))
			m := newModelRiver(t, s.URL, rand.Uint64())
			trace := filepath.Join(t.TempDir(), "trace")
			stop := s.strace("-e", "trace=pwrite64,fdatasync,fsync,write", "-y", "-s", "400", "-o", trace)
			const n = 50
			accepted := 0
			await(t, "webhooks are accepted", func() bool { // one after the other, with no callback to write down
				switch status := m.post(m.newWebhook(kindNoCallback, "", 1000)); status {
				case http.StatusOK:
					accepted++
				case http.StatusServiceUnavailable: // the disk took longer than a node's log waits
				default:
					t.Fatalf("webhook: got %d", status)
				}
				return accepted == n
			})
			stop()
			answered, early := syncReport(t, trace, row.file)
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

// syncReport reads what strace saw and returns how many webhooks were answered 200, and
// how many of those before their commit was on disk, in a file whose path ends so.
func syncReport(t testing.TB, path, file string) (answered, early int) {
	t.Helper()
	trace, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var (
		written = 0 // calls that wrote to the file, begun
		synced  = 0 // of those, on disk
		last    = 0 // written when the last webhook was answered
		syncing = map[string]int{}
	)
	for line := range strings.Lines(string(trace)) {
		pid, call, _ := strings.Cut(line, " ")
		call = strings.TrimLeft(call, " ")
		switch {
		case strings.HasPrefix(call, "pwrite64(") && strings.Contains(call, file+">"):
			written++
		case strings.HasPrefix(call, "fdatasync(") || strings.HasPrefix(call, "fsync("):
			if !strings.Contains(call, file+">") {
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

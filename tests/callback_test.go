package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
)

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

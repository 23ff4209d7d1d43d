package tests

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
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

// A receiverRow is a kind of receiver, and what becomes of its callbacks.
type receiverRow struct {
	name      string
	behave    behaviour
	url       string // instead of a receiver
	state     string
	lastError string // a part of it

	sent []*sentWebhook
}

func receiverRows(m *modelRiver) []*receiverRow {
	trap := m.newReceiver(func(m *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) {
		m.violate("a redirect was followed: %s %s", r.Method, r.URL)
	})
	return []*receiverRow{
		{name: "hangs for ever", behave: hangs, state: "failed", lastError: "no answer"},
		{name: "trickles its answer", behave: trickles, state: "failed", lastError: "no answer"},
		{name: "resets every connection", behave: resets, state: "failed", lastError: "connection reset"},
		{name: "refuses connections", url: closedPort(m.t), state: "failed", lastError: "connection refused"},
		{name: "has no address", url: "https://callbacks.invalid", state: "failed", lastError: "callbacks.invalid"},
		{name: "500 for longer than the window", behave: answers(500), state: "failed", lastError: "answered 500"},
		{name: "redirects with 301", behave: redirects(301, trap.url), state: "failed", lastError: "answered 301"},
		{name: "redirects with 307", behave: redirects(307, trap.url), state: "failed", lastError: "answered 307"},
		{name: "refuses for good", behave: answers(410), state: "failed", lastError: "answered 410"},
		{name: "trickles the body of its answer", behave: tricklesBody, state: "delivered"},
		{name: "resets within the body", behave: resetsInBody, state: "delivered"},
		{name: "answers 200 with 100 MB", behave: answersHugely, state: "delivered"},
		{name: "429 with seconds", behave: retryAfter(false), state: "delivered"},
		{name: "429 with a date", behave: retryAfter(true), state: "delivered"},
		{name: "closes kept connections", behave: closesConnections, state: "delivered"},
	}
}

func testCallbackReceivers(t *testing.T, state string, window time.Duration) {
	dir := newDataDir(t, t.TempDir())
	s := startHost(t, dir, window, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1,callbacks.invalid")
	m := newModelRiver(t, s.URL, rand.Uint64())
	rows := slices.DeleteFunc(receiverRows(m), func(r *receiverRow) bool { return r.state != state })
	for _, row := range rows {
		if row.url == "" {
			row.url = m.newReceiver(row.behave).url
		}
	}
	good := m.newReceiver(accepts)
	for range 20 { // more than is sent to a host at a time
		for _, row := range rows {
			w := m.newWebhook(kindCallback, row.url, 100)
			row.sent = append(row.sent, w)
			m.mustPost(w)
		}
		// The good receiver is served at once, whatever the others do.
		w := m.newWebhook(kindCallback, good.url, 100)
		m.mustPost(w)
		m.awaitAccepted(w)
	}
	if rss := residentMemory(t, s); rss > 1<<30 {
		t.Errorf("memory: got %d MB", rss>>20)
	}

	settle(t, dir, 3*time.Minute)
	s.Stop()
	m.check(dir, false)
	db := openDatabase(t, dir)
	for _, row := range rows {
		for _, w := range row.sent {
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
	// 256 of the bodies may be held, 12 MB, beside the caches of both databases, and what payloads that
	// were to be kept have left until the next collection.
	await(t, "memory returns", func() bool { return residentMemory(t, s) < 300<<20 })
	t.Logf("%d MB of bodies wait, %d MB are resident", n*size>>20, residentMemory(t, s)>>20)

	w := m.newWebhook(kindCallback, good.url, 100)
	m.post(w)
	m.awaitAccepted(w)
	if slow.most > 2*16 { // 16 at a time, and those given up that the receiver has not noticed
		t.Errorf("callbacks to one host at a time: got %d, want at most 16", slow.most)
	}
	slow.set(accepts)
	s.Restart() // what hangs would take its 30 s
	settle(t, s.Dir, 3*time.Minute)
	s.Stop()
	m.check(s.Dir, false)
}

package tests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What becomes of a webhook that is answered 200.
const (
	kindCallback   = "callback"    // a record and a callback
	kindNoCallback = "no callback" // a record
	kindRefused    = "refused"     // by refusingHook: a failed callback row
	kindIgnored    = "ignored"     // nothing
)

// refusingHook is a host's own hook. It lies in pb_hooks beside the data directory.
const refusingHook = `onRecordCreate((e) => {
	if (e.record.get("category") == "refused") {
		throw new BadRequestError("Not wanted")
	}
	e.next()
}, "aiContent")`

// retrySchedule is ModelRiver's, 200 times as fast and without its two longest waits.
// What is not accepted then is a dead letter, which is sent again by hand.
var retrySchedule = []time.Duration{
	25 * time.Millisecond, 150 * time.Millisecond, 600 * time.Millisecond, 3 * time.Second, 9 * time.Second,
}

// A sentWebhook is one line of the ledger.
type sentWebhook struct {
	kind    string
	channel string
	data    string
	scheme  string
	payload []byte

	// Guarded by modelRiver.mu.
	sent      int // how often the POST was begun
	answered  int // how often with 200
	callbacks int // success callbacks that arrived
	accepted  int // those answered 2xx
	errors    int // error callbacks that arrived
	body      string
}

// A modelRiver takes ModelRiver's place: it sends webhooks, again until they are
// answered 200 and now and then once more, and receives callbacks. It keeps the ledger.
type modelRiver struct {
	t      testing.TB
	urls   []string // of the servers
	client *http.Client
	closed chan struct{}

	mu          sync.Mutex
	rng         *rand.Rand
	receivers   []*receiver // of the generated webhooks
	webhooks    map[string]*sentWebhook
	answered    []*sentWebhook
	deadLetters []*sentWebhook
	statuses    map[int]int // answers to webhooks; 0 is none
	violations  []string
	last        int

	accepted time.Time     // when a webhook was last answered 200
	silence  time.Duration // the longest time without one

	// A machine was lost: what it stored and called back for, but did not answer, is stored
	// again at another time when it comes again.
	machineLost bool
}

var savedAt = regexp.MustCompile(`"saved_at":"[^"]*"`)

func newModelRiver(t testing.TB, serverURL string, seed uint64) *modelRiver {
	m := &modelRiver{
		t: t, urls: []string{serverURL}, closed: make(chan struct{}),
		client: &http.Client{
			Timeout:   30 * time.Second, // ModelRiver's
			Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		},
		rng:      rand.New(rand.NewPCG(seed, 0)),
		webhooks: map[string]*sentWebhook{},
		statuses: map[int]int{},
		accepted: time.Now(),
	}
	t.Cleanup(func() {
		close(m.closed)
		m.client.CloseIdleConnections()
	})
	return m
}

// violate notes what may not happen: check fails the test with it.
func (m *modelRiver) violate(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(format, args...)
}

// note is violate for a caller that holds m.mu.
func (m *modelRiver) note(format string, args ...any) {
	m.violations = append(m.violations, fmt.Sprintf(format, args...))
}

// newWebhook enters a webhook in the ledger, to be sent.
func (m *modelRiver) newWebhook(kind, receiverURL string, size int) *sentWebhook {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	w := &sentWebhook{kind: kind, channel: fmt.Sprintf("channel-%d", m.last), scheme: "body"}
	w.data = fmt.Sprintf(`{"title":"Webhook %d","score":12345678901234567890, "text":%s}`, m.last, jsonText(strings.Repeat("ä<b>", size/5)))
	eventType, category, callback := "task.ai_generated", "general", ""
	switch kind {
	case kindRefused:
		category = "refused"
	case kindIgnored:
		eventType = "task.started"
	}
	if kind != kindNoCallback {
		callback = fmt.Sprintf(`,"callback_url":%q`, receiverURL+"/v1/callback/"+w.channel)
	}
	event := fmt.Sprintf(`{"type":%q,"event":"new_content","channel_id":%q,"ai_response":{"data":%s},"customer_data":{"category":%q}%s}`,
		eventType, w.channel, w.data, category, callback)
	switch m.rng.IntN(6) {
	case 0:
		w.scheme = "timestamped-body"
	case 1:
		w.scheme = "data"
		event = fmt.Sprintf(`{"channel_id":%q,"data":%s}`, w.channel, event)
	}
	w.payload = []byte(event)
	m.webhooks[w.channel] = w
	return w
}

// nextWebhook is newWebhook of a random kind, for a random receiver.
func (m *modelRiver) nextWebhook() *sentWebhook {
	m.mu.Lock()
	kind, size := kindCallback, 100
	switch n := m.rng.IntN(100); {
	case n < 6:
		kind = kindRefused
	case n < 12:
		kind = kindIgnored
	case n < 20:
		kind = kindNoCallback
	}
	switch n := m.rng.IntN(100); {
	case n < 1:
		size = 100_000 // more than the outbox keeps in memory
	case n < 5:
		size = 10_000
	}
	to := m.receivers[m.rng.IntN(len(m.receivers))].url
	m.mu.Unlock()
	return m.newWebhook(kind, to, size)
}

// post sends a webhook as a balancer does: to a server that may take it. It returns the status of the
// last answer, 0 if there is none.
func (m *modelRiver) post(w *sentWebhook) (status int) {
	m.mu.Lock()
	order := m.rng.Perm(len(m.urls))
	m.mu.Unlock()
	for _, i := range order {
		if status = m.postTo(m.urls[i], w); status != 0 && status != http.StatusServiceUnavailable {
			break
		}
	}
	return status
}

// postTo sends a webhook once to a server, and returns the status of the answer, 0 if there is none.
func (m *modelRiver) postTo(url string, w *sentWebhook) int {
	request, err := http.NewRequest(http.MethodPost, url+"/webhooks/modelriver", bytes.NewReader(w.payload))
	if err != nil {
		m.violate("%v", err)
		return 0
	}
	if err := modelriver.Sign(request.Header, w.scheme, testSecret, time.Now(), w.payload); err != nil {
		m.violate("%v", err)
		return 0
	}
	m.mu.Lock()
	w.sent++
	m.mu.Unlock()

	status := 0
	response, err := m.client.Do(request)
	if err == nil {
		status = response.StatusCode
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		switch {
		case status == http.StatusServiceUnavailable:
			if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err != nil || seconds < 1 {
				m.violate("503 with Retry-After %q", response.Header.Get("Retry-After"))
			}
		case status != http.StatusOK:
			m.violate("webhook answered %s: %s", response.Status, answer)
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	m.statuses[status]++
	if status == http.StatusOK {
		w.answered++
		m.answered = append(m.answered, w)
		m.silence, m.accepted = max(m.silence, time.Since(m.accepted)), time.Now()
	}
	return status
}

// mustPost sends a webhook that must be answered 200.
func (m *modelRiver) mustPost(w *sentWebhook) {
	m.t.Helper()
	if status := m.post(w); status != http.StatusOK {
		m.t.Fatalf("webhook: got %d, want 200", status)
	}
}

// awaitAccepted waits until a callback of the webhook is accepted.
func (m *modelRiver) awaitAccepted(w *sentWebhook) {
	m.t.Helper()
	await(m.t, "the callback of "+w.channel+" is accepted", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return w.accepted > 0
	})
}

// deliver sends a webhook as ModelRiver does.
func (m *modelRiver) deliver(ctx context.Context, w *sentWebhook) {
	for _, delay := range append(retrySchedule[:len(retrySchedule):len(retrySchedule)], 0) {
		if m.post(w) == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
			continue
		}
		break
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deadLetters = append(m.deadLetters, w)
}

// load sends webhooks over this many connections while during runs, then what was not
// accepted until it is.
func (m *modelRiver) load(connections int, pause time.Duration, during func()) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var senders sync.WaitGroup
	for range connections {
		senders.Go(func() {
			for ctx.Err() == nil {
				w := m.nextWebhook()
				m.mu.Lock()
				dice := m.rng.IntN(100)
				var old *sentWebhook
				if len(m.answered) > 0 {
					old = m.answered[m.rng.IntN(len(m.answered))]
				}
				m.mu.Unlock()
				if dice < 5 { // twice at the same time
					senders.Go(func() { m.post(w) })
				}
				m.deliver(ctx, w)
				if dice >= 95 && old != nil { // once more, though it was answered
					m.post(old)
				}
				time.Sleep(pause)
			}
		})
	}
	func() {
		defer func() { // a fault that fails the test ends the load too
			cancel()
			senders.Wait()
		}()
		during()
	}()

	for deadline := time.Now().Add(2 * time.Minute); len(m.deadLetters) > 0; {
		w := m.deadLetters[0]
		if m.post(w) == http.StatusOK {
			m.deadLetters = m.deadLetters[1:]
			continue
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%d webhooks are not accepted once the fault is over; answers: %v", len(m.deadLetters), m.statuses)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

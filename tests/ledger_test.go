package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

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
	url    string // of the server's webhooks
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
}

func newModelRiver(t testing.TB, serverURL string, seed uint64) *modelRiver {
	m := &modelRiver{
		t: t, url: serverURL + "/webhooks/modelriver", closed: make(chan struct{}),
		client: &http.Client{
			Timeout:   30 * time.Second, // ModelRiver's
			Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		},
		rng:      rand.New(rand.NewPCG(seed, 0)),
		webhooks: map[string]*sentWebhook{},
		statuses: map[int]int{},
	}
	t.Cleanup(func() {
		close(m.closed)
		m.client.CloseIdleConnections()
	})
	return m
}

func (m *modelRiver) violate(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.violations = append(m.violations, fmt.Sprintf(format, args...))
}

// A receiver is a host that gets callbacks.
type receiver struct {
	url string

	mu      sync.Mutex
	behave  behaviour
	changed context.CancelFunc // ends what the behaviour before left hanging
	until   context.Context
	open    int // requests being answered
	most    int
}

// A behaviour answers a callback. It calls accept before it writes a 2xx status.
type behaviour func(m *modelRiver, w http.ResponseWriter, r *http.Request, accept func())

func (r *receiver) set(b behaviour) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		r.changed()
	}
	r.behave = b
	r.until, r.changed = context.WithCancel(context.Background())
}

func (m *modelRiver) newReceiver(b behaviour) *receiver {
	rec := &receiver{}
	rec.set(b)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.mu.Lock()
		behave, until := rec.behave, rec.until
		rec.open++
		rec.most = max(rec.most, rec.open)
		rec.mu.Unlock()
		defer func() {
			rec.mu.Lock()
			rec.open--
			rec.mu.Unlock()
		}()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the server was killed while it sent
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(until, cancel)()
		behave(m, w, r.WithContext(ctx), m.receive(r, body))
	}))
	server.Config.ErrorLog = nil
	server.Start()
	rec.url = server.URL
	m.t.Cleanup(func() {
		rec.set(hangsUp)
		server.CloseClientConnections()
		server.Close()
	})
	return rec
}

// receive enters a callback in the ledger and returns what enters that it is accepted.
func (m *modelRiver) receive(r *http.Request, body []byte) (accept func()) {
	if got := r.Header.Get("Authorization"); got != "Bearer "+testKey {
		m.violate("callback with Authorization %q", got)
	}
	if got := r.Header.Get("Content-Type"); got != "application/json" || r.Method != http.MethodPost {
		m.violate("callback %s with Content-Type %q", r.Method, got)
	}
	channel := filepath.Base(r.URL.Path)
	var content struct {
		Data    map[string]json.RawMessage
		Error   string
		Message string
		TaskID  string `json:"task_id"`
	}
	if err := json.Unmarshal(body, &content); err != nil {
		m.violate("callback of %s: %v in %s", channel, err, body)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.webhooks[channel]
	switch {
	case w == nil || w.sent == 0:
		m.violations = append(m.violations, fmt.Sprintf("callback of %s, for which no webhook was sent", channel))
	case content.Error != "":
		w.errors++
	case w.kind != kindCallback:
		m.violations = append(m.violations, fmt.Sprintf("callback of %s, which is to have none: %s", channel, body))
	default:
		w.callbacks++
		if w.body == "" {
			w.body = string(body)
		}
		if w.body != string(body) {
			m.violations = append(m.violations, fmt.Sprintf("callbacks of %s differ:\n%s\n%s", channel, w.body, body))
		}
		return func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			w.accepted++
		}
	}
	return func() {}
}

// Behaviours of receivers.
func accepts(_ *modelRiver, w http.ResponseWriter, _ *http.Request, accept func()) {
	accept()
	io.WriteString(w, `{"success":true}`)
}

func answers(status int) behaviour {
	return func(_ *modelRiver, w http.ResponseWriter, _ *http.Request, accept func()) {
		if status <= 299 {
			accept()
		}
		w.WriteHeader(status)
	}
}

func redirects(status int, to string) behaviour {
	return func(_ *modelRiver, w http.ResponseWriter, r *http.Request, _ func()) {
		http.Redirect(w, r, to+r.URL.Path, status)
	}
}

// retryAfter refuses each callback once, in seconds or with a date.
func retryAfter(date bool) behaviour {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(m *modelRiver, w http.ResponseWriter, r *http.Request, accept func()) {
		mu.Lock()
		again := seen[r.URL.Path]
		seen[r.URL.Path] = true
		mu.Unlock()
		if again {
			accepts(m, w, r, accept)
			return
		}
		value := "2"
		if date {
			value = time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat)
		}
		w.Header().Set("Retry-After", value)
		w.WriteHeader(http.StatusTooManyRequests)
	}
}

func hangs(_ *modelRiver, _ http.ResponseWriter, r *http.Request, _ func()) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler) // returning would answer
}

func hangsUp(*modelRiver, http.ResponseWriter, *http.Request, func()) { panic(http.ErrAbortHandler) }

func trickles(m *modelRiver, w http.ResponseWriter, _ *http.Request, accept func()) {
	trickle(m, w, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"success\":true}", 1)
}

func tricklesBody(m *modelRiver, w http.ResponseWriter, _ *http.Request, accept func()) {
	accept()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	trickle(m, w, head+strings.Repeat(" ", 100), len(head))
}

// trickle writes the first bytes at once and the others one a second.
func trickle(m *modelRiver, w http.ResponseWriter, answer string, first int) {
	conn := hijack(w)
	defer conn.Close()
	for i := first; ; i++ {
		part := answer[:first]
		if i > first {
			part = answer[i-1 : i]
		}
		if _, err := io.WriteString(conn, part); err != nil || i == len(answer) {
			return
		}
		select {
		case <-m.closed:
			return
		case <-time.After(time.Second):
		}
	}
}

func resets(_ *modelRiver, w http.ResponseWriter, _ *http.Request, _ func()) {
	conn := hijack(w)
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func resetsInBody(_ *modelRiver, w http.ResponseWriter, _ *http.Request, accept func()) {
	accept()
	conn := hijack(w)
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"success\"")
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func answersHugely(_ *modelRiver, w http.ResponseWriter, _ *http.Request, accept func()) {
	accept()
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range 100 {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// closesConnections accepts, and ends the connection that the next callback would use.
func closesConnections(m *modelRiver, w http.ResponseWriter, r *http.Request, accept func()) {
	accept()
	if rand.IntN(2) == 0 {
		io.WriteString(w, `{"success":true}`)
		return
	}
	conn := hijack(w)
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") // keep-alive, it says
	conn.Close()
}

func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	return conn
}

// closedPort returns the URL of a port that refuses connections.
func closedPort(t testing.TB) string { return "http://" + freeAddress(t) }

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

// post sends a webhook once and returns the status of the answer, 0 if there is none.
func (m *modelRiver) post(w *sentWebhook) int {
	request, err := http.NewRequest(http.MethodPost, m.url, bytes.NewReader(w.payload))
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
	}
	return status
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

// openDatabase opens the data of a server for reading, which may be running.
func openDatabase(t testing.TB, dir string) *dbx.DB {
	t.Helper()
	db, err := core.DefaultDBConnect(filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// settle waits until no callback is pending.
func settle(t testing.TB, dir string, within time.Duration) {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	var pending int
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		err := db.NewQuery("SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'pending'").Row(&pending)
		if err == nil && pending == 0 {
			return
		}
		if time.Now().After(deadline) {
			var some []callbackRow
			_ = db.Select().From("modelriverCallbacks").Where(dbx.HashExp{"state": "pending"}).Limit(3).All(&some)
			t.Fatalf("%d callbacks are pending after %s: %v, such as %+v", pending, within, err, some)
		}
	}
}

type contentRow struct {
	Id      string `db:"id"`
	Channel string `db:"channelId"`
	Title   string `db:"title"`
	Data    string `db:"data"`
	Source  string `db:"source"`
}

type callbackRow struct {
	Id        string `db:"id"`
	Record    string `db:"record"`
	URL       string `db:"url"`
	State     string `db:"state"`
	LastError string `db:"lastError"`
	Payload   string `db:"payload"`
	Attempts  int    `db:"attempts"`
}

// check balances the ledger against the data of the server, once nothing is pending:
// every webhook answered 200 has exactly one record and at least one accepted callback
// or one failed row; nothing else exists. With once, no callback came twice.
func (m *modelRiver) check(dir string, once bool) {
	t := m.t
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	var integrity string
	if err := db.NewQuery("PRAGMA integrity_check").Row(&integrity); err != nil || integrity != "ok" {
		t.Fatalf("integrity_check: %q, %v", integrity, err)
	}
	var contents []contentRow
	var callbacks []callbackRow
	if err := errors.Join(db.Select().From("aiContent").All(&contents), db.Select().From("modelriverCallbacks").All(&callbacks)); err != nil {
		t.Fatal(err)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	bad := func(format string, args ...any) { m.violations = append(m.violations, fmt.Sprintf(format, args...)) }

	contentOf := map[string]contentRow{}
	for _, row := range contents {
		if _, twice := contentOf[row.Channel]; twice {
			bad("%s: two records", row.Channel)
		}
		contentOf[row.Channel] = row
		if w := m.webhooks[row.Channel]; w == nil || w.sent == 0 {
			bad("record %s of %q, for which no webhook was sent", row.Id, row.Channel)
		}
	}
	callbackOf := map[string]callbackRow{}
	for _, row := range callbacks {
		channel := filepath.Base(row.URL)
		if _, twice := callbackOf[channel]; twice {
			bad("%s: two callback rows", channel)
		}
		callbackOf[channel] = row
		if w := m.webhooks[channel]; w == nil || w.sent == 0 {
			bad("callback row %s of %q, for which no webhook was sent", row.Id, channel)
		}
	}

	for channel, w := range m.webhooks {
		content, hasContent := contentOf[channel]
		callback, hasCallback := callbackOf[channel]
		if w.kind == kindRefused || w.kind == kindIgnored {
			if hasContent {
				bad("%s: %s, but there is a record", channel, w.kind)
			}
		} else {
			if !hasContent && (w.answered > 0 || hasCallback || w.callbacks > 0) {
				bad("%s: answered 200 %d times and called back %d times, but there is no record", channel, w.answered, w.callbacks)
			}
			if hasContent && (content.Data != w.data || content.Source != "modelriver" || !strings.HasPrefix(content.Title, "Webhook ")) {
				bad("%s: stored %+v, sent %s", channel, content, w.data)
			}
		}

		if w.kind == kindNoCallback || w.kind == kindIgnored {
			if hasCallback {
				bad("%s: %s, but there is a callback row", channel, w.kind)
			}
			continue
		}
		if !hasCallback {
			if w.answered > 0 || hasContent {
				bad("%s: stored, but there is no callback row", channel)
			}
			continue
		}
		switch {
		case callback.State == "pending":
			bad("%s: pending", channel)
		case callback.State == "failed" && callback.LastError == "":
			bad("%s: failed without a reason", channel)
		case w.kind == kindRefused && (callback.State != "failed" || callback.Payload == ""):
			bad("%s: refused, but the row is %+v", channel, callback)
		case w.kind == kindCallback && (callback.Id != content.Id || callback.Record != content.Id):
			bad("%s: the callback row %+v is of another record than %s", channel, callback, content.Id)
		case callback.State == "delivered" && w.accepted == 0:
			bad("%s: delivered, but no callback was accepted", channel)
		case w.body != "" && !strings.Contains(w.body, `"task_id":"pocketbase_`+content.Id+`"`):
			bad("%s: called back for another record than %s: %s", channel, content.Id, w.body)
		case once && w.accepted > 1:
			bad("%s: %d callbacks were accepted, want one", channel, w.accepted)
		}
	}
	for i, violation := range m.violations {
		if i == 20 {
			t.Errorf("and %d more", len(m.violations)-i)
			break
		}
		t.Error(violation)
	}
	if len(m.webhooks) == 0 || m.statuses[http.StatusOK] == 0 {
		t.Errorf("nothing was stored; answers: %v", m.statuses)
	}
}

// summary is what a run did, in one line.
func (m *modelRiver) summary() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	callbacks, accepted, errors := 0, 0, 0
	for _, w := range m.webhooks {
		callbacks += w.callbacks
		accepted += w.accepted
		errors += w.errors
	}
	return fmt.Sprintf("%d webhooks, answers %v (0: none), %d callbacks of which %d accepted, %d error callbacks",
		len(m.webhooks), m.statuses, callbacks, accepted, errors)
}

func jsonText(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return string(raw)
}

package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

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
		m.note("callback of %s, for which no webhook was sent", channel)
	case content.Error != "":
		w.errors++
	case w.kind != kindCallback:
		m.note("callback of %s, which is to have none: %s", channel, body)
	default:
		w.callbacks++
		if w.body == "" {
			w.body = string(body)
		}
		if w.body != string(body) && (!m.machineLost || savedAt.ReplaceAllString(w.body, "") != savedAt.ReplaceAllString(string(body), "")) {
			m.note("callbacks of %s differ:\n%s\n%s", channel, w.body, body)
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

// answersEmpty is for tests that keep no ledger.
func answersEmpty(_ *modelRiver, w http.ResponseWriter, _ *http.Request, _ func()) {
	io.WriteString(w, `{}`)
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

package tests

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
)

// Unsigned webhooks as fast as they come keep no signed one out and leave nothing.
func TestJunkFlood(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	logs, err := dbx.Open("sqlite", filepath.Join(s.Dir, "auxiliary.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	m := newModelRiver(t, s.URL, rand.Uint64())
	good := m.newReceiver(accepts)
	m.mustPost(m.newWebhook(kindCallback, good.url, 100))
	settle(t, s.Dir, time.Minute)
	before := residentMemory(t, s)

	stop := make(chan struct{})
	var answered atomic.Int64
	var flood sync.WaitGroup
	for range 32 {
		flood.Go(func() { pipelineJunk(t, s, stop, &answered) })
	}
	started := time.Now()
	signed := 0
	for time.Since(started) < 3*time.Second || answered.Load() < 10_000 {
		if status := m.post(m.newWebhook(kindCallback, good.url, 100)); status != 200 {
			t.Errorf("a signed webhook during the flood: got %d, want 200", status)
		}
		signed++
	}
	took := time.Since(started)
	close(stop)
	flood.Wait()
	t.Logf("%.0f junk requests a second for %s; %d signed webhooks got through meanwhile; memory before %d MB, after %d MB",
		float64(answered.Load())/took.Seconds(), took.Round(time.Millisecond), signed, before>>20, residentMemory(t, s)>>20)
	await(t, "memory returns", func() bool { return residentMemory(t, s) < before+100<<20 })
	settle(t, s.Dir, time.Minute)
	s.Stop() // writes the last logs
	if got := countRows(t, logs, "_logs"); got > 20+int(took/time.Minute) {
		t.Errorf("log rows after %d junk requests: got %d", answered.Load(), got)
	}
	m.check(s.Dir, true)
}

// pipelineJunk sends what nobody signed on a raw connection, so that the flood costs this
// side little, and counts the answers.
func pipelineJunk(t *testing.T, s *server, stop <-chan struct{}, answered *atomic.Int64) {
	const atOnce = 50
	junk := strings.Repeat("POST /webhooks/modelriver HTTP/1.1\r\nHost: x\r\nmr-signature: "+strings.Repeat("0", 64)+"\r\nContent-Length: 56\r\n\r\n"+
		`{"type":"task.ai_generated","ai_response":{"data":{}}}  `, atOnce)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for {
		select {
		case <-stop:
			return
		default:
		}
		if _, err := io.WriteString(conn, junk); err != nil {
			t.Error(err)
			return
		}
		for range atOnce {
			response, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, response.Body)
			if response.StatusCode != 401 {
				t.Errorf("junk: got %s, want 401", response.Status)
			}
			answered.Add(1)
		}
	}
}

// Connections that send a header or a body slowly, or never, take little and keep no
// signed webhook out.
func TestSlowConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	m := newModelRiver(t, s.URL, rand.Uint64())
	good := m.newReceiver(accepts)
	before := residentMemory(t, s)
	var closed atomic.Int32
	const each = 300
	for i := range 2 * each {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		head := "POST /webhooks/modelriver HTTP/1.1\r\nHost: x\r\nX-Slow: "
		if i%2 == 0 { // the whole header, and the first byte of a body that is announced as large
			head += "1\r\nContent-Length: 5000000\r\n\r\n{"
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			go func() {
				io.Copy(io.Discard, conn) // until the server gives up
				closed.Add(1)
			}()
		}
	}
	for range 50 {
		if status := m.post(m.newWebhook(kindCallback, good.url, 100)); status != 200 {
			t.Errorf("a signed webhook beside slow connections: got %d, want 200", status)
		}
	}
	if got := residentMemory(t, s); got > before+100<<20 {
		t.Errorf("memory: got %d MB, before %d MB", got>>20, before>>20)
	}
	await(t, "slow bodies are given up", func() bool { return closed.Load() == each })
	settle(t, s.Dir, time.Minute)
	s.Stop()
	m.check(s.Dir, true)
}

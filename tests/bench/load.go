//go:build linux

package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A loadConfig says what the load generator sends. It builds and signs all requests
// before it reports ready.
type loadConfig struct {
	Addr     string
	Also     []string // other servers, which get as many of the connections
	Kind     string
	Callback string
	Token    string // of the user who sends; empty for a guest
	Conns    int
	First    int  // the first sequence number
	Count    int  // of requests that are built: a phase ends early when they are used up
	Reuse    bool // begin again instead, for a server that stores nothing
	Retry    bool // send again what a server that ends did not answer
}

// A loadPhase sends for a while: on every connection one request after the other, or
// at a fixed rate, whatever the answers do, if Rate is set.
type loadPhase struct {
	Duration time.Duration
	Rate     float64 // requests per second
}

// A loadResult holds, for each request in the order of its start, its sequence number
// and when it was sent and answered, in Unix nanoseconds. At a fixed rate, sent is when
// it was due: time spent waiting for a connection counts.
type loadResult struct {
	Seqs       []int
	Sent, Done []int64
	Failure    string // the first answer that is not a success
	CPU        time.Duration
}

type answered struct {
	seq        int
	sent, done int64
}

func (r *loadResult) took() time.Duration {
	if len(r.Done) == 0 {
		return 0
	}
	return time.Duration(slices.Max(r.Done) - slices.Min(r.Sent))
}

func (r *loadResult) latencies() []time.Duration {
	all := make([]time.Duration, len(r.Sent))
	for i := range r.Sent {
		all[i] = time.Duration(r.Done[i] - r.Sent[i])
	}
	return all
}

type loader struct {
	config   loadConfig
	requests []byte // all of one size
	size     int
	next     atomic.Int64
	conns    []*loadConn
	failed   atomic.Pointer[string]
}

type loadConn struct {
	net.Conn
	buffer []byte
}

// runLoad is the load generator: a process of its own, on one core at most, so that
// what it costs is known and small.
func runLoad() error {
	runtime.GOMAXPROCS(1)
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	l := &loader{}
	if err := dec.Decode(&l.config); err != nil {
		return err
	}
	for i := range l.config.Count {
		r := request(l.config.Kind, l.config.Addr, l.config.Callback, l.config.Token, l.config.First+i)
		if l.size == 0 {
			l.size = len(r)
			l.requests = make([]byte, 0, l.size*l.config.Count)
		}
		if len(r) != l.size {
			return errors.New("requests differ in size")
		}
		l.requests = append(l.requests, r...)
	}
	servers := append([]string{l.config.Addr}, l.config.Also...)
	for i := range l.config.Conns {
		conn, err := net.Dial("tcp", servers[i%len(servers)])
		if err != nil {
			return err
		}
		l.conns = append(l.conns, &loadConn{conn, make([]byte, 16<<10)})
	}
	if err := enc.Encode(true); err != nil {
		return err
	}
	for {
		var phase loadPhase
		if err := dec.Decode(&phase); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := enc.Encode(l.run(phase)); err != nil {
			return err
		}
	}
}

func (l *loader) run(phase loadPhase) loadResult {
	before := ownCPU()
	end := time.Now().Add(phase.Duration)
	var due chan time.Time
	if phase.Rate > 0 {
		due = make(chan time.Time, 1<<16)
		go func() {
			defer close(due)
			begin := time.Now()
			for i := 0; ; i++ {
				at := begin.Add(time.Duration(float64(i) / phase.Rate * float64(time.Second)))
				if at.After(end) {
					return
				}
				time.Sleep(time.Until(at))
				due <- at
			}
		}()
	}

	results := make([][]answered, len(l.conns))
	var wait sync.WaitGroup
	for i, conn := range l.conns {
		conn.SetDeadline(end.Add(2 * time.Minute))
		wait.Go(func() { results[i] = l.send(conn, end, due) })
	}
	wait.Wait()

	all := slices.Concat(results...)
	slices.SortFunc(all, func(a, b answered) int { return int(a.sent - b.sent) })
	result := loadResult{CPU: ownCPU() - before}
	for _, a := range all {
		result.Seqs = append(result.Seqs, a.seq)
		result.Sent = append(result.Sent, a.sent)
		result.Done = append(result.Done, a.done)
	}
	if failure := l.failed.Load(); failure != nil {
		result.Failure = *failure
	}
	return result
}

func (l *loader) send(conn *loadConn, end time.Time, due chan time.Time) []answered {
	results := make([]answered, 0, 1024)
	for l.failed.Load() == nil {
		sent := time.Now()
		if due != nil {
			at, ok := <-due
			if !ok {
				break
			}
			sent = at
		} else if !sent.Before(end) {
			break
		}
		i := int(l.next.Add(1) - 1)
		if i >= l.config.Count {
			if !l.config.Reuse {
				break
			}
			i %= l.config.Count
		}
		raw := l.requests[i*l.size : (i+1)*l.size]
		err := conn.exchange(raw)
		for limit := end.Add(time.Minute); err != nil && l.config.Retry && time.Now().Before(limit); {
			if err = conn.again(l.config.Addr, limit); err == nil {
				err = conn.exchange(raw)
			}
		}
		if err != nil {
			text := err.Error()
			l.failed.CompareAndSwap(nil, &text)
			break
		}
		results = append(results, answered{l.config.First + i, sent.UnixNano(), time.Now().UnixNano()})
	}
	return results
}

// exchange sends a request and reads its answer to the end. Any but a 200 is an error.
func (c *loadConn) exchange(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	n, need := 0, -1
	for need < 0 || n < need {
		if n == len(c.buffer) {
			return errors.New("an answer is larger than expected")
		}
		read, err := c.Read(c.buffer[n:])
		if err != nil {
			return err
		}
		n += read
		if need < 0 {
			need = messageLength(c.buffer[:n])
		}
		if need == 0 {
			return errors.New("an answer has no Content-Length")
		}
	}
	if !bytes.HasPrefix(c.buffer, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the server answered: %s", c.buffer[:min(n, 800)])
	}
	return nil
}

// again connects once more, and waits a moment if nobody listens.
func (c *loadConn) again(addr string, deadline time.Time) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return err
	}
	c.Close()
	c.Conn = conn
	return conn.SetDeadline(deadline)
}

// messageLength returns the length of the HTTP message that begins b, or -1 while its
// header is not complete, or 0 if that does not say.
func messageLength(b []byte) int {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return -1
	}
	const name = "\r\nContent-Length: "
	at := bytes.Index(b[:head], []byte(name))
	if at < 0 {
		return 0
	}
	value := b[at+len(name) : head+2]
	length, _ := strconv.Atoi(string(value[:bytes.IndexByte(value, '\r')]))
	return head + 4 + length
}

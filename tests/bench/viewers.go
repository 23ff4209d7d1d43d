//go:build linux

package main

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A viewersConfig says who subscribes to every record of aiContent. The process
// reports ready when all have.
type viewersConfig struct {
	Addr   string
	Count  int
	Tokens []string // of the users, one for each viewer; guests without
	First  int      // the first sequence number that comes, and how many at most
	Limit  int
}

// A viewersFinish ends the watching: when every viewer has so many events, or when
// none has come for some seconds.
type viewersFinish struct{ Expect int }

// A viewersResult holds the events of each viewer in the order in which they came.
type viewersResult struct {
	Viewers []viewed
	Bad     string // the first event that is not as it should be
	CPU     time.Duration
}

type viewed struct {
	Seqs     []int32
	At       []int64 // Unix nanoseconds
	Repeated int     // events of a record that it has already
	Cut      int     // how often the server closed the connection
	Newest   int     // after a cut: the newest record when the list was read again, or -1
}

const (
	quietTime = 5 * time.Second // without any event, nothing more is expected
	maxFinish = 3 * time.Minute
)

// A viewer is one subscribed connection. It belongs to the reading thread, and to a
// goroutine while that connects it again.
type viewer struct {
	viewed
	fd    int
	token string
	seen  []uint64 // bits

	// What the HTTP chunk and the SSE message under way have brought so far.
	left, skip int
	line       []byte
	message    []byte
	clientId   string
	checked    bool // one event was checked to be whole JSON
}

type watcher struct {
	config   viewersConfig
	client   *http.Client
	epoll    int
	byFd     sync.Map // int -> *viewer
	all      []*viewer
	got      int // different records, of all viewers together
	lastCame time.Time
	finish   atomic.Pointer[viewersFinish]
	mu       sync.Mutex
	bad      string
}

// runViewers is the subscribers: thousands of connections that one thread reads, so
// that they cost little beside the server that is measured.
func runViewers() error {
	runtime.GOMAXPROCS(2) // connecting again must not hold up the reading
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	w := &watcher{}
	if err := dec.Decode(&w.config); err != nil {
		return err
	}
	var err error
	if w.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return err
	}
	w.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: connecting}}
	if err := w.connectAll(); err != nil {
		return err
	}
	cpu := ownCPU()
	done := make(chan error, 1)
	go func() { done <- w.watch() }()
	if err := enc.Encode(true); err != nil {
		return err
	}

	var finish viewersFinish
	if err := dec.Decode(&finish); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	w.finish.Store(&finish)
	if err := <-done; err != nil {
		return err
	}
	w.mu.Lock() // against those that connect again
	defer w.mu.Unlock()
	result := viewersResult{CPU: ownCPU() - cpu, Bad: w.bad}
	for _, v := range w.all {
		result.Viewers = append(result.Viewers, v.viewed)
	}
	return enc.Encode(result)
}

const connecting = 16 // viewers at the same time

func (w *watcher) connectAll() error {
	for i := range w.config.Count {
		v := &viewer{seen: make([]uint64, (w.config.Limit+63)/64)}
		v.Newest = -1
		if len(w.config.Tokens) > 0 {
			v.token = w.config.Tokens[i%len(w.config.Tokens)]
		}
		w.all = append(w.all, v)
	}
	errs := make(chan error, connecting)
	var next atomic.Int64
	for range connecting {
		go func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= len(w.all) {
					errs <- nil
					return
				}
				if err := w.connect(w.all[i]); err != nil {
					errs <- fmt.Errorf("viewer %d: %w", i, err)
					return
				}
			}
		}()
	}
	var first error
	for range connecting {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// connect opens the viewer's stream, subscribes, and gives it to the reading thread.
func (w *watcher) connect(v *viewer) error {
	addr, err := net.ResolveTCPAddr("tcp4", w.config.Addr)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ok := false
	defer func() {
		if !ok {
			syscall.Close(fd)
		}
	}()
	limit := syscall.NsecToTimeval(int64(time.Minute))
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	target := &syscall.SockaddrInet4{Port: addr.Port}
	copy(target.Addr[:], addr.IP.To4())
	if err := syscall.Connect(fd, target); err != nil {
		return err
	}
	if _, err := syscall.Write(fd, []byte("GET /api/realtime HTTP/1.1\r\nHost: "+w.config.Addr+"\r\nAccept: text/event-stream\r\n\r\n")); err != nil {
		return err
	}

	// The header, then the stream up to the message that tells the client's id.
	v.fd, v.left, v.skip, v.clientId = fd, 0, 0, ""
	v.line, v.message = v.line[:0], v.message[:0]
	buffer := make([]byte, 4096)
	var head []byte
	for v.clientId == "" {
		n, err := syscall.Read(fd, buffer)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("no stream: %w", errors.Join(err, io.EOF))
		}
		if head == nil || !bytes.Contains(head, []byte("\r\n\r\n")) {
			head = append(head, buffer[:n]...)
			at := bytes.Index(head, []byte("\r\n\r\n"))
			if at < 0 {
				continue
			}
			if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(head[:at], []byte("Transfer-Encoding: chunked")) {
				return fmt.Errorf("the server answered: %s", head)
			}
			if err := w.feed(v, head[at+4:]); err != nil {
				return err
			}
			continue
		}
		if err := w.feed(v, buffer[:n]); err != nil {
			return err
		}
	}

	request, err := http.NewRequest(http.MethodPost, "http://"+w.config.Addr+"/api/realtime",
		strings.NewReader(`{"clientId":"`+v.clientId+`","subscriptions":["aiContent/*"]}`))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if _, err := w.do(v, request, http.StatusNoContent); err != nil {
		return err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return err
	}
	w.byFd.Store(fd, v)
	ok = true
	return syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)})
}

func (w *watcher) do(v *viewer, request *http.Request, status int) ([]byte, error) {
	if v.token != "" {
		request.Header.Set("Authorization", v.token)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("%s %s was answered %s: %s", request.Method, request.URL.Path, response.Status, body)
	}
	return body, err
}

// reconnect is what a page does that was cut off: it connects, subscribes and reads
// the list again.
func (w *watcher) reconnect(v *viewer) {
	err := w.connect(v)
	if err == nil {
		var request *http.Request
		request, err = http.NewRequest(http.MethodGet, "http://"+w.config.Addr+"/api/collections/aiContent/records?perPage=20&sort=-@rowid&skipTotal=1", nil)
		if err == nil {
			var body []byte
			if body, err = w.do(v, request, http.StatusOK); err == nil {
				var list struct {
					Items []struct{ ChannelId string }
				}
				if err = json.Unmarshal(body, &list); err == nil && len(list.Items) > 0 {
					if seq, ok := sequence(list.Items[0].ChannelId); ok {
						w.mu.Lock()
						v.Newest = seq
						w.mu.Unlock()
					}
				}
			}
		}
	}
	if err != nil {
		w.note("connecting again: " + err.Error())
	}
}

func (w *watcher) note(bad string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bad == "" {
		w.bad = bad
	}
}

// watch reads all viewers until the finish.
func (w *watcher) watch() error {
	runtime.LockOSThread()
	events := make([]syscall.EpollEvent, 512)
	buffer := make([]byte, 64<<10)
	var deadline time.Time
	for {
		n, err := syscall.EpollWait(w.epoll, events, 50)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			found, ok := w.byFd.Load(fd)
			if !ok {
				continue
			}
			v := found.(*viewer)
			read, err := syscall.Read(fd, buffer)
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
				continue
			}
			if err == nil && read > 0 {
				err = w.feed(v, buffer[:read])
			} else if err == nil {
				err = io.EOF
			}
			if err != nil { // cut
				w.byFd.Delete(fd)
				syscall.Close(fd) // which also takes it off the epoll
				v.Cut++
				go w.reconnect(v)
			}
		}

		if finish := w.finish.Load(); finish != nil {
			now := time.Now()
			if deadline.IsZero() {
				deadline = now.Add(maxFinish)
				if w.lastCame.IsZero() {
					w.lastCame = now
				}
			}
			quiet := now.Sub(w.lastCame)
			all := w.got >= finish.Expect*len(w.all)
			// A moment more for events that come twice.
			if all && quiet > 100*time.Millisecond || quiet > quietTime || now.After(deadline) {
				return nil
			}
		}
	}
}

// feed takes what came over the viewer's connection: chunks of an HTTP body, however
// they are split.
func (w *watcher) feed(v *viewer, b []byte) error {
	for len(b) > 0 {
		switch {
		case v.left > 0:
			n := min(v.left, len(b))
			v.message = append(v.message, b[:n]...)
			v.left -= n
			b = b[n:]
			if v.left == 0 {
				v.skip = len("\r\n")
			}
			w.messages(v)
		case v.skip > 0:
			n := min(v.skip, len(b))
			v.skip -= n
			b = b[n:]
		default:
			end := bytes.IndexByte(b, '\n')
			if end < 0 {
				v.line = append(v.line, b...)
				return nil
			}
			v.line = append(v.line, b[:end]...)
			b = b[end+1:]
			size, err := strconv.ParseInt(string(bytes.TrimSpace(v.line)), 16, 32)
			v.line = v.line[:0]
			if err != nil {
				return err
			}
			if size == 0 {
				return io.EOF
			}
			v.left = int(size)
		}
	}
	return nil
}

// messages takes the whole SSE messages off what came.
func (w *watcher) messages(v *viewer) {
	rest := v.message
	for {
		end := bytes.Index(rest, []byte("\n\n"))
		if end < 0 {
			break
		}
		w.take(v, rest[:end])
		rest = rest[end+2:]
	}
	v.message = v.message[:copy(v.message, rest)]
}

var (
	connectEvent  = []byte("event:PB_CONNECT\n")
	contentEvent  = []byte("event:aiContent/*\n")
	dataStart     = []byte("data:")
	channelStart  = []byte(`"channelId":"`)
	createdAction = []byte(`"action":"create"`)
)

func (w *watcher) take(v *viewer, message []byte) {
	at := bytes.Index(message, dataStart)
	if at < 0 {
		if len(message) > 0 && message[0] != ':' { // not a comment, which keeps alive
			w.note(fmt.Sprintf("a message without data: %q", message))
		}
		return
	}
	head, data := message[:at], message[at+len(dataStart):]
	if bytes.Contains(head, connectEvent) {
		var connect struct{ ClientId string }
		json.Unmarshal(data, &connect)
		v.clientId = connect.ClientId
		return
	}
	from := bytes.Index(data, channelStart) + len(channelStart)
	if !bytes.Contains(head, contentEvent) || from < len(channelStart) || from+channelLength > len(data) ||
		!bytes.Contains(data, createdAction) || data[len(data)-1] != '}' {
		w.note(fmt.Sprintf("an unexpected message: %q", message))
		return
	}
	if !v.checked {
		v.checked = true
		if !json.Valid(data) {
			w.note(fmt.Sprintf("a message that is no JSON: %q", message))
		}
	}
	seq, ok := sequence(string(data[from : from+channelLength]))
	i := seq - w.config.First
	if !ok || i < 0 || i >= w.config.Limit {
		w.note(fmt.Sprintf("a record that was not sent: %q", message))
		return
	}
	now := time.Now()
	w.lastCame = now
	v.Seqs = append(v.Seqs, int32(seq))
	v.At = append(v.At, now.UnixNano())
	if v.seen[i/64]&(1<<(i%64)) != 0 {
		v.Repeated++
		return
	}
	v.seen[i/64] |= 1 << (i % 64)
	w.got++
}

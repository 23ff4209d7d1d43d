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
	fd, err := dial(addr)
	if err != nil {
		return err
	}
	ok := false
	defer func() {
		if !ok {
			syscall.Close(fd)
		}
	}()
	if _, err := syscall.Write(fd, []byte("GET /api/realtime HTTP/1.1\r\nHost: "+w.config.Addr+"\r\nAccept: text/event-stream\r\n\r\n")); err != nil {
		return err
	}
	if err := w.readConnect(v, fd); err != nil {
		return err
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

// dial opens a connection whose reads end after a minute.
func dial(addr *net.TCPAddr) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	limit := syscall.NsecToTimeval(int64(time.Minute))
	syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	target := &syscall.SockaddrInet4{Port: addr.Port}
	copy(target.Addr[:], addr.IP.To4())
	if err := syscall.Connect(fd, target); err != nil {
		syscall.Close(fd)
		return 0, err
	}
	return fd, nil
}

// readConnect reads the header, then the stream up to the message that tells the client's
// id.
func (w *watcher) readConnect(v *viewer, fd int) error {
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
	return nil
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

var (
	connectEvent  = []byte("event:PB_CONNECT\n")
	contentEvent  = []byte("event:aiContent/*\n")
	dataStart     = []byte("data:")
	channelStart  = []byte(`"channelId":"`)
	createdAction = []byte(`"action":"create"`)
)

//go:build linux

package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
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
	Own    bool     // each asks for a channel of its own only
	Filter string   // or all for the same rows
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

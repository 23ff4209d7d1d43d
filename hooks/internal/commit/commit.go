// Package commit runs writes in transactions, those that wait at the same time together in
// one: they share its fsync, which costs more than all else about a small write.
package commit

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// Bounds of a [Committer]. A batch is what happens to wait while the one before it is
// written, so a lone write never waits for company.
const (
	MaxBatch     = 256
	MaxBatchSize = 8 << 20                // bytes of its writes, or one write
	MaxBatchTime = 100 * time.Millisecond // of its hooks, before those that are left wait for the next
	YieldTime    = time.Millisecond       // instead, while somebody waits who goes first
	MaxOpen      = 4                      // batches that are written, or whose after-success hooks run
	MaxWaiting   = 4096
	MaxWait      = 20 * time.Second // ModelRiver gives up on a webhook after 30
)

// ErrBusy is returned for a write that the database did not take in time.
var ErrBusy = errors.New("the database is busy")

// A Committer writes to the database of one app.
type Committer struct {
	// Committed and Settled hear of the records of Collection that each batch inserted, when
	// they are committed, in the order of the commits and before PocketBase's after-success
	// hooks, and when those have run.
	Committed, Settled func(records []*core.Record)

	// OwnHooks returns how many hooks run around a save, as [SaveHooks] counts them, if the
	// app has none but the plugin's and PocketBase's.
	OwnHooks func() int

	// Yields reports whether another committer's writes wait that go first.
	Yields func() bool

	app        core.App
	collection string

	mu      sync.Mutex
	waiting []*Write
	busy    bool // a batch is being written

	open    chan struct{}         // holds one for each batch that is not done with its after-success hooks
	current atomic.Pointer[batch] // whose writes run now
}

// A Write is run once, or again if a neighbour in its batch lost it the transaction.
type Write struct {
	Run  func(tx core.App) error
	Size int // about how many bytes it writes

	// Instead is run in place of a run that failed, once that is undone, unless it was
	// the database that failed. It may be nil.
	Instead func(tx core.App, cause error) error

	// Done is called with the outcome, in the order of the commits and before
	// PocketBase's after-success hooks. It must not block.
	Done func(err error)

	alone bool // it is run in a transaction of its own
	again bool // the database failed for a neighbour of it already
}

// New returns a committer for app, whose records of the collection it inserts itself.
func New(app core.App, collection string) *Committer {
	ignore := func([]*core.Record) {}
	return &Committer{
		Committed: ignore, Settled: ignore, OwnHooks: func() int { return 0 }, Yields: func() bool { return false },
		app: app, collection: collection, open: make(chan struct{}, MaxOpen),
	}
}

// Do runs fn in a transaction and returns once it is committed, or why it is not. It
// returns before PocketBase's after-success hooks have run.
func (c *Committer) Do(fn func(tx core.App) error) error {
	return c.Wait(&Write{Run: fn})
}

// Wait is [Committer.Do] for a write that has more to it, but no Done.
func (c *Committer) Wait(w *Write) error {
	result := make(chan error, 1)
	w.Done = func(err error) { result <- err }
	c.Add(w)
	timeout := time.NewTimer(MaxWait)
	defer timeout.Stop()
	select {
	case err := <-result:
		return err
	case <-timeout.C:
		c.withdraw(w)
		return ErrBusy // or committed right now: nobody was told, so it comes again
	}
}

// Add has the write run. It does not wait for it.
func (c *Committer) Add(w *Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= MaxWaiting {
		go c.finish(w, ErrBusy)
		return
	}
	c.waiting = append(c.waiting, w)
	if !c.busy {
		c.busy = true
		go c.lead()
	}
}

// Waiting returns the writes that are in no batch yet, in order.
func (c *Committer) Waiting() []*Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.waiting)
}

// Busy reports whether a batch waits for the database or is being written.
func (c *Committer) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// Stop returns when no after-success hook runs any more, or when the time is over.
func (c *Committer) Stop(grace time.Duration) {
	timeout := time.After(grace)
	for range MaxOpen {
		select {
		case c.open <- struct{}{}:
			defer func() { <-c.open }()
		case <-timeout:
			c.app.Logger().Warn("Hooks after create or update still run: they are cut off")
			return
		}
	}
}

func (c *Committer) withdraw(w *Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.waiting, w); i >= 0 {
		c.waiting = slices.Concat(c.waiting[:i], c.waiting[i+1:])
	}
}

// lead writes one batch. The next batch begins as soon as this one is committed, while
// PocketBase's after-success hooks of this one, its realtime events among them, still
// run here; but not before there is room for one more such batch. Hooks that hang, or
// wait for a webhook that waits for them, hold it up, but do not end it.
func (c *Committer) lead() {
	select {
	case c.open <- struct{}{}:
		defer func() { <-c.open }()
	case <-time.After(MaxWait):
		c.app.Logger().Error("Hooks after create or update have been running for long: webhooks waited for them. Let them hand slow work to a goroutine", "batches", MaxOpen)
	}
	next := sync.OnceFunc(c.next)
	defer next()
	if writes := c.take(); len(writes) > 0 {
		c.commit(writes, next)
	}
}

// next begins the next batch, if anything waits for one.
func (c *Committer) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.waiting = nil
		c.busy = false
		return
	}
	go c.lead()
}

// take returns what the next batch may hold of what waits.
func (c *Committer) take() []*Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for n < min(len(c.waiting), MaxBatch) {
		size += c.waiting[n].Size
		if n > 0 && (size > MaxBatchSize || c.waiting[n].alone) {
			break
		}
		n++
		if c.waiting[n-1].alone {
			break
		}
	}
	writes := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	return writes
}

// putBack makes the writes the first that wait.
func (c *Committer) putBack(writes []*Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = slices.Concat(writes, c.waiting)
}

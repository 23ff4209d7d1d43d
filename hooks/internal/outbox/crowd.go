package outbox

import (
	"runtime"
	"sync/atomic"
	"time"
)

// While more clients than a crowd wait for their requests to be created, these go first: of
// what is to be sent, which waits in the table, only a few are claimed at a time. Else the
// answers to clients would take the time of all that asking, sending and answering takes. That
// is several times as much as creating, so how many are claimed goes by what the machine
// creates meanwhile. A request waits for one pause at most for each few that came before it.
const (
	crowdClaims = 8
	crowdShare  = 16                     // one is sent for so many that are created,
	crowdPause  = time.Second            // or the next few after that time
	crowdEnd    = 100 * time.Millisecond // without a crowd: its clients come and go together
)

var minCrowd = int64(4 * runtime.GOMAXPROCS(0))

// A crowd is the clients that wait for their requests to be created.
type crowd struct {
	creating atomic.Int64 // how many wait
	seen     atomic.Int64 // when they were more than minCrowd last, in nanoseconds
	created  atomic.Int64 // since requests were claimed last
	claimed  time.Time    // when that was, by the loop
}

// Creating has whoever waits for a request to be created go before those that are to be sent,
// until done is called.
func (o *Outbox) Creating() (done func()) {
	c := &o.asking.crowd
	c.creating.Add(1)
	c.look(o.Now())
	return func() {
		c.look(o.Now())
		c.creating.Add(-1)
		c.created.Add(1)
	}
}

func (c *crowd) look(now time.Time) {
	if c.creating.Load() > minCrowd {
		c.seen.Store(now.UnixNano())
	}
}

// isCrowd reports whether so many wait, or did just now.
func (c *crowd) isCrowd(now time.Time) bool {
	since := now.UnixNano() - c.seen.Load()
	return c.creating.Load() > minCrowd || since >= 0 && since < int64(crowdEnd)
}

// goesFirst reports whether nothing is to be claimed yet.
func (c *crowd) goesFirst(now time.Time) bool {
	since := now.Sub(c.claimed)
	return since >= 0 && since < crowdPause && c.created.Load() < crowdShare*crowdClaims
}

func (c *crowd) noteClaims(now time.Time) {
	c.claimed = now
	c.created.Store(0)
}

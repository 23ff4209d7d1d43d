package realtime

import (
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/routine"
)

// A change is one create, update or delete of a record.
type change struct {
	action  string
	batch   *batch // of a place that was reserved
	dropped bool   // the place was given up, or taken away

	// Set at the moment when it is decided who may see it.
	moment     int64
	until      int64        // of a delete, the moment when it was committed
	record     *core.Record // a copy; nil while the place is only reserved
	list, view access
	state            // as committed
	before     state // an update or a delete
	overtaken  bool  // by another commit to the record, of which another change tells
	outdated   bool  // the rules it was decided by, or a delete: there is such a row again
	gone       bool  // the row, meanwhile: it is shown to nobody

	// Set when it is published.
	data      []byte
	superuser func() []byte // the same with hidden fields
}

// A batch is the places of the records that were committed together, whose
// after-success hooks run one after the other.
type batch struct {
	places []*change

	// When the app's last hook began or ended. It is zero while none of them runs, but
	// we, or PocketBase's own broadcast, which may take long: nobody passes meanwhile.
	progress time.Time
}

// left returns how much time the app's hooks have before others go first.
func (b *batch) left() time.Duration {
	if b.progress.IsZero() {
		return maxHookTime
	}
	return time.Until(b.progress.Add(maxHookTime))
}

// Committed keeps the places of records that were committed together, in the order of the
// commits, while the app's own after-success hooks run, which decide whether each is
// broadcast at all. Settled must follow. It never blocks.
func (f *FanOut) Committed(records []*core.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subscribers) == 0 || !f.takesOver() {
		return
	}
	batch := &batch{progress: time.Now()}
	for _, record := range records {
		if f.places[record] != nil { // a hook deleted it and inserted it again
			continue
		}
		c := &change{batch: batch}
		f.places[record] = c
		batch.places = append(batch.places, c)
		f.append(c)
	}
}

// Settled gives the places up of those records whose hooks have ended without a broadcast.
func (f *FanOut) Settled(records []*core.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, record := range records {
		if c := f.places[record]; c != nil {
			delete(f.places, record)
			c.dropped = true
		}
	}
	f.wake()
}

// append has the change broadcast, after those before it. It never blocks. The lock is held.
func (f *FanOut) append(c *change) {
	delete(f.decided, c)
	if len(f.changes) >= maxChanges {
		for _, waiting := range f.changes {
			waiting.dropped = true
		}
		c.dropped = true
		f.changes = nil
		f.discardAll()
		return
	}
	f.changes = append(f.changes, c)
	f.wake()
}

// discardAll disconnects the subscribers, who fetch again. The lock is held.
func (f *FanOut) discardAll() {
	for s := range f.subscribers {
		f.cut(s)
	}
}

// wake starts to broadcast, unless that is under way. The lock is held.
func (f *FanOut) wake() {
	if !f.draining && len(f.changes) > 0 {
		f.draining = true
		go f.drain()
	}
}

// wakeIn is wake after some time. The lock is held.
func (f *FanOut) wakeIn(delay time.Duration) {
	if f.timer == nil {
		f.timer = time.AfterFunc(delay, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.wake()
		})
	}
	f.timer.Reset(delay)
}

// next takes the first change, unless its hooks still run. It returns nil when there is
// nothing to do until the next wake.
func (f *FanOut) next() *change {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.changes) > 0 {
		c := f.changes[0]
		if c.record == nil && !c.dropped {
			if left := c.batch.left(); left > 0 {
				f.wakeIn(left)
				f.draining = false
				return nil
			}
			for _, place := range c.batch.places { // they all wait for the one hook
				place.dropped = place.dropped || place.record == nil
			}
		}
		f.changes = f.changes[1:]
		if !c.dropped {
			f.decided[c] = struct{}{} // until it is in the log
			return c
		}
	}
	f.changes = nil
	f.draining = false
	return nil
}

// drain publishes what waits until nothing does.
func (f *FanOut) drain() {
	for c := f.next(); c != nil; c = f.next() {
		err := routine.SafeWrap(func() error { return f.publish(c) })()
		f.mu.Lock()
		delete(f.decided, c)
		f.mu.Unlock()
		if err != nil {
			f.app.Logger().Error("Failed to broadcast a record", "error", err, "id", c.record.Id)
		}
	}
}

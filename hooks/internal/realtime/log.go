package realtime

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// Subscribers are written to in rounds: the first at once, the next not before this
// time has passed, longer with many subscribers. What comes meanwhile goes out in one
// write: a burst costs a write for each subscriber and round, not for each record.
const (
	roundInterval              = 25 * time.Millisecond
	roundIntervalPerSubscriber = 10 * time.Microsecond
	maxFlush                   = 128 << 10 // bytes that one write brings, or one message
)

// In a burst, subscribers are written to in small steps, and between these longer than
// a step takes nobody is: webhooks are answered first and shown a little later. A burst
// lasts as long as the changes of a round came closer together than this, and the newest
// just now.
const (
	burstSpacing = 5 * time.Millisecond
	burstPause   = 50 * time.Millisecond
	stepSize     = 8                    // subscribers
	stepShare    = 8                    // one part in so many of the time
	maxStep      = 5 * time.Millisecond // a write that takes longer waits for its reader
)

// publish encodes the change and has it sent, if anybody can be concerned.
func (f *FanOut) publish(c *change) (err error) {
	if f.concernsNobody(c) {
		return nil
	}
	if c.data, err = c.encode(c.record); err != nil {
		return err
	}
	c.superuser = sync.OnceValue(func() []byte {
		record := c.record.Fresh()
		record.Unhide(record.Collection().Fields.FieldNames()...)
		data, _ := c.encode(record) // nothing is sent of what cannot be encoded
		return data
	})

	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(c)
	f.log = append(f.log, c)
	f.published = time.Now()
	f.logSize += len(c.data)
	if len(f.log) > maxChanges || f.logSize > maxLogSize {
		f.trim(true)
	}
	if !f.rounding {
		f.rounding = true
		go f.rounds()
	}
	return nil
}

// dataFor returns what a topic of the view is sent, or nothing. Whoever is told what leaves
// counts on the last event of a record to be what the database has, and plain subscribers
// get each, as from PocketBase.
func (c *change) dataFor(v view, t topic) []byte {
	access, about := t.access(c)
	if !about {
		return nil
	}
	shown := !c.gone && c.shows(v, t, access)
	seen := t.leave && c.before.row != nil && c.before.shows(v, t, access)
	if t.leave && c.action == "delete" { // others may have committed since that was decided
		shown = shown && seen && c.knows(v, t, access)
	}
	switch {
	case shown && t.leave && c.overtaken:
		return nil
	case shown && v.superuser:
		return c.superuser()
	case shown:
		return c.data
	case seen:
		id, _ := json.Marshal(c.record.Id)
		return []byte(`{"action":"leave","record":{"id":` + string(id) + `}}`)
	}
	return nil
}

// unsure reports whether nobody knows what the topic is to be told, since the rules have
// changed, since the database could not be asked, or since it is younger than the look at the
// row before.
func (c *change) unsure(v view, t topic) bool {
	access, about := t.access(c)
	switch {
	case !t.leave || !about:
		return false
	case c.outdated, c.action != "delete" && !c.gone && !c.answered(v, t, access):
		return true
	case c.before.row == nil || c.before.knows(v, t, access):
		return false
	}
	return c.action == "delete" || c.gone || !c.shows(v, t, access)
}

// answered reports whether the database has answered what the topic asks it of the row.
func (s state) answered(v view, t topic, a access) bool {
	answered := func(q question) bool {
		_, ok := s.answers[q]
		return ok
	}
	return (!t.filter.asks() || answered(t.filter.question(v))) && (!a.asks() || v.superuser || answered(a.question(v, t)))
}

// knows reports whether all was found out that the topic asks of the row.
func (s state) knows(v view, t topic, a access) bool {
	return s.answered(v, t, a) && !slices.ContainsFunc(slices.Concat(a.fields, t.filter.fields), func(field string) bool {
		_, read := s.row[field]
		return !read
	})
}

func (c *change) encode(record *core.Record) ([]byte, error) {
	return json.Marshal(struct {
		Record *core.Record `json:"record"`
		Action string       `json:"action"`
	}{record, c.action})
}

// end returns the position after the newest change. The lock is held.
func (f *FanOut) end() int64 { return f.logStart + int64(len(f.log)) }

// trim forgets the changes that every subscriber has sent, but for the latest, if some may
// come back and want them. If it must make room, it
// disconnects those who hold back the older half. The lock is held.
func (f *FanOut) trim(makeRoom bool) {
	keep := f.end()
	behind := f.allBehind()
	for _, s := range behind {
		keep = min(keep, s.position.Load())
	}
	if f.leaving > 0 {
		keep = min(keep, f.keptFrom())
	}
	if room := f.logStart + int64(len(f.log)+1)/2; makeRoom && keep < room {
		keep = room
		for _, s := range behind {
			if s.position.Load() < keep {
				f.cut(s)
			}
		}
	}
	drop := keep - f.logStart
	if drop <= 0 {
		return
	}
	for _, c := range f.log[:drop] {
		f.logSize -= len(c.data)
	}
	f.logStart = keep
	f.log = append([]*change(nil), f.log[drop:]...) // a flush may still read the old one
}

// keptFrom returns the position of the first change that is kept for those who come back.
// The lock is held.
func (f *FanOut) keptFrom() int64 {
	position, size := f.logStart, f.logSize
	for ; position < f.end() && (f.end()-position > keptChanges || size > keptSize); position++ {
		size -= len(f.log[position-f.logStart].data)
	}
	return position
}

// rounds wakes the subscribers, round by round, until all have sent everything.
func (f *FanOut) rounds() {
	for {
		f.mu.Lock()
		f.trim(false)
		began, end := time.Now(), f.end()
		behind := f.allBehind()
		if !slices.ContainsFunc(behind, func(s *subscriber) bool { return s.position.Load() < end }) {
			f.rounding = false // which is no round: the next change is not measured from here
			f.mu.Unlock()
			return
		}
		fresh := end - f.roundEnd
		f.burst = fresh > 1 && began.Sub(f.roundBegan) < time.Duration(fresh)*burstSpacing
		if f.burst {
			f.throttled++
		}
		f.roundBegan, f.roundEnd = began, end
		interval := max(roundInterval, time.Duration(len(behind))*roundIntervalPerSubscriber)
		f.mu.Unlock()
		f.round(behind, end)
		time.Sleep(interval - time.Since(began))
	}
}

// round wakes those subscribers that have not sent everything before end.
func (f *FanOut) round(behind []*subscriber, end int64) {
	behind = slices.DeleteFunc(behind, func(s *subscriber) bool {
		if s.writing.Load() { // or its reader stopped
			s.wake()
			return true
		}
		return s.position.Load() >= end
	})
	for step := range slices.Chunk(behind, stepSize) {
		began := time.Now()
		for _, s := range step {
			s.writing.Store(true)
			s.wake()
		}
		if !f.inBurst() {
			continue
		}
		took := time.Duration(0)
		for slices.ContainsFunc(step, func(s *subscriber) bool { return s.writing.Load() }) && took < maxStep {
			time.Sleep(100 * time.Microsecond)
			took = time.Since(began)
		}
		for f.inBurst() && time.Since(began) < stepShare*took {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

func (f *FanOut) inBurst() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.burst && f.rounding && time.Since(f.published) < burstPause
}

// unsent returns what was published and the subscriber has not sent, with its views and its
// position, and false if some of that is forgotten.
func (f *FanOut) unsent(s *subscriber) ([]*change, []view, int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isBehind(s) {
		return nil, nil, f.end(), true
	}
	position := s.position.Load()
	if position < f.logStart {
		return nil, nil, position, false
	}
	return f.log[position-f.logStart:], s.views, position, true
}

// sent moves the subscriber on.
func (f *FanOut) sent(s *subscriber, position int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.position.Store(position)
	if position == f.end() {
		delete(f.behind, s)
	}
	if len(s.views) > 1 {
		f.forgetViews(s)
	}
}

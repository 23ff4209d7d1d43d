package realtime

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// A stream that expects leave and ends may come back, with a connection of its own, and name
// the last event it has seen. What it missed follows then, if the log still has it.
const (
	maxAway     = time.Minute // that it may be away
	maxAllAway  = 20_000      // topics of those that are, the others are forgotten
	keptChanges = 1000        // of the log, that everybody has sent
	keptSize    = 8 << 20     // bytes of them
)

// lastEventId is what a stream names that comes back: EventSource by itself in the header,
// and a client that makes another EventSource in the query.
func lastEventId(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("lastEventId")
}

// eventId names a position of the log to the subscriber's next connection. It says nothing
// to the next process, or to another viewer. How far the database is then says something to
// all nodes that share it.
func (s *subscriber) eventId(position int64) string {
	id := s.key + "." + strconv.FormatInt(position, 10)
	if s.fanOut.Position != nil {
		id += "." + s.fanOut.Position()
	}
	return id
}

// depart keeps the views of a subscriber whose connection has ended, so that whatever its
// subscriptions ask about a change goes on being found out for some time.
func (f *FanOut) depart(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, watches := f.subscribers[s]
	if !watches || s.leaveTopic("") == nil || s.IsDiscarded() || !f.takesOver() || f.away+s.topicCount > maxAllAway {
		return
	}
	s.away = time.AfterFunc(maxAway, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.away -= s.topicCount
		f.forget(s)
		f.trim(false)
	})
	f.away += s.topicCount
	delete(f.behind, s)
}

// comeBack gives a subscriber the views of the one that brought the event it has named, and
// that event's position, and so all that was missed. It does nothing if that is not known to
// be all, and reports whether it did. The other one may not be known to be gone yet: its stream is ended. The lock is held.
func (f *FanOut) comeBack(s *subscriber, now view) bool {
	key, number, _ := strings.Cut(s.lastEventId, ".")
	number, _, _ = strings.Cut(number, ".")
	s.lastEventId = "" // which may be a place only at first
	before := f.byKey[key]
	position, err := strconv.ParseInt(number, 10, 64)
	if before == nil || err != nil || position < f.logStart || position > f.end() {
		return false
	}
	views := before.views
	if !sameViewer(views[len(views)-1].auth, now.auth) {
		return false
	}
	if slices.ContainsFunc(f.log[position-f.logStart:], func(c *change) bool { return c.moment < views[0].from }) {
		return false
	}
	s.told, s.missed = before.told, before.missed || before.dropped
	f.cut(before)
	f.subscribers[s], f.byKey[s.key] = struct{}{}, s
	s.views = views
	for _, v := range views {
		f.noteView(s, v, 1)
	}
	s.position.Store(position)
	f.behind[s] = struct{}{}
	return true
}

// sameViewer reports whether two auth records, nil for a guest, have all the same values,
// so that questions about one have the other's answers.
func sameViewer(a, b *core.Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Collection().Id == b.Collection().Id && reflect.DeepEqual(a.FieldsData(), b.FieldsData())
}

// same reports whether the view is the other, if its time is not asked.
func (v view) same(other view) bool {
	if len(v.topics) != len(other.topics) || !sameViewer(v.auth, other.auth) {
		return false
	}
	names := map[string]bool{}
	for _, t := range v.topics {
		names[t.name] = true
	}
	return !slices.ContainsFunc(other.topics, func(t topic) bool { return !names[t.name] })
}

// noteGap notes what a new view of the subscriber means for what it was told. PocketBase
// drops all topics before it sets new ones: if nothing is decided meanwhile, it misses
// nothing. The lock is held.
func (s *subscriber) noteGap(now view) {
	if s.told != nil && s.told.authId != now.authId {
		s.told = nil
	}
	switch {
	case len(now.topics) < s.topicCount && !s.dropped:
		s.dropped, s.droppedAt = true, s.fanOut.moment
	case len(now.topics) > s.topicCount && s.dropped:
		s.missed = s.missed || s.droppedAt != s.fanOut.moment
		s.dropped = false
	}
	s.topicCount = len(now.topics)
}

// tellsLive returns the view that the subscriber is now told of, and by their names those of
// its topics that have brought every event since they were last told.
func (s *subscriber) tellsLive() (now view, continued map[string]bool) {
	s.fanOut.mu.Lock()
	defer s.fanOut.mu.Unlock()
	now, continued = s.viewNow(), map[string]bool{}
	if s.told != nil && !s.missed {
		for _, t := range s.told.topics {
			continued[t.name] = true
		}
	}
	s.told, s.missed = &now, false
	return now, continued
}

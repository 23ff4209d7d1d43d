package realtime

import (
	"slices"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
)

// A view is who a subscriber was and what it asked for, from a moment on: an event that
// was decided before its owner signed in, or before a topic was left, goes by that.
type view struct {
	from      int64
	topics    []topic
	auth      *core.Record // nil for a guest
	authId    string
	superuser bool
}

// viewNow is the view of the moment. The fan-out's lock is held.
func (s *subscriber) viewNow() view {
	v := view{from: s.fanOut.moment + 1, topics: *s.topics.Load()}
	if v.auth, _ = s.Get(apis.RealtimeClientAuthKey).(*core.Record); v.auth != nil {
		v.authId, v.superuser = v.auth.Id, v.auth.IsSuperuser()
	}
	return v
}

// viewAt returns the view that applies to a moment, or nil.
func viewAt(views []view, moment int64) *view {
	for i := len(views) - 1; i >= 0; i-- {
		if views[i].from <= moment {
			return &views[i]
		}
	}
	return nil
}

// forgetViews forgets those that apply to nothing that is still to be sent, and the
// subscriber if it has asked for nothing more. The lock is held.
func (f *FanOut) forgetViews(s *subscriber) {
	oldest := f.moment + 1
	consider := func(c *change) {
		if c.record != nil {
			oldest = min(oldest, c.moment)
		}
	}
	for c := range f.decided {
		consider(c)
	}
	for _, c := range f.changes {
		consider(c)
	}
	if f.isBehind(s) {
		for _, c := range f.log[max(0, s.position.Load()-f.logStart):] {
			consider(c)
		}
	}
	for len(s.views) > 1 && s.views[1].from <= oldest {
		f.noteView(s, s.views[0], -1)
		s.views = s.views[1:]
	}
	if len(s.views) == 1 && len(s.views[0].topics) == 0 {
		f.forget(s)
	}
}

// forget forgets the subscriber, who asks for nothing. The lock is held.
func (f *FanOut) forget(s *subscriber) {
	for _, v := range s.views {
		f.noteView(s, v, -1)
	}
	s.views = nil
	delete(f.subscribers, s)
	delete(f.behind, s)
	delete(f.byKey, s.key)
	if s.away != nil && s.away.Stop() {
		f.away -= s.topicCount
	}
}

// cut ends the subscriber's stream, to have it fetch again: nobody comes back to it. The lock
// is held.
func (f *FanOut) cut(s *subscriber) {
	f.forget(s)
	s.told = nil
	if s.away == nil {
		go s.Discard()
	}
}

func (s *subscriber) Subscribe(names ...string) {
	if !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "leave=1") }) {
		s.DefaultClient.Subscribe(names...)
		s.fanOut.mu.Lock()
		s.told = nil // those whose place they take miss something
		s.fanOut.mu.Unlock()
		s.renew()
		return
	}
	s.tellings.Add(1) // before any event of it
	s.DefaultClient.Subscribe(names...)
	s.renew()
	s.tellWhatIsLive()
	s.tellingsEnded.Add(1)
	s.wake()
}

func (s *subscriber) Unsubscribe(names ...string) {
	s.DefaultClient.Unsubscribe(names...)
	s.renew()
}

func (s *subscriber) Set(key string, value any) {
	s.DefaultClient.Set(key, value)
	if key == apis.RealtimeClientAuthKey {
		s.renew()
	}
}

// Unset is how PocketBase takes the identity from the streams of a user who is deleted, or
// whose password or tokens change. What they could see leaves them without an event of it,
// so whoever expects one is told, and may sign in again first.
func (s *subscriber) Unset(key string) {
	identified := s.Get(apis.RealtimeClientAuthKey) != nil
	s.DefaultClient.Unset(key)
	if key != apis.RealtimeClientAuthKey {
		return
	}
	s.renew()
	for _, t := range *s.topics.Load() {
		if identified && t.leave {
			s.tell(t, []byte(`{"action":"unidentified"}`))
		}
	}
}

// leaveTopic returns one of the subscriber's topics of the collection, or of any if that is
// empty, that is told what leaves it, or nil.
func (s *subscriber) leaveTopic(collection string) *topic {
	return leaveTopicOf(*s.topics.Load(), collection)
}

func leaveTopicOf(topics []topic, collection string) *topic {
	for _, t := range topics {
		if t.leave && (collection == "" || t.collection == collection) {
			return &t
		}
	}
	return nil
}

// renew finds out who the subscriber is now and which of its subscriptions the
// fan-out serves, and has that apply to what is decided from now on.
func (s *subscriber) renew() {
	f := s.fanOut
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.away != nil || s.IsDiscarded() { // a request was under way
		return
	}
	all := s.DefaultClient.Subscriptions()
	topics := f.ownTopics(all)
	s.topics.Store(&topics)
	s.onlyOurs.Store(len(topics) == len(all))
	f.others = nil
	now := s.viewNow()
	cameBack := s.lastEventId != "" && len(topics) > 0 && f.comeBack(s, now)
	s.noteGap(now)
	_, watches := f.subscribers[s]
	switch {
	case cameBack && s.views[len(s.views)-1].same(now): // with the other record of the same user
		return
	case watches:
		if last := len(s.views) - 1; s.views[last].from > f.moment {
			f.noteView(s, s.views[last], -1)
			s.views = s.views[:last:last] // nothing was decided under it
		}
	case len(topics) == 0:
		return
	default:
		f.subscribers[s], f.byKey[s.key] = struct{}{}, s
	}
	s.views = append(s.views, now)
	f.noteView(s, s.views[len(s.views)-1], 1)
	f.forgetViews(s)
	if len(s.views) > maxViews {
		f.cut(s)
	}
}

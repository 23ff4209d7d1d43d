package realtime

import (
	"slices"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
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
	for _, c := range f.log[max(0, s.position.Load()-f.logStart):] {
		consider(c)
	}
	for len(s.views) > 1 && s.views[1].from <= oldest {
		s.views = s.views[1:]
	}
	if len(s.views) == 1 && len(s.views[0].topics) == 0 {
		delete(f.subscribers, s)
	}
}

func (s *subscriber) Subscribe(names ...string) {
	s.DefaultClient.Subscribe(names...)
	s.renew()
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

func (s *subscriber) Unset(key string) {
	s.DefaultClient.Unset(key)
	if key == apis.RealtimeClientAuthKey {
		s.renew()
	}
}

// renew finds out who the subscriber is now and which of its subscriptions the
// fan-out serves, and has that apply to what is decided from now on.
func (s *subscriber) renew() {
	f := s.fanOut
	f.mu.Lock()
	defer f.mu.Unlock()
	all := s.DefaultClient.Subscriptions()
	topics := f.ownTopics(all)
	s.topics.Store(&topics)
	s.onlyOurs.Store(len(topics) == len(all))
	f.others = nil
	_, watches := f.subscribers[s]
	switch {
	case s.IsDiscarded():
		return
	case watches:
		if last := len(s.views) - 1; s.views[last].from > f.moment {
			s.views = s.views[:last:last] // nothing was decided under it
		}
	case len(topics) == 0:
		return
	default:
		f.subscribers[s] = struct{}{}
		s.position.Store(f.end())
		s.views = nil
	}
	s.views = append(s.views, s.viewNow())
	f.forgetViews(s)
	if len(s.views) > maxViews {
		go s.Discard()
	}
}

// ownTopics returns the subscriptions that the fan-out serves: those of its collection
// without options.
func (f *FanOut) ownTopics(all map[string]subscriptions.SubscriptionOptions) []topic {
	topics := []topic{}
	names := []string{f.collection}
	if collection, err := f.app.FindCachedCollectionByNameOrId(f.collection); err == nil {
		names = append(names, collection.Id)
	}
	for name, options := range all {
		path, _, _ := strings.Cut(name, "?")
		collection, id, one := strings.Cut(path, "/")
		if len(options.Query)+len(options.Headers) > 0 || !slices.Contains(names, collection) || one && id == "" {
			continue
		}
		if id == "*" {
			id = ""
		}
		topics = append(topics, topic{name, id})
	}
	return topics
}

// A topic is a subscription to all records, or to the one of an id.
type topic struct{ name, id string }

// access returns who may see a change under this topic, and false if the topic is not
// about its record.
func (t topic) access(c *change) (access, bool) {
	switch t.id {
	case "":
		return c.list, true
	case c.record.Id:
		return c.view, true
	}
	return access{}, false
}

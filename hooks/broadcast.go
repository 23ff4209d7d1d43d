package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/routine"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
)

// Bounds of the fan-out. A subscriber that exceeds one is disconnected: its SDK
// connects again and its page fetches again, so that a gap is signalled, never hidden.
const (
	maxQueued    = 1000             // messages that wait for one subscriber
	maxChanges   = 10000            // changes that wait to be broadcast
	writeTimeout = 10 * time.Second // for a subscriber that stopped reading
	maxHookTime  = time.Second      // of the app's after-success hooks, before others go first
)

// A subscriber is written to at once if it has been quiet, and else no more often than
// once in this time, longer with many subscribers: what comes meanwhile goes out in one
// write. A burst so costs a write for each subscriber and moment, not for each record,
// and leaves the processor to the webhooks.
const (
	flushInterval              = 25 * time.Millisecond
	flushIntervalPerSubscriber = 20 * time.Microsecond
)

// A broadcaster sends changes of aiContent to those subscribers that PocketBase would
// send them to, but from a goroutine of its own, in the order of the commits, with one
// encoding for all and one rule check for each viewer. PocketBase does that inside the
// save, for each subscriber anew.
//
// It takes over subscriptions of aiContent without options ("aiContent/*",
// "aiContent/ID"). The others, and all if the app has OnRecordEnrich hooks, which may
// give every viewer another record, stay with PocketBase: see [subscriber.Subscriptions].
type broadcaster struct {
	app    core.App
	enrich *hook.TaggedHook[*core.RecordEnrichEvent]

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	changes     []*change // in the order of the commits
	draining    bool
	reserved    map[*core.Record]*change // by the record whose after-success hooks still run
	deleting    map[*core.Record]*change // by the record that is being deleted

	rules ruleCache
}

// A change is one create, update or delete of a record.
type change struct {
	action  string
	record  *core.Record    // as it was then; nil while its place is only reserved
	expires time.Time       // of the reservation
	dropped bool            // the place was given up, or taken away
	allowed map[string]bool // by rule and viewer, what was checked already
	gone    bool            // the record can't be checked any more
}

func newBroadcaster(app core.App) *broadcaster {
	return &broadcaster{
		app:         app,
		enrich:      app.OnRecordEnrich(),
		subscribers: map[*subscriber]struct{}{},
		reserved:    map[*core.Record]*change{},
		deleting:    map[*core.Record]*change{},
	}
}

// takesOver reports whether subscriptions without options are served here.
func (b *broadcaster) takesOver() bool { return b.enrich.Length() == 0 }

// reserve keeps the record's place in the order of the commits while the app's own
// after-success hooks run, which decide whether it is broadcast at all.
func (b *broadcaster) reserve(record *core.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subscribers) == 0 || !b.takesOver() {
		return
	}
	c := &change{expires: time.Now().Add(maxHookTime)}
	b.reserved[record] = c
	b.append(c)
}

// drop gives the record's place up if its hooks have ended without a broadcast.
func (b *broadcaster) drop(record *core.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.reserved[record]; c != nil {
		delete(b.reserved, record)
		c.dropped = true
		b.wake()
	}
}

// saved is bound where PocketBase broadcasts: behind the app's own after-success hooks.
func (b *broadcaster) saved(action string) func(e *core.ModelEvent) error {
	return func(e *core.ModelEvent) error {
		record := b.recordOf(e)
		if record == nil {
			return e.Next()
		}
		saved := &change{action: action, record: record.Fresh(), allowed: map[string]bool{}}
		b.mu.Lock()
		if c := b.reserved[record]; c != nil && !c.dropped {
			*c = *saved
			b.wake()
		} else {
			b.append(saved) // another writer's, or its hooks took too long
		}
		delete(b.reserved, record)
		b.mu.Unlock()
		return e.Next()
	}
}

// deletes prepares a delete while the record can still be checked against the rules.
func (b *broadcaster) deletes(e *core.ModelEvent) error {
	if record := b.recordOf(e); record != nil {
		c := &change{action: "delete", record: record.Fresh(), allowed: map[string]bool{}}
		for _, s := range b.all() {
			b.deliver(c, s, nil)
		}
		c.gone = true
		b.mu.Lock()
		b.deleting[record] = c
		b.mu.Unlock()
	}
	return e.Next()
}

func (b *broadcaster) deleted(e *core.ModelEvent) error {
	if c := b.takeDeleting(e.Model); c != nil {
		b.add(c)
	}
	return e.Next()
}

func (b *broadcaster) deleteFailed(e *core.ModelErrorEvent) error {
	b.takeDeleting(e.Model)
	return e.Next()
}

func (b *broadcaster) takeDeleting(model core.Model) *change {
	record := asRecord(model)
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.deleting[record]
	delete(b.deleting, record)
	return c
}

// recordOf returns the event's record if anyone could be told of it.
func (b *broadcaster) recordOf(e *core.ModelEvent) *core.Record {
	b.mu.Lock()
	none := len(b.subscribers) == 0
	b.mu.Unlock()
	if none || !b.takesOver() {
		return nil
	}
	return asRecord(e.Model)
}

func asRecord(model core.Model) *core.Record {
	switch m := model.(type) {
	case *core.Record:
		return m
	case core.RecordProxy:
		return m.ProxyRecord()
	}
	return nil
}

// add has the change broadcast, after those before it. It never blocks.
func (b *broadcaster) add(c *change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.append(c)
}

// append is add with the lock held.
func (b *broadcaster) append(c *change) {
	if len(b.changes) >= maxChanges {
		for _, waiting := range b.changes {
			waiting.dropped = true
		}
		b.changes = nil
		for s := range b.subscribers {
			go s.Discard()
		}
		return
	}
	b.changes = append(b.changes, c)
	b.wake()
}

// wake starts to broadcast, unless that is under way. The lock is held.
func (b *broadcaster) wake() {
	if !b.draining && len(b.changes) > 0 {
		b.draining = true
		go b.drain()
	}
}

// next takes the first change, unless its hooks still run. It returns nil when there is
// nothing to do until the next wake.
func (b *broadcaster) next() *change {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.changes) > 0 {
		c := b.changes[0]
		if c.record == nil && !c.dropped {
			if left := time.Until(c.expires); left > 0 {
				time.AfterFunc(left, func() {
					b.mu.Lock()
					defer b.mu.Unlock()
					b.wake()
				})
				b.draining = false
				return nil
			}
			c.dropped = true
		}
		b.changes = b.changes[1:]
		if !c.dropped {
			return c
		}
	}
	b.changes = nil
	b.draining = false
	return nil
}

// drain broadcasts what waits until nothing does.
func (b *broadcaster) drain() {
	for c := b.next(); c != nil; c = b.next() {
		err := routine.SafeWrap(func() error {
			b.broadcast(c)
			return nil
		})()
		if err != nil {
			b.app.Logger().Error("Failed to broadcast a record", "error", err, "id", c.record.Id)
		}
	}
}

func (b *broadcaster) all() []*subscriber {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*subscriber, 0, len(b.subscribers))
	for s := range b.subscribers {
		all = append(all, s)
	}
	return all
}

func (b *broadcaster) broadcast(c *change) {
	var encoded [2][]byte // for everyone, and for superusers, who see hidden fields
	encode := func(superuser bool) []byte {
		i := 0
		if superuser {
			i = 1
		}
		if encoded[i] == nil {
			record := c.record
			if superuser {
				record = record.Fresh()
				record.Unhide(record.Collection().Fields.FieldNames()...)
			}
			var err error
			encoded[i], err = json.Marshal(struct {
				Record *core.Record `json:"record"`
				Action string       `json:"action"`
			}{record, c.action})
			if err != nil {
				b.app.Logger().Debug("Failed to encode a record for its subscribers", "error", err, "id", c.record.Id)
				encoded[i] = []byte{}
			}
		}
		return encoded[i]
	}
	for _, s := range b.all() {
		b.deliver(c, s, encode)
	}
}

// deliver sends the change to the subscriber for each of its topics that match and
// that it may see. Without encode it only finds out whether it may.
func (b *broadcaster) deliver(c *change, s *subscriber, encode func(superuser bool) []byte) {
	collection := c.record.Collection()
	for _, t := range *s.topics.Load() {
		rule := collection.ListRule
		if t.id != "" {
			if t.id != c.record.Id {
				continue
			}
			rule = collection.ViewRule
		}
		auth, _ := s.Get(apis.RealtimeClientAuthKey).(*core.Record)
		superuser := auth != nil && auth.IsSuperuser()
		if !superuser && !b.mayAccess(c, auth, rule) || encode == nil {
			continue
		}
		if data := encode(superuser); len(data) > 0 {
			s.Send(subscriptions.Message{Name: t.name, Data: data})
		}
	}
}

// mayAccess is PocketBase's CanAccessRecord, asked once for each viewer and rule, and
// not at all for a rule that is a plain comparison of texts, as the shipped one is.
func (b *broadcaster) mayAccess(c *change, auth *core.Record, rule *string) bool {
	if rule == nil {
		return false
	}
	if *rule == "" {
		return true
	}
	if evaluate := b.rules.find(c.record.Collection(), *rule); evaluate != nil {
		id := ""
		if auth != nil {
			id = auth.Id
		}
		return evaluate(c.record, id)
	}

	key := *rule + "\x00"
	if auth != nil {
		key += auth.Collection().Id + "/" + auth.Id
	}
	allowed, checked := c.allowed[key]
	if !checked && !c.gone {
		allowed, _ = b.app.CanAccessRecord(c.record, &core.RequestInfo{
			Context: core.RequestInfoContextRealtime, Method: http.MethodGet,
			Query: map[string]string{}, Headers: map[string]string{}, Auth: auth,
		}, rule)
		c.allowed[key] = allowed
	}
	return allowed
}

// A subscriber is a realtime client whose messages wait in order for its connection.
type subscriber struct {
	*subscriptions.DefaultClient
	broadcaster *broadcaster
	topics      atomic.Pointer[[]topic] // those without options, of aiContent
	plain       atomic.Bool             // it has no others

	ready chan struct{} // a message waits
	mu    sync.Mutex
	queue []subscriptions.Message

	deadlineSet time.Time // of the connection's writes
}

// A topic is a subscription to all records, or to the one of an id.
type topic struct{ name, id string }

// serve runs a realtime connection as PocketBase does, save that the messages which
// wait together are flushed together, and that a subscriber who stopped reading is cut.
func (b *broadcaster) serve(e *core.RealtimeConnectRequestEvent) error {
	client, ok := e.Client.(*subscriptions.DefaultClient)
	if !ok {
		return e.Next() // the app has a client of its own
	}
	s := &subscriber{DefaultClient: client, broadcaster: b, ready: make(chan struct{}, 1)}
	s.topics.Store(&[]topic{})
	e.Client = s

	broker := e.App.SubscriptionsBroker()
	broker.Register(s)
	defer broker.Unregister(s.Id())
	s.Send(subscriptions.Message{Name: "PB_CONNECT", Data: []byte(`{"clientId":"` + s.Id() + `"}`)})
	e.App.Logger().Debug("Realtime connection established", slog.String("clientId", s.Id()))

	opened := time.Now()
	flushed := opened
	expires := func() time.Duration {
		return min(e.MaxTimeout-time.Since(opened), e.IdleTimeout-time.Since(flushed))
	}
	expiry := time.NewTimer(expires())
	defer expiry.Stop()
	var later <-chan time.Time // while a flush waits
	for {
		select {
		case <-s.ready:
			if wait := b.flushInterval() - time.Since(flushed); wait > 0 && flushed != opened {
				if later == nil {
					later = time.After(wait)
				}
				continue
			}
		case <-later:
			later = nil
		case <-expiry.C:
			left := expires()
			if left <= 0 {
				return nil
			}
			expiry.Reset(left)
			continue
		case <-s.Channel(): // closed by Discard: nothing is ever sent to it
			return nil
		case <-e.Request.Context().Done():
			return nil
		}
		if err := s.flush(e); err != nil {
			e.App.Logger().Debug("Realtime connection closed (failed to send)", slog.String("clientId", s.Id()), slog.String("error", err.Error()))
			return nil
		}
		flushed = time.Now()
	}
}

func (b *broadcaster) flushInterval() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(flushInterval, time.Duration(len(b.subscribers))*flushIntervalPerSubscriber)
}

// flush writes what waits.
func (s *subscriber) flush(e *core.RealtimeConnectRequestEvent) error {
	s.mu.Lock()
	batch := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}

	if now := time.Now(); now.Sub(s.deadlineSet) > writeTimeout/5 { // not for each: that costs
		s.deadlineSet = now
		err := http.NewResponseController(e.Response).SetWriteDeadline(now.Add(writeTimeout))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
	}
	if sends := e.App.OnRealtimeMessageSend(); sends.Length() > 0 {
		for i := range batch {
			event := &core.RealtimeMessageEvent{RequestEvent: e.RequestEvent, Client: s, Message: &batch[i]}
			err := sends.Trigger(event, func(event *core.RealtimeMessageEvent) error {
				return event.Message.WriteSSE(event.Response, event.Client.Id())
			})
			if err != nil {
				return err
			}
		}
		return e.Flush()
	}

	// One large write goes past the small buffers of net/http.
	buffer := flushBuffers.Get().(*bytes.Buffer)
	buffer.Reset()
	for i := range batch {
		_ = batch[i].WriteSSE(buffer, s.Id())
	}
	_, err := e.Response.Write(buffer.Bytes())
	if buffer.Cap() <= maxFlushBuffer {
		flushBuffers.Put(buffer)
	}
	if err != nil {
		return err
	}
	return e.Flush()
}

const maxFlushBuffer = 256 << 10 // a larger one is not kept

var flushBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Send has the message sent after those before it. It never blocks.
func (s *subscriber) Send(m subscriptions.Message) {
	s.mu.Lock()
	full := len(s.queue) >= maxQueued
	if !full {
		s.queue = append(s.queue, m)
	}
	s.mu.Unlock()
	if full {
		s.Discard()
		return
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Subscriptions hides from PocketBase's broadcast, which asks by prefixes that end in
// "?", what the broadcaster sends.
func (s *subscriber) Subscriptions(prefixes ...string) map[string]subscriptions.SubscriptionOptions {
	topics := *s.topics.Load()
	if len(prefixes) != 1 || len(topics) == 0 || !strings.HasSuffix(prefixes[0], "?") || !s.broadcaster.takesOver() {
		return s.DefaultClient.Subscriptions(prefixes...)
	}
	if s.plain.Load() {
		return nil // the common case, asked six times for each record
	}
	found := s.DefaultClient.Subscriptions(prefixes...)
	for _, t := range topics {
		delete(found, t.name)
	}
	return found
}

func (s *subscriber) Subscribe(names ...string) {
	s.DefaultClient.Subscribe(names...)
	s.sort()
}

func (s *subscriber) Unsubscribe(names ...string) {
	s.DefaultClient.Unsubscribe(names...)
	s.sort()
}

// Discard ends the connection.
func (s *subscriber) Discard() {
	s.DefaultClient.Discard()
	s.broadcaster.mu.Lock()
	delete(s.broadcaster.subscribers, s)
	s.broadcaster.mu.Unlock()
}

// sort finds the subscriptions that the broadcaster serves.
func (s *subscriber) sort() {
	topics := []topic{}
	names := []string{contentCollection}
	if collection, err := s.broadcaster.app.FindCachedCollectionByNameOrId(contentCollection); err == nil {
		names = append(names, collection.Id)
	}
	subscriptions := s.DefaultClient.Subscriptions()
	for name := range subscriptions {
		collection, id, one := strings.Cut(name, "/")
		if strings.Contains(name, "?") || !slices.Contains(names, collection) || one && id == "" {
			continue
		}
		if id == "*" {
			id = ""
		}
		topics = append(topics, topic{name, id})
	}
	s.topics.Store(&topics)
	s.plain.Store(len(topics) == len(subscriptions))

	b := s.broadcaster
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(topics) > 0 && !s.IsDiscarded() {
		b.subscribers[s] = struct{}{}
	} else {
		delete(b.subscribers, s)
	}
}

// A rule tells whether the viewer of an auth id, empty for a guest, may see a record.
type rule func(record *core.Record, authId string) bool

// A ruleCache keeps the rules of the collection as it is now.
type ruleCache struct {
	mu    sync.Mutex
	rules map[string]rule
	of    *core.Collection
}

// find returns the compiled rule, or nil if PocketBase has to be asked.
func (r *ruleCache) find(collection *core.Collection, text string) rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != collection {
		r.of, r.rules = collection, map[string]rule{}
	}
	compiled, ok := r.rules[text]
	if !ok {
		if groups, err := fexpr.Parse(text); err == nil {
			compiled = compileRule(collection, groups)
		}
		r.rules[text] = compiled
	}
	return compiled
}

// compileRule compiles a rule that consists of nothing but = and != between the record's
// text fields, @request.auth.id and literals, for which the database need not be asked:
// both compare byte by byte. It returns nil for any other rule.
func compileRule(collection *core.Collection, groups []fexpr.ExprGroup) rule {
	var any []rule // of alternatives, each of which is one or more that must all hold
	for i, group := range groups {
		var one rule
		switch item := group.Item.(type) {
		case fexpr.Expr:
			left, right := compileOperand(collection, item.Left), compileOperand(collection, item.Right)
			if left == nil || right == nil || item.Op != fexpr.SignEq && item.Op != fexpr.SignNeq {
				return nil
			}
			equal := item.Op == fexpr.SignEq
			one = func(record *core.Record, authId string) bool {
				return (left(record, authId) == right(record, authId)) == equal
			}
		case []fexpr.ExprGroup:
			one = compileRule(collection, item)
		case fexpr.ExprGroup:
			one = compileRule(collection, []fexpr.ExprGroup{item})
		}
		if one == nil {
			return nil
		}
		if i > 0 && group.Join == fexpr.JoinAnd { // which binds closer, as in SQL
			before := any[len(any)-1]
			any[len(any)-1] = func(record *core.Record, authId string) bool {
				return before(record, authId) && one(record, authId)
			}
		} else {
			any = append(any, one)
		}
	}
	return func(record *core.Record, authId string) bool {
		for _, alternative := range any {
			if alternative(record, authId) {
				return true
			}
		}
		return false
	}
}

func compileOperand(collection *core.Collection, token fexpr.Token) func(record *core.Record, authId string) string {
	switch token.Type {
	case fexpr.TokenText:
		return func(*core.Record, string) string { return token.Literal }
	case fexpr.TokenIdentifier:
		if token.Literal == "@request.auth.id" {
			return func(_ *core.Record, authId string) string { return authId }
		}
		if _, ok := collection.Fields.GetByName(token.Literal).(*core.TextField); ok {
			return func(record *core.Record, _ string) string { return record.GetString(token.Literal) }
		}
	}
	return nil
}

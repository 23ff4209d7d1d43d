package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
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
	maxQueued    = 1000             // messages of others that wait for one subscriber
	maxChanges   = 10000            // changes that wait to be published, or to be sent
	maxLogSize   = 32 << 20         // bytes of those that wait to be sent
	writeTimeout = 10 * time.Second // for a subscriber that stopped reading
	maxHookTime  = time.Second      // of the app's after-success hooks, before others go first
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

// A broadcaster sends changes of aiContent to those subscribers that PocketBase would
// send them to, but from a goroutine of its own, in the order of the commits, with one
// encoding for all and one rule check for each viewer. PocketBase does that inside the
// save, for each subscriber anew.
//
// It takes over subscriptions of aiContent without options ("aiContent/*",
// "aiContent/ID"). The others, and all if the app has OnRecordEnrich hooks, which may
// give every viewer another record, stay with PocketBase: see [subscriber.Subscriptions].
//
// A change waits in changes for its turn, is then published at the end of log, and stays
// there until every subscriber has sent it. A subscriber has no queue of changes, only
// its position in that log, so that one who lags costs nothing of its own.
type broadcaster struct {
	app    core.App
	enrich *hook.TaggedHook[*core.RecordEnrichEvent]

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	changes     []*change // in the order of the commits
	draining    bool
	reserved    map[*core.Record]*change // by the record whose after-success hooks still run
	deleting    map[*core.Record]*change // by the record that is being deleted

	log       []*change
	logStart  int64     // position of log[0]
	logSize   int       // bytes
	published time.Time // the newest of log

	rounding   bool
	roundBegan time.Time // the last one
	roundEnd   int64     // position up to which it went
	burst      bool      // it had much to bring

	rest    *subscriptions.Broker // see narrow; nil if it is to be made anew
	foreign bool                  // the app has had clients of its own

	rules ruleCache
}

// A change is one create, update or delete of a record.
type change struct {
	action  string
	record  *core.Record // as it was then; nil while its place is only reserved
	expires time.Time    // of the reservation
	dropped bool         // the place was given up, or taken away

	// Set when it is published, save for a delete's access.
	list, view access
	allowed    map[string]bool // by rule and viewer, where the database was asked

	data      []byte
	superuser func() []byte // the same with hidden fields
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

// A narrowedApp has a broker of only those clients that PocketBase's broadcast is for.
type narrowedApp struct {
	core.App
	broker *subscriptions.Broker
}

func (a narrowedApp) SubscriptionsBroker() *subscriptions.Broker { return a.broker }

// narrow is bound right before PocketBase's broadcast, which asks each client six times
// what it subscribes to: a thousand of ours cost half a millisecond for each record.
// saved, right behind that broadcast, gives the event its app back.
func (b *broadcaster) narrow(e *core.ModelEvent) error {
	b.mu.Lock()
	narrow := len(b.subscribers) > 0 && !b.foreign && b.takesOver()
	if narrow && b.rest == nil {
		b.rest = subscriptions.NewBroker()
		for _, client := range b.app.SubscriptionsBroker().Clients() {
			if s, ok := client.(*subscriber); !ok || !s.plain.Load() {
				b.rest.Register(client)
			}
		}
	}
	if narrow {
		e.App = narrowedApp{e.App, b.rest}
	}
	b.mu.Unlock()
	return e.Next()
}

// saved is bound where PocketBase broadcasts: behind the app's own after-success hooks.
func (b *broadcaster) saved(action string) func(e *core.ModelEvent) error {
	return func(e *core.ModelEvent) error {
		if narrowed, ok := e.App.(narrowedApp); ok {
			e.App = narrowed.App
		}
		record := b.recordOf(e)
		if record == nil {
			return e.Next()
		}
		saved := &change{action: action, record: record.Fresh()}
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
		c := &change{action: "delete", record: record.Fresh()}
		b.check(c)
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

// drain publishes what waits until nothing does.
func (b *broadcaster) drain() {
	for c := b.next(); c != nil; c = b.next() {
		err := routine.SafeWrap(func() error { return b.publish(c) })()
		if err != nil {
			b.app.Logger().Error("Failed to broadcast a record", "error", err, "id", c.record.Id)
		}
	}
}

func (b *broadcaster) all() []*subscriber {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.subscribers))
}

// publish encodes the change, finds out who may see it, and has it sent.
func (b *broadcaster) publish(c *change) (err error) {
	if c.data, err = c.encode(c.record); err != nil {
		return err
	}
	c.superuser = sync.OnceValue(func() []byte {
		record := c.record.Fresh()
		record.Unhide(record.Collection().Fields.FieldNames()...)
		data, _ := c.encode(record) // nothing is sent of what cannot be encoded
		return data
	})
	if c.allowed == nil { // a deleted record was checked before
		b.check(c)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, c)
	b.published = time.Now()
	b.logSize += len(c.data)
	if len(b.log) > maxChanges || b.logSize > maxLogSize {
		b.trim(true)
	}
	if !b.rounding {
		b.rounding = true
		go b.rounds()
	}
	return nil
}

func (c *change) encode(record *core.Record) ([]byte, error) {
	return json.Marshal(struct {
		Record *core.Record `json:"record"`
		Action string       `json:"action"`
	}{record, c.action})
}

// An access is a rule for all viewers. evaluate is nil if the database is to be asked.
type access struct {
	rule     *string
	evaluate rule
}

// check finds out who may see the change. It asks the database, where it has to, once
// for each viewer and rule, and now: later, the record may be another.
func (b *broadcaster) check(c *change) {
	collection := c.record.Collection()
	c.list = b.rules.find(collection, collection.ListRule)
	c.view = b.rules.find(collection, collection.ViewRule)
	c.allowed = map[string]bool{}
	if !c.list.asks() && !c.view.asks() {
		return
	}
	for _, s := range b.all() {
		auth := s.auth()
		if auth != nil && auth.IsSuperuser() {
			continue
		}
		for _, t := range *s.topics.Load() {
			access, ok := t.access(c)
			if !ok || !access.asks() {
				continue
			}
			key := viewerKey(access, auth)
			if _, checked := c.allowed[key]; checked {
				continue
			}
			c.allowed[key], _ = b.app.CanAccessRecord(c.record, &core.RequestInfo{
				Context: core.RequestInfoContextRealtime, Method: http.MethodGet,
				Query: map[string]string{}, Headers: map[string]string{}, Auth: auth,
			}, access.rule)
		}
	}
}

func (a access) asks() bool { return a.rule != nil && *a.rule != "" && a.evaluate == nil }

func viewerKey(a access, auth *core.Record) string {
	if auth == nil {
		return *a.rule
	}
	return *a.rule + "\x00" + auth.Collection().Id + "/" + auth.Id
}

// allows is PocketBase's CanAccessRecord, with the database asked before, and not at
// all for a rule that is a plain comparison of texts, as the shipped one is.
func (c *change) allows(auth *core.Record, a access) bool {
	switch {
	case a.rule == nil:
		return false
	case *a.rule == "":
		return true
	case a.evaluate == nil:
		return c.allowed[viewerKey(a, auth)]
	case auth == nil:
		return a.evaluate(c.record, "")
	}
	return a.evaluate(c.record, auth.Id)
}

// end returns the position after the newest change. The lock is held.
func (b *broadcaster) end() int64 { return b.logStart + int64(len(b.log)) }

// trim forgets the changes that every subscriber has sent. If it must make room, it
// disconnects those who hold back the older half. The lock is held.
func (b *broadcaster) trim(makeRoom bool) {
	keep := b.end()
	for s := range b.subscribers {
		keep = min(keep, s.position.Load())
	}
	if room := b.logStart + int64(len(b.log)+1)/2; makeRoom && keep < room {
		keep = room
		for s := range b.subscribers {
			if s.position.Load() < keep {
				go s.Discard()
			}
		}
	}
	drop := keep - b.logStart
	if drop == 0 {
		return
	}
	for _, c := range b.log[:drop] {
		b.logSize -= len(c.data)
	}
	b.logStart = keep
	b.log = append([]*change(nil), b.log[drop:]...) // a flush may still read the old one
}

// rounds wakes the subscribers, round by round, until all have sent everything.
func (b *broadcaster) rounds() {
	for {
		b.mu.Lock()
		b.trim(false)
		began, end := time.Now(), b.end()
		b.burst = began.Sub(b.roundBegan) < time.Duration(end-b.roundEnd)*burstSpacing
		b.roundBegan, b.roundEnd = began, end
		b.rounding = len(b.log) > 0
		done := !b.rounding
		interval := max(roundInterval, time.Duration(len(b.subscribers))*roundIntervalPerSubscriber)
		b.mu.Unlock()
		if done {
			return
		}
		b.round(end)
		time.Sleep(interval - time.Since(began))
	}
}

// round wakes every subscriber that has not sent everything before end.
func (b *broadcaster) round(end int64) {
	behind := slices.DeleteFunc(b.all(), func(s *subscriber) bool {
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
		if !b.inBurst() {
			continue
		}
		took := time.Duration(0)
		for slices.ContainsFunc(step, func(s *subscriber) bool { return s.writing.Load() }) && took < maxStep {
			time.Sleep(100 * time.Microsecond)
			took = time.Since(began)
		}
		for b.inBurst() && time.Since(began) < stepShare*took {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

func (b *broadcaster) inBurst() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.burst && time.Since(b.published) < burstPause
}

// after returns what was published from a position on, and false if some of that is
// forgotten.
func (b *broadcaster) after(position int64) ([]*change, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if position < b.logStart {
		return nil, false
	}
	return b.log[position-b.logStart:], true
}

// A subscriber is a realtime client. Its connection is written to by the goroutine
// that serves it, so that messages keep their order and nobody else waits.
type subscriber struct {
	*subscriptions.DefaultClient
	broadcaster *broadcaster
	topics      atomic.Pointer[[]topic] // those without options, of aiContent
	plain       atomic.Bool             // it has no others
	position    atomic.Int64            // in the log, of what it has not sent
	writing     atomic.Bool             // it was woken by a round, and is not done yet

	ready chan struct{} // there may be something to do
	mu    sync.Mutex
	queue []subscriptions.Message // those that PocketBase and the app send

	deadlineSet time.Time // of the connection's writes
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *subscriber) auth() *core.Record {
	auth, _ := s.Get(apis.RealtimeClientAuthKey).(*core.Record)
	return auth
}

// serve runs a realtime connection as PocketBase does, save that the messages which
// wait together are flushed together, and that a subscriber who stopped reading is cut.
func (b *broadcaster) serve(e *core.RealtimeConnectRequestEvent) error {
	client, ok := e.Client.(*subscriptions.DefaultClient)
	if !ok { // the app has a client of its own
		b.mu.Lock()
		b.foreign = true
		b.mu.Unlock()
		return e.Next()
	}
	s := &subscriber{DefaultClient: client, broadcaster: b, ready: make(chan struct{}, 1)}
	s.topics.Store(&[]topic{})
	e.Client = s

	broker := e.App.SubscriptionsBroker()
	broker.Register(s)
	defer broker.Unregister(s.Id())
	s.Send(subscriptions.Message{Name: "PB_CONNECT", Data: []byte(`{"clientId":"` + s.Id() + `"}`)})
	e.App.Logger().Debug("Realtime connection established", slog.String("clientId", s.Id()))

	ctx := e.Request.Context()
	defer context.AfterFunc(ctx, s.wake)()
	opened := time.Now()
	flushed := opened
	expires := func() time.Duration {
		return min(e.MaxTimeout-time.Since(opened), e.IdleTimeout-time.Since(flushed))
	}
	var expiring atomic.Bool
	expiry := time.AfterFunc(expires(), func() {
		expiring.Store(true)
		s.wake()
	})
	defer expiry.Stop()
	for range s.ready {
		if ctx.Err() != nil || s.IsDiscarded() {
			return nil
		}
		if expiring.Swap(false) {
			left := expires()
			if left <= 0 {
				return nil
			}
			expiry.Reset(left)
		}
		wrote, err := s.flush(e)
		if err != nil {
			e.App.Logger().Debug("Realtime connection closed (failed to send)", slog.String("clientId", s.Id()), slog.String("error", err.Error()))
			return nil
		}
		if wrote {
			flushed = time.Now()
		}
	}
	return nil
}

// flush writes what waits, or a part of it, and reports whether there was anything.
func (s *subscriber) flush(e *core.RealtimeConnectRequestEvent) (bool, error) {
	defer s.writing.Store(false)
	s.mu.Lock()
	messages := s.queue
	s.queue = nil
	s.mu.Unlock()
	messages, ok := s.collect(messages)
	if !ok {
		return false, errors.New("it has fallen too far behind")
	}
	if len(messages) == 0 {
		return false, nil
	}

	if now := time.Now(); now.Sub(s.deadlineSet) > writeTimeout/5 { // not for each: that costs
		s.deadlineSet = now
		err := http.NewResponseController(e.Response).SetWriteDeadline(now.Add(writeTimeout))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false, err
		}
	}
	return true, s.write(e, messages)
}

// collect adds to the messages those of the changes that were published since, up to
// a size. It returns false if some are forgotten.
func (s *subscriber) collect(messages []subscriptions.Message) ([]subscriptions.Message, bool) {
	topics := *s.topics.Load()
	if len(topics) == 0 {
		return messages, true
	}
	position := s.position.Load()
	changes, ok := s.broadcaster.after(position)
	if !ok {
		return nil, false
	}
	auth := s.auth()
	superuser := auth != nil && auth.IsSuperuser()
	size := 0
	for _, c := range changes {
		if size > maxFlush {
			if !s.broadcaster.inBurst() {
				s.wake() // else the next round does
			}
			break
		}
		position++
		for _, t := range topics {
			access, ok := t.access(c)
			if !ok || !superuser && !c.allows(auth, access) {
				continue
			}
			data := c.data
			if superuser {
				data = c.superuser()
			}
			if len(data) == 0 {
				continue
			}
			messages = append(messages, subscriptions.Message{Name: t.name, Data: data})
			size += len(data)
		}
	}
	s.position.Store(position)
	return messages, true
}

// write sends the messages through the app's hooks, or all in one write if there are
// none: a large one goes past the small buffers of net/http.
func (s *subscriber) write(e *core.RealtimeConnectRequestEvent, messages []subscriptions.Message) error {
	if sends := e.App.OnRealtimeMessageSend(); sends.Length() > 0 {
		for i := range messages {
			event := &core.RealtimeMessageEvent{RequestEvent: e.RequestEvent, Client: s, Message: &messages[i]}
			err := sends.Trigger(event, func(event *core.RealtimeMessageEvent) error {
				return event.Message.WriteSSE(event.Response, event.Client.Id())
			})
			if err != nil {
				return err
			}
		}
		return e.Flush()
	}

	size := 0
	for _, m := range messages {
		size += len("id:\nevent:\ndata:\n\n") + len(s.Id()) + len(m.Name) + len(m.Data)
	}
	buffer := flushBuffers.Get().(*[]byte)
	b := slices.Grow((*buffer)[:0], size)
	for _, m := range messages { // as Message.WriteSSE has it
		b = append(append(append(b, "id:"...), s.Id()...), '\n')
		b = append(append(append(b, "event:"...), m.Name...), '\n')
		b = append(append(append(b, "data:"...), m.Data...), "\n\n"...)
	}
	_, err := e.Response.Write(b)
	if cap(b) <= 2*maxFlush { // a larger one is not kept
		*buffer = b
		flushBuffers.Put(buffer)
	}
	if err != nil {
		return err
	}
	return e.Flush()
}

var flushBuffers = sync.Pool{New: func() any { return new([]byte) }}

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
	s.wake()
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
	s.broadcaster.rest = nil
	s.broadcaster.mu.Unlock()
	s.wake()
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

	b := s.broadcaster
	b.mu.Lock()
	defer b.mu.Unlock()
	_, before := b.subscribers[s]
	switch {
	case len(topics) == 0 || s.IsDiscarded():
		delete(b.subscribers, s)
	case !before:
		s.position.Store(b.end())
		b.subscribers[s] = struct{}{}
	}
	s.topics.Store(&topics)
	s.plain.Store(len(topics) == len(subscriptions))
	b.rest = nil
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

// A rule tells whether the viewer of an auth id, empty for a guest, may see a record.
type rule func(record *core.Record, authId string) bool

// A ruleCache keeps the rules of the collection as it is now.
type ruleCache struct {
	mu    sync.Mutex
	rules map[string]rule
	of    *core.Collection
}

// find returns the access that a rule gives.
func (r *ruleCache) find(collection *core.Collection, text *string) access {
	if text == nil || *text == "" {
		return access{rule: text}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != collection {
		r.of, r.rules = collection, map[string]rule{}
	}
	compiled, ok := r.rules[*text]
	if !ok {
		if groups, err := fexpr.Parse(*text); err == nil {
			compiled = compileRule(collection, groups)
		}
		r.rules[*text] = compiled
	}
	return access{text, compiled}
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

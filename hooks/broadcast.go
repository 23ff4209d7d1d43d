package hooks

import (
	"context"
	"database/sql"
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
	"github.com/pocketbase/dbx"
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
	maxViews     = 100              // of one subscriber that apply to what it has not sent
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
// Who may see a change is decided where PocketBase decides it: behind the app's
// after-success hooks, or right before a delete. At that moment the record is copied,
// what the rules compare is read from the committed row, and what cannot be compiled is
// asked of the database. All that comes later, however late, goes by that, and by whom
// each subscriber was then and what it asked for: see [view].
//
// A change waits in changes for its turn, is then published at the end of log, and stays
// there until every subscriber has sent it. A subscriber has no queue of changes, only
// its position in that log, so that one who lags costs nothing of its own.
type broadcaster struct {
	app    core.App
	enrich *hook.TaggedHook[*core.RecordEnrichEvent]

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	moment      int64     // counts what was decided
	changes     []*change // in the order of the commits
	draining    bool
	reserved    map[*core.Record]*change // by the record whose after-success hooks still run
	deleting    map[*core.Record]*change // by the record that is being deleted
	open        map[*change]struct{}     // those that are decided and not in changes yet

	log       []*change
	logStart  int64     // position of log[0]
	logSize   int       // bytes
	published time.Time // the newest of log

	rounding   bool
	roundBegan time.Time // the last one
	roundEnd   int64     // position up to which it went
	burst      bool      // it had much to bring
	throttled  int       // rounds that were made in steps

	rest *restBroker // see narrow; nil if it is to be made anew

	rules ruleCache
}

// A change is one create, update or delete of a record.
type change struct {
	action  string
	batch   *batchPlaces // of a place that was reserved
	dropped bool         // the place was given up, or taken away

	// Set at the moment when it is decided who may see it.
	moment     int64
	record     *core.Record // a copy; nil while the place is only reserved
	row        row          // what the rules compare, as committed
	list, view access
	allowed    map[string]bool // by question, where the database was asked

	// Set when it is published.
	data      []byte
	superuser func() []byte // the same with hidden fields
}

// A row is the text fields of a committed row that compiled rules compare, by name.
type row map[string]string

// A batchPlaces is the places of the records that were committed together, whose
// after-success hooks run one after the other.
type batchPlaces struct {
	places   []*change
	progress time.Time // when the last of those hooks began or ended
}

func newBroadcaster(app core.App) *broadcaster {
	return &broadcaster{
		app:         app,
		enrich:      app.OnRecordEnrich(),
		subscribers: map[*subscriber]struct{}{},
		reserved:    map[*core.Record]*change{},
		deleting:    map[*core.Record]*change{},
		open:        map[*change]struct{}{},
	}
}

// takesOver reports whether subscriptions without options are served here.
func (b *broadcaster) takesOver() bool { return b.enrich.Length() == 0 }

// reserve keeps the places of records that were committed together, in the order of the
// commits, while the app's own after-success hooks run, which decide whether each is
// broadcast at all.
func (b *broadcaster) reserve(records []*core.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.subscribers) == 0 || !b.takesOver() {
		return
	}
	batch := &batchPlaces{progress: time.Now()}
	for _, record := range records {
		c := &change{batch: batch}
		b.reserved[record] = c
		batch.places = append(batch.places, c)
		b.append(c)
	}
}

// begin notes that the record's after-success hooks begin.
func (b *broadcaster) begin(record *core.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.reserved[record]; c != nil {
		c.batch.progress = time.Now()
	}
}

// drop gives the places up of those records whose hooks have ended without a broadcast.
func (b *broadcaster) drop(records []*core.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, record := range records {
		if c := b.reserved[record]; c != nil {
			delete(b.reserved, record)
			c.dropped = true
		}
	}
	b.wake()
}

// broadcast is bound right before PocketBase's own broadcast, behind the app's
// after-success hooks.
func (b *broadcaster) broadcast(action string) func(e *core.ModelEvent) error {
	return func(e *core.ModelEvent) error {
		record := b.recordOf(e)
		if record == nil {
			return e.Next()
		}
		c := b.decide(e.App, action, record)
		b.mu.Lock()
		place := b.reserved[record]
		delete(b.reserved, record)
		if place != nil {
			place.batch.progress = time.Now()
		}
		switch {
		case place == nil || place.dropped: // another writer's, or its hooks took too long
			if c != nil {
				b.append(c)
			}
		case c == nil:
			place.dropped = true
		default:
			delete(b.open, c)
			*place = *c
		}
		b.wake()
		e.App = b.narrow(e.App)
		b.mu.Unlock()
		return e.Next()
	}
}

// A narrowedApp has a broker of only those clients that PocketBase's broadcast is for.
type narrowedApp struct {
	core.App
	broker *subscriptions.Broker
}

func (a narrowedApp) SubscriptionsBroker() *subscriptions.Broker { return a.broker }

// A restBroker has the clients that are not ours alone, as they were found in a broker
// with so many clients.
type restBroker struct {
	broker *subscriptions.Broker
	total  int
}

// narrow gives PocketBase's broadcast, which asks each client six times what it
// subscribes to, an app without those that it is not for: a thousand of ours cost half a
// millisecond for each record. The lock is held.
func (b *broadcaster) narrow(app core.App) core.App {
	all := b.app.SubscriptionsBroker()
	if b.rest == nil || !b.rest.isOf(all) {
		b.rest = &restBroker{broker: subscriptions.NewBroker(), total: all.TotalClients()}
		for _, client := range all.Clients() {
			if client.IsDiscarded() { // it leaves right now, and another could take its number
				b.rest.total = -1
			}
			if s, ok := client.(*subscriber); !ok || !s.plain.Load() {
				b.rest.broker.Register(client)
			}
		}
	}
	return narrowedApp{app, b.rest.broker}
}

// isOf reports whether nobody came to the broker or left it since, whoever registered
// them: a client of the app's own is not announced to us.
func (r *restBroker) isOf(all *subscriptions.Broker) bool {
	if all.TotalClients() != r.total {
		return false
	}
	for id, client := range r.broker.Clients() {
		if now, err := all.ClientById(id); err != nil || now != client {
			return false
		}
	}
	return true
}

// widen is bound right behind PocketBase's broadcast, and gives the event its app back.
func (b *broadcaster) widen(e *core.ModelEvent) error {
	if narrowed, ok := e.App.(narrowedApp); ok {
		e.App = narrowed.App
	}
	return e.Next()
}

// deletes decides who hears of a delete while the record is there, outside of the
// transaction that deletes it, as PocketBase does.
func (b *broadcaster) deletes(e *core.ModelEvent) error {
	if record := b.recordOf(e); record != nil {
		if c := b.decide(b.app, "delete", record); c != nil {
			b.mu.Lock()
			b.deleting[record] = c
			b.mu.Unlock()
		}
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
	delete(b.open, c)
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
	delete(b.open, c)
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
			if left := time.Until(c.batch.progress.Add(maxHookTime)); left > 0 {
				time.AfterFunc(left, func() {
					b.mu.Lock()
					defer b.mu.Unlock()
					b.wake()
				})
				b.draining = false
				return nil
			}
			for _, place := range c.batch.places { // they all wait for the one hook
				place.dropped = place.dropped || place.record == nil
			}
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

// publish encodes the change and has it sent.
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
	fields   []string // that evaluate reads
}

// decide copies the record and finds out who may see the change, as the database has it
// now. It returns nil if there is no such row: nobody is told of what nobody can read.
// Until the change is appended it stands in open, so that the views of its moment are kept.
func (b *broadcaster) decide(app core.App, action string, record *core.Record) *change {
	collection := record.Collection()
	c := &change{action: action, record: record.Fresh()}
	c.list = b.rules.find(collection, collection.ListRule)
	c.view = b.rules.find(collection, collection.ViewRule)

	b.mu.Lock()
	b.moment++
	c.moment = b.moment
	b.open[c] = struct{}{}
	questions := b.questions(c)
	b.mu.Unlock()

	var err error
	if c.row, err = readRow(app, collection, record.Id, append(c.list.fields, c.view.fields...)); err != nil {
		if !errors.Is(err, sql.ErrNoRows) {
			app.Logger().Error("Failed to read a record that is to be broadcast", "error", err, "id", record.Id)
		}
		b.mu.Lock()
		delete(b.open, c)
		b.mu.Unlock()
		return nil
	}
	c.allowed = make(map[string]bool, len(questions))
	for key, q := range questions {
		c.allowed[key], _ = app.CanAccessRecord(c.record, &core.RequestInfo{
			Context: core.RequestInfoContextRealtime, Method: http.MethodGet,
			Query: map[string]string{}, Headers: map[string]string{}, Auth: q.auth,
		}, q.rule)
	}
	return c
}

// A question is one that the database has to answer.
type question struct {
	rule *string
	auth *core.Record
}

// questions returns those that the subscribers of now raise about the change, each once.
// The lock is held.
func (b *broadcaster) questions(c *change) map[string]question {
	if !c.list.asks() && !c.view.asks() {
		return nil
	}
	asked := map[string]question{}
	for s := range b.subscribers {
		v := s.views[len(s.views)-1]
		if v.superuser {
			continue
		}
		for _, t := range v.topics {
			if a, ok := t.access(c); ok && a.asks() {
				asked[a.question(v)] = question{a.rule, v.auth}
			}
		}
	}
	return asked
}

func (a access) asks() bool { return a.rule != nil && *a.rule != "" && a.evaluate == nil }

// question names what the database is asked: the same for all viewers if the rule does
// not look at them.
func (a access) question(v view) string {
	if !strings.Contains(*a.rule, "@request.auth") {
		return *a.rule
	}
	return *a.rule + "\x00" + v.key
}

// allows is what PocketBase's CanAccessRecord would have said at the change's moment,
// for a viewer of that moment.
func (c *change) allows(v view, a access) bool {
	switch {
	case v.superuser:
		return true
	case a.rule == nil:
		return false
	case *a.rule == "":
		return true
	case a.evaluate == nil:
		return c.allowed[a.question(v)]
	}
	return a.evaluate(c.row, v.authId)
}

// readRow reads text fields of the committed row.
func readRow(app core.App, collection *core.Collection, id string, fields []string) (row, error) {
	var columns dbx.NullStringMap
	err := app.ConcurrentDB().Select(append([]string{"id"}, fields...)...).From(collection.Name).
		Where(dbx.HashExp{"id": id}).One(&columns)
	if err != nil {
		return nil, err
	}
	r := make(row, len(fields))
	for _, field := range fields {
		r[field] = columns[field].String
	}
	return r, nil
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
		if len(b.log) == 0 { // which is no round: the next change is not measured from here
			b.rounding = false
			b.mu.Unlock()
			return
		}
		began, end := time.Now(), b.end()
		fresh := end - b.roundEnd
		b.burst = fresh > 1 && began.Sub(b.roundBegan) < time.Duration(fresh)*burstSpacing
		if b.burst {
			b.throttled++
		}
		b.roundBegan, b.roundEnd = began, end
		interval := max(roundInterval, time.Duration(len(b.subscribers))*roundIntervalPerSubscriber)
		b.mu.Unlock()
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

// unsent returns what was published and the subscriber has not sent, with its views, and
// false if some of that is forgotten.
func (b *broadcaster) unsent(s *subscriber) ([]*change, []view, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, watches := b.subscribers[s]; !watches {
		return nil, nil, true
	}
	position := s.position.Load()
	if position < b.logStart {
		return nil, nil, false
	}
	return b.log[position-b.logStart:], s.views, true
}

// sent moves the subscriber on.
func (b *broadcaster) sent(s *subscriber, position int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.position.Store(position)
	if len(s.views) > 1 {
		b.forgetViews(s)
	}
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

	// The last one, and those before it that apply to changes it has not sent. Guarded by
	// the broadcaster's lock, and replaced, never altered.
	views []view

	ready chan struct{} // there may be something to do
	mu    sync.Mutex
	queue []subscriptions.Message // those that PocketBase and the app send
}

// A view is who a subscriber was and what it asked for, from a moment on: an event that
// was decided before its owner signed in, or before a topic was left, goes by that.
type view struct {
	from      int64
	topics    []topic
	auth      *core.Record // nil for a guest
	authId    string
	superuser bool
	key       string // of the viewer, in questions
}

// viewNow is the view of the moment. The broadcaster's lock is held.
func (s *subscriber) viewNow() view {
	v := view{from: s.broadcaster.moment + 1, topics: *s.topics.Load()}
	if v.auth, _ = s.Get(apis.RealtimeClientAuthKey).(*core.Record); v.auth != nil {
		v.authId, v.superuser = v.auth.Id, v.auth.IsSuperuser()
		v.key = v.auth.Collection().Id + "/" + v.auth.Id
	}
	return v
}

// at returns the view that applies to a moment, or nil.
func at(views []view, moment int64) *view {
	for i := len(views) - 1; i >= 0; i-- {
		if views[i].from <= moment {
			return &views[i]
		}
	}
	return nil
}

// forgetViews forgets those that apply to nothing that is still to be sent, and the
// subscriber if it has asked for nothing more. The lock is held.
func (b *broadcaster) forgetViews(s *subscriber) {
	oldest := b.moment + 1
	consider := func(c *change) {
		if c.record != nil {
			oldest = min(oldest, c.moment)
		}
	}
	for c := range b.open {
		consider(c)
	}
	for _, c := range b.changes {
		consider(c)
	}
	for _, c := range b.log[max(0, s.position.Load()-b.logStart):] {
		consider(c)
	}
	for len(s.views) > 1 && s.views[1].from <= oldest {
		s.views = s.views[1:]
	}
	if len(s.views) == 1 && len(s.views[0].topics) == 0 {
		delete(b.subscribers, s)
	}
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// serve runs a realtime connection as PocketBase does, save that the messages which
// wait together are flushed together, and that a subscriber who stopped reading is cut.
func (b *broadcaster) serve(e *core.RealtimeConnectRequestEvent) error {
	client, ok := e.Client.(*subscriptions.DefaultClient)
	if !ok { // the app has a client of its own
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

	// Over HTTP/2 a deadline that passes ends the stream, idle or not: it is for this
	// write only.
	connection := http.NewResponseController(e.Response)
	if err := connection.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false, err
	}
	if err := s.write(e, messages); err != nil {
		return true, err
	}
	_ = connection.SetWriteDeadline(time.Time{}) // fails as above, or with the next write
	return true, nil
}

// collect adds to the messages those of the changes that were published since, up to
// a size. It returns false if some are forgotten.
func (s *subscriber) collect(messages []subscriptions.Message) ([]subscriptions.Message, bool) {
	changes, views, ok := s.broadcaster.unsent(s)
	if !ok || len(changes) == 0 {
		return messages, ok
	}
	position := s.position.Load()
	size := 0
	for _, c := range changes {
		if size > maxFlush {
			if !s.broadcaster.inBurst() {
				s.wake() // else the next round does
			}
			break
		}
		position++
		v := at(views, c.moment)
		if v == nil {
			continue
		}
		for _, t := range v.topics {
			access, ok := t.access(c)
			if !ok || !c.allows(*v, access) {
				continue
			}
			data := c.data
			if v.superuser {
				data = c.superuser()
			}
			if len(data) == 0 {
				continue
			}
			messages = append(messages, subscriptions.Message{Name: t.name, Data: data})
			size += len(data)
		}
	}
	s.broadcaster.sent(s, position)
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
	s.look()
}

func (s *subscriber) Unsubscribe(names ...string) {
	s.DefaultClient.Unsubscribe(names...)
	s.look()
}

func (s *subscriber) Set(key string, value any) {
	s.DefaultClient.Set(key, value)
	if key == apis.RealtimeClientAuthKey {
		s.look()
	}
}

func (s *subscriber) Unset(key string) {
	s.DefaultClient.Unset(key)
	if key == apis.RealtimeClientAuthKey {
		s.look()
	}
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

// look finds out who the subscriber is now and which of its subscriptions the
// broadcaster serves, and has that apply to what is decided from now on.
func (s *subscriber) look() {
	b := s.broadcaster
	b.mu.Lock()
	defer b.mu.Unlock()
	all := s.DefaultClient.Subscriptions()
	topics := b.ownTopics(all)
	s.topics.Store(&topics)
	s.plain.Store(len(topics) == len(all))
	b.rest = nil
	_, watches := b.subscribers[s]
	switch {
	case s.IsDiscarded():
		return
	case watches:
		if last := len(s.views) - 1; s.views[last].from > b.moment {
			s.views = s.views[:last:last] // nothing was decided under it
		}
	case len(topics) == 0:
		return
	default:
		b.subscribers[s] = struct{}{}
		s.position.Store(b.end())
		s.views = nil
	}
	s.views = append(s.views, s.viewNow())
	b.forgetViews(s)
	if len(s.views) > maxViews {
		go s.Discard()
	}
}

// ownTopics returns the subscriptions that the broadcaster serves: those of aiContent
// without options.
func (b *broadcaster) ownTopics(all map[string]subscriptions.SubscriptionOptions) []topic {
	topics := []topic{}
	names := []string{contentCollection}
	if collection, err := b.app.FindCachedCollectionByNameOrId(contentCollection); err == nil {
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

// A rule tells whether the viewer of an auth id, empty for a guest, may see a row.
type rule func(r row, authId string) bool

// A ruleCache keeps the rules of the collection as it is now.
type ruleCache struct {
	mu    sync.Mutex
	rules map[string]access
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
		r.of, r.rules = collection, map[string]access{}
	}
	found, ok := r.rules[*text]
	if !ok {
		found = access{rule: text}
		if groups, err := fexpr.Parse(*text); err == nil {
			compiler := ruleCompiler{collection: collection}
			if found.evaluate = compiler.rule(groups); found.evaluate != nil {
				found.fields = slices.Clip(compiler.fields)
			}
		}
		r.rules[*text] = found
	}
	return found
}

// A ruleCompiler notes the fields of the collection that a rule compares.
type ruleCompiler struct {
	collection *core.Collection
	fields     []string
}

// rule compiles a rule that consists of nothing but = and != between the record's
// text fields, @request.auth.id and literals, for which the database need not be asked:
// both compare byte by byte. It returns nil for any other rule.
func (c *ruleCompiler) rule(groups []fexpr.ExprGroup) rule {
	var alternatives []rule // each of which is one or more that must all hold
	for i, group := range groups {
		var one rule
		switch item := group.Item.(type) {
		case fexpr.Expr:
			left, right := c.operand(item.Left), c.operand(item.Right)
			if left == nil || right == nil || item.Op != fexpr.SignEq && item.Op != fexpr.SignNeq {
				return nil
			}
			equal := item.Op == fexpr.SignEq
			one = func(r row, authId string) bool {
				return (left(r, authId) == right(r, authId)) == equal
			}
		case []fexpr.ExprGroup:
			one = c.rule(item)
		case fexpr.ExprGroup:
			one = c.rule([]fexpr.ExprGroup{item})
		}
		if one == nil {
			return nil
		}
		if i > 0 && group.Join == fexpr.JoinAnd { // which binds closer, as in SQL
			before := alternatives[len(alternatives)-1]
			alternatives[len(alternatives)-1] = func(r row, authId string) bool {
				return before(r, authId) && one(r, authId)
			}
		} else {
			alternatives = append(alternatives, one)
		}
	}
	return func(r row, authId string) bool {
		for _, alternative := range alternatives {
			if alternative(r, authId) {
				return true
			}
		}
		return false
	}
}

func (c *ruleCompiler) operand(token fexpr.Token) func(r row, authId string) string {
	switch token.Type {
	case fexpr.TokenText:
		return func(row, string) string { return token.Literal }
	case fexpr.TokenIdentifier:
		if token.Literal == "@request.auth.id" {
			return func(_ row, authId string) string { return authId }
		}
		if _, ok := c.collection.Fields.GetByName(token.Literal).(*core.TextField); ok {
			if !slices.Contains(c.fields, token.Literal) {
				c.fields = append(c.fields, token.Literal)
			}
			return func(r row, _ string) string { return r[token.Literal] }
		}
	}
	return nil
}

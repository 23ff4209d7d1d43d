// Package realtime sends the changes of collections to PocketBase's realtime
// subscribers: what PocketBase would send them, but beside the save instead of inside it,
// in the order of the commits, from one encoding and one log for all.
//
// A change's way: order.go gives it its place among the commits, decide.go copies the
// record and finds out who may see it (rule.go compiles rules and filters, row.go reads
// what they compare), index.go finds whom it can concern, log.go keeps it until they have
// it, and subscriber.go writes it to a connection. What a subscription is stands in
// topic.go, what it was at a moment in view.go, what its messages tell in live.go, how it
// goes on after a lost connection in resume.go, and when, if all are lost at once, in
// storm.go. What leans on PocketBase's internals is in pocketbase.go.
package realtime

import (
	"maps"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
)

// Bounds of the fan-out. A subscriber that exceeds one is disconnected: its SDK
// connects again and its page fetches again, so that a gap is signalled, never hidden.
const (
	maxQueued    = 1000             // messages of others that wait for one subscriber
	maxChanges   = 10000            // changes that wait to be published, or to be sent
	maxLogSize   = 32 << 20         // bytes of those that wait to be sent
	maxViews     = 100              // of one subscriber that apply to what it has not sent
	writeTimeout = 10 * time.Second // for a subscriber that stopped reading
	aliveEvery   = 25 * time.Second // a stream that expects leave hears something, which also keeps proxies from ending it
	maxHookTime  = time.Second      // of the app's after-success hooks, before others go first
)

// A FanOut sends the changes of its collections to those subscribers that PocketBase would
// send them to. PocketBase does that inside the save, for each subscriber anew.
//
// It takes over subscriptions without options or with a filter ("aiContent/*",
// "aiContent/ID"). The others, and all if the app has OnRecordEnrich hooks, which may give
// every viewer another record, stay with PocketBase.
//
// Who may see a change is decided where PocketBase decides it: behind the app's
// after-success hooks, or right before a delete. At that moment the record is copied,
// what the rules compare is read from the committed row, and what cannot be compiled is
// asked of the database. All that comes later, however late, goes by that, and by who
// each subscriber was then and what it asked for: see [view].
//
// A change waits in changes for its turn, is then published at the end of log, and stays
// there until every subscriber that it can concern has sent it. A subscriber has no queue
// of changes, only its position in that log, so that one who lags costs nothing of its own,
// and one whom a change cannot concern, as it demands another value of a field, nothing at
// all: see [index].
type FanOut struct {
	// Partly are those of the collections that are changed by plain SQL too, of which no hook
	// tells: subscribers cannot know by events alone what they show.
	Partly []string

	// Position, if it is not nil, tells how far the database has come, of several that are kept one.
	// It follows in the ids of events, so that their client can be answered by another node with no less.
	Position func() string

	app         core.App
	collections []string // their names
	enrich      *hook.TaggedHook[*core.RecordEnrichEvent]

	settling sync.Mutex // before mu: see settle

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	byKey       map[string]*subscriber
	away        int       // topics of subscribers without a connection: see depart
	moment      int64     // counts what was decided
	changes     []*change // in the order of the commits
	draining    bool
	timer       *time.Timer              // that wakes those who wait for hooks
	places      map[*core.Record]*change // by the record whose after-success hooks still run
	decided     map[*change]struct{}     // and in neither changes nor log

	underway map[weak.Pointer[core.ModelEvent]]*underway // by PocketBase's event, which is the same before and behind a change
	ofRow    map[[2]any][]*underway                      // the same by rowOf
	begun    int64                                       // counts them

	log       []*change
	behind    map[*subscriber]struct{} // those with a position in it, beside those that hear all
	logStart  int64                    // position of log[0]
	logSize   int                      // bytes
	published time.Time                // the newest of log

	rounding   bool
	roundBegan time.Time // the last one
	roundEnd   int64     // position up to which it went
	burst      bool      // it had much to bring
	throttled  int       // rounds that were made in steps

	// What the views that still apply ask for: see noteView.
	index        index
	demanded     map[equality]int // fields of the index's equalities, without a value
	filterFields map[string]int   // that compiled filters compare, of any collection
	asking       int              // topics whose filter the database is asked
	leaving      int              // topics that are told of what leaves

	others *othersBroker // see withoutOurs; nil if it is to be made anew

	nextTurn time.Time     // of a stream that comes: see turn
	turns    chan struct{} // places for what they ask: see inTurn

	rules ruleCache
	rows  rowReader
}

// New returns a fan-out for the named collections, which does nothing until it is bound.
func New(app core.App, collections ...string) *FanOut {
	return &FanOut{
		app:         app,
		collections: collections,
		enrich:      app.OnRecordEnrich(),
		subscribers: map[*subscriber]struct{}{},
		byKey:       map[string]*subscriber{},
		places:      map[*core.Record]*change{},
		underway:    map[weak.Pointer[core.ModelEvent]]*underway{},
		ofRow:       map[[2]any][]*underway{},
		behind:      map[*subscriber]struct{}{},
		index:       index{},
		demanded:    map[equality]int{}, filterFields: map[string]int{},
		decided: map[*change]struct{}{},
		rules:   ruleCache{of: map[string]collectionRules{}},
		rows:    rowReader{of: map[string]preparedQuery{}},
		turns:   newTurns(),
	}
}

// Bind binds the fan-out to PocketBase. Each binding has an Id, so that binding another
// one replaces it.
func (f *FanOut) Bind() {
	f.app.OnRecordAfterCreateSuccess(f.collections...).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverRealtimeBegin", Func: f.hooksBegin, Priority: -9999, // around the app's own
	})

	for _, undone := range []*hook.TaggedHook[*core.CollectionErrorEvent]{f.app.OnCollectionAfterUpdateError(), f.app.OnCollectionAfterDeleteError()} {
		undone.Bind(&hook.Handler[*core.CollectionErrorEvent]{
			Id: "modelriverRealtime", Func: func(e *core.CollectionErrorEvent) error { return f.renewAll(&e.CollectionEvent) }, Priority: -10000,
		})
	}

	const innermost = 10000 // right around the change of the row
	f.app.OnModelUpdateExecute(f.collections...).Bind(&hook.Handler[*core.ModelEvent]{Id: "modelriverRealtime", Func: f.aroundUpdate, Priority: innermost})
	f.app.OnModelDeleteExecute(f.collections...).Bind(&hook.Handler[*core.ModelEvent]{Id: "modelriverRealtime", Func: f.aroundDelete, Priority: innermost})
	f.bindEvents(f.app)
	f.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "modelriverRealtime",
		Func: func(e *core.ServeEvent) error {
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "modelriverTurns", Func: f.inTurn})
			return e.Next()
		},
	})
	f.app.OnRealtimeConnectRequest().Bind(&hook.Handler[*core.RealtimeConnectRequestEvent]{
		Id: "modelriverRealtime", Func: f.serve, Priority: 9999, // inside the app's own
	})
}

// BindApplied binds the fan-out to an app that has hooks of its own for what another node has written and this one
// applies: one after the other, with nothing between the hooks before and those behind.
func (f *FanOut) BindApplied(applied core.App) {
	applied.OnModelUpdate(f.collections...).Bind(&hook.Handler[*core.ModelEvent]{Id: "modelriverRealtime", Func: f.beforeAppliedUpdate})
	f.bindEvents(applied)
	applied.OnModelDelete(f.collections...).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "modelriverRealtimeBefore", Func: f.beforeAppliedDelete, Priority: 100, // behind beforeDelete
	})
}

// bindEvents binds what is done around PocketBase's own broadcast, which has priority -99,
// and 99 before a delete. It is bound when the app begins to serve, so what is bound here
// runs before it.
func (f *FanOut) bindEvents(app core.App) {
	for action, saved := range map[string]*hook.TaggedHook[*core.ModelEvent]{
		"create": app.OnModelAfterCreateSuccess(f.collections...),
		"update": app.OnModelAfterUpdateSuccess(f.collections...),
	} {
		saved.Bind(&hook.Handler[*core.ModelEvent]{Id: "modelriverRealtime", Func: f.afterSave(action), Priority: -99})
		saved.Bind(&hook.Handler[*core.ModelEvent]{Id: "modelriverRealtimeEnd", Func: f.withEverybody, Priority: -98})
	}
	for _, failed := range []*hook.TaggedHook[*core.ModelErrorEvent]{
		app.OnModelAfterUpdateError(f.collections...), app.OnModelAfterDeleteError(f.collections...),
	} {
		failed.Bind(&hook.Handler[*core.ModelErrorEvent]{Id: "modelriverRealtime", Func: f.afterError, Priority: -10000}) // around the app's own
	}
	app.OnModelDelete(f.collections...).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "modelriverRealtime", Func: f.beforeDelete, Priority: 99,
	})
	app.OnModelAfterDeleteSuccess(f.collections...).Bind(&hook.Handler[*core.ModelEvent]{
		Id: "modelriverRealtime", Func: f.afterDelete, Priority: -98,
	})
	for _, changed := range []*hook.TaggedHook[*core.CollectionEvent]{app.OnCollectionAfterUpdateSuccess(), app.OnCollectionAfterDeleteSuccess()} {
		changed.Bind(&hook.Handler[*core.CollectionEvent]{Id: "modelriverRealtime", Func: f.renewAll, Priority: -10000}) // around the app's own
	}
}

// takesOver reports whether subscriptions without options are served here.
func (f *FanOut) takesOver() bool { return f.enrich.Length() == 0 }

// isPartly reports whether hooks tell of some changes of the collection only.
func (f *FanOut) isPartly(collection string) bool { return slices.Contains(f.Partly, collection) }

// all returns the subscribers of now.
func (f *FanOut) all() []*subscriber {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.subscribers))
}

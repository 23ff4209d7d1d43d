package realtime

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
)

// A narrowedApp is the app of PocketBase's broadcast, with a broker of only those clients
// that it is for.
type narrowedApp struct {
	core.App
	broker *subscriptions.Broker
	batch  *batch // that the record belongs to, or nil
}

func (a narrowedApp) SubscriptionsBroker() *subscriptions.Broker { return a.broker }

// An othersBroker has the clients that PocketBase is to serve, as they were found in a
// broker with so many clients.
type othersBroker struct {
	broker *subscriptions.Broker
	total  int
}

// withoutOurs gives PocketBase's broadcast (apis/realtime.go, realtimeBroadcastRecord),
// which asks each client six times what it subscribes to, an app without those that it is
// not for: a thousand of ours cost half a millisecond for each record. The lock is held.
func (f *FanOut) withoutOurs(app core.App) narrowedApp {
	all := f.app.SubscriptionsBroker()
	if f.others == nil || !f.others.isOf(all) {
		f.others = &othersBroker{broker: subscriptions.NewBroker(), total: all.TotalClients()}
		for _, client := range all.Clients() {
			if client.IsDiscarded() { // it leaves right now, and another could take its number
				f.others.total = -1
			}
			if s, ok := client.(*subscriber); !ok || !s.onlyOurs.Load() {
				f.others.broker.Register(client)
			}
		}
	}
	return narrowedApp{App: app, broker: f.others.broker}
}

// isOf reports whether nobody came to the broker or left it since, whoever registered
// them: a client of the app's own is not announced to us.
func (o *othersBroker) isOf(all *subscriptions.Broker) bool {
	if all.TotalClients() != o.total {
		return false
	}
	for id, client := range o.broker.Clients() {
		if now, err := all.ClientById(id); err != nil || now != client {
			return false
		}
	}
	return true
}

// withEverybody is right behind PocketBase's broadcast.
func (f *FanOut) withEverybody(e *core.ModelEvent) error {
	f.widen(e)
	return e.Next()
}

// widen gives the event its app back.
func (f *FanOut) widen(e *core.ModelEvent) {
	if narrowed, ok := e.App.(narrowedApp); ok {
		e.App = narrowed.App
		if narrowed.batch != nil {
			f.mu.Lock()
			narrowed.batch.progress = time.Now()
			f.mu.Unlock()
		}
	}
}

// connected is the first message of a stream, as PocketBase has it, with the collections
// that subscriptions may ask to be told of leaving records of, and the milliseconds after
// which it is the stream's turn to ask for anything. PocketBase's SDK reads none of it.
func (f *FanOut) connected(s *subscriber) subscriptions.Message {
	data := struct {
		ClientId string   `json:"clientId"`
		Live     []string `json:"live,omitempty"`
		Wait     int64    `json:"wait,omitempty"`
	}{ClientId: s.Id(), Wait: f.turn().Milliseconds()}
	if f.takesOver() {
		data.Live = slices.DeleteFunc(slices.Clone(f.collections), f.isPartly)
	}
	raw, _ := json.Marshal(data)
	return subscriptions.Message{Name: "PB_CONNECT", Data: raw}
}

// renewAll follows a change of a collection: what is named by its id is served by
// PocketBase while it has another name, and filters are compiled for its fields. No event
// tells what its rules show and hide now, or that none has its name any more, so whoever
// counts on that fetches again. PocketBase goes by a change already before it is committed
// (core/collection_model.go, onCollectionSaveExecute), so this follows when it is undone, too.
func (f *FanOut) renewAll(e *core.CollectionEvent) error {
	defer f.renewBehind(e.Collection.Name)
	return e.Next()
}

func (f *FanOut) renewBehind(name string) {
	changed := []string{name}
	for _, name := range f.collections {
		if _, err := f.app.FindCachedCollectionByNameOrId(name); err != nil {
			changed = append(changed, name)
		}
	}
	f.mu.Lock()
	for s := range f.subscribers {
		if s.away != nil || slices.ContainsFunc(changed, func(name string) bool { return s.leaveTopic(name) != nil }) {
			f.cut(s)
		}
	}
	f.mu.Unlock()
	for _, s := range f.all() {
		s.renew()
	}
}

// Subscriptions hides what the fan-out sends from PocketBase's broadcast, which alone asks
// by one prefix that ends in "?" (apis/realtime.go, realtimeBroadcastRecord).
func (s *subscriber) Subscriptions(prefixes ...string) map[string]subscriptions.SubscriptionOptions {
	topics := *s.topics.Load()
	if s.tellings.Load() != s.tellingsEnded.Load() { // what PocketBase sent of new ones meanwhile would have no place among their events
		asked := s.fanOut.ownTopics(s.DefaultClient.Subscriptions())
		topics = append(slices.DeleteFunc(asked, func(t topic) bool { return !t.leave }), topics...)
	}
	if len(prefixes) != 1 || len(topics) == 0 || !strings.HasSuffix(prefixes[0], "?") || !s.fanOut.takesOver() {
		return s.DefaultClient.Subscriptions(prefixes...)
	}
	if s.onlyOurs.Load() {
		return nil // the common case, asked six times for each record
	}
	found := s.DefaultClient.Subscriptions(prefixes...)
	for _, t := range topics {
		delete(found, t.name)
	}
	return found
}

// serve runs a realtime connection as PocketBase does (apis/realtime.go, realtimeConnect,
// whose end it takes the place of), save that the messages which wait together are flushed
// together, and that a subscriber who stopped reading is cut.
func (f *FanOut) serve(e *core.RealtimeConnectRequestEvent) error {
	client, ok := e.Client.(*subscriptions.DefaultClient)
	if !ok { // the app has a client of its own
		return e.Next()
	}
	s := f.newSubscriber(client, e.Request)
	e.Client = s

	broker := e.App.SubscriptionsBroker()
	broker.Register(s)
	defer broker.Unregister(s.Id())
	defer f.depart(s)
	s.Send(f.connected(s))
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
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		select {
		case <-s.ready:
		case <-alive.C:
			s.tellThatItLives()
		case m, open := <-client.Channel(): // of a hook that has kept the client from before
			if !open {
				return nil
			}
			s.Send(m)
		}
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
}

// passesFilter is the second half of PocketBase's check of a subscription (apis/realtime.go,
// realtimeCanAccessRecord). An error is that the database could not be asked.
func passesFilter(app core.App, record *core.Record, info *core.RequestInfo) (bool, error) {
	text := info.Query[search.FilterQueryParam]
	if !info.HasSuperuserAuth() && isForSuperusers(text) {
		return false, nil
	}
	collection := record.Collection()
	query := app.ConcurrentDB().Select("(1)").From(collection.Name).
		AndWhere(dbx.HashExp{collection.Name + ".id": record.Id})
	resolver := core.NewRecordFieldResolver(app, collection, info, false)
	expr, err := search.FilterData(text).BuildExpr(resolver)
	if err != nil {
		return false, nil //nolint:nilerr // it was asked nothing: PocketBase refuses such a filter
	}
	query.AndWhere(expr)
	if err := resolver.UpdateQuery(query); err != nil {
		return false, nil //nolint:nilerr // nor here
	}
	var exists int
	if err := query.Limit(1).Row(&exists); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	return exists > 0, nil
}

// isForSuperusers reports whether PocketBase refuses the filter to everybody else, by its
// text alone (apis/record_helpers.go, checkForSuperuserOnlyRuleFields).
func isForSuperusers(filter string) bool {
	return strings.Contains(filter, "@collection.") || strings.Contains(filter, "@request.")
}

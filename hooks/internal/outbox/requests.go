package outbox

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const (
	maxAsking    = 64              // requests that are sent at the same time, beside all callbacks
	askWindow    = 5 * time.Minute // in which a request is tried
	tidyInterval = time.Minute

	// claimPause is how long what is due waits behind the last claim, so that it has company: the
	// claims of what goes out together are one commit, and most of the outcomes.
	claimPause = 25 * time.Millisecond
)

// asking is the part of an outbox that sends requests: at most once, unlike callbacks. A
// request is claimed by a committed write before its first byte goes out. What is claimed
// and not among posts is not being sent by this process.
type asking struct {
	loop loop

	used atomic.Bool // there may be a request whose answer can come
	crowd

	mu        sync.Mutex
	resumed   bool                 // nothing is left of the last process
	posts     map[string]time.Time // ids of requests that are being sent, and since when
	unmatched map[string]time.Time // webhooks nobody is known to have asked for, and when they came first
	unsure    map[string]time.Time // requests whose claim failed, or was committed when nobody waited for it any more
	tidied    time.Time
}

// Asking reports whether a webhook may be the answer to a request.
func (o *Outbox) Asking() bool { return o.asking.used.Load() }

// NoteRequest has the outbox look for requests to be sent. It never blocks.
func (o *Outbox) NoteRequest() {
	o.asking.used.Store(true)
	o.asking.loop.wakeUp()
}

// forget forgets what was known of the requests: another node may have led since.
func (a *asking) forget() {
	a.used.Store(true)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resumed = false
}

// resumeRequests ends what the last process was sending: nobody knows what became of it.
func (o *Outbox) resumeRequests() error {
	anyRequest, err := store.AnyRequest(o.app)
	if err != nil {
		return err
	}
	if !anyRequest {
		o.asking.used.Store(false) // until the first one is claimed
	}
	for {
		ids, err := store.FindSending(o.app, 100)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		o.app.Logger().Error("Requests were being sent when the server ended: they failed, as it is not known whether ModelRiver took them", "requests", ids)
		err = o.changeRequests(ids, func(tx core.App, request *core.Record) error {
			if !isSending(request) {
				return nil
			}
			return store.EndRequest(tx, request, reasonUnknown, o.Now().Add(store.ReplayTime))
		})
		if err != nil {
			return err
		}
	}
	o.asking.mu.Lock()
	defer o.asking.mu.Unlock()
	o.asking.resumed = true
	return nil
}

func isSending(request *core.Record) bool {
	return request.GetString("state") == store.Queued && request.GetDateTime("nextAttempt").IsZero()
}

// changeRequests changes those of the requests that are still there, in one transaction.
func (o *Outbox) changeRequests(ids []string, change func(tx core.App, request *core.Record) error) error {
	return o.commits.Do(func(tx core.App) error {
		for _, id := range ids {
			request, err := store.FindRequest(tx, id)
			if err == nil && request != nil {
				err = change(tx, request)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// runRequests claims and sends the requests that are due, as many as there is room for. It
// returns when the next one is due, or the zero time.
func (o *Outbox) runRequests() (next time.Time, err error) {
	if err := o.tidyRequests(); err != nil {
		return next, err
	}
	o.asking.mu.Lock()
	room := maxAsking - len(o.asking.posts)
	o.asking.mu.Unlock()
	if room == 0 {
		return o.Now().Add(claimPause), nil
	}
	crowded, paused := o.asking.isCrowd(o.Now()), o.Now().Sub(o.asking.claimed)
	switch {
	case crowded && o.asking.goesFirst(o.Now()):
		return o.Now().Add(crowdEnd), nil
	case !crowded && paused >= 0 && paused < claimPause:
		return o.asking.claimed.Add(claimPause), nil
	}
	if crowded {
		room = min(room, crowdClaims)
	}
	ids, err := store.FindDueRequests(o.app, o.Now(), askWindow, room)
	if err != nil {
		return next, err
	}
	if len(ids) > 0 {
		o.asking.noteClaims(o.Now())
		if err := o.claimAndAsk(ids); err != nil {
			return next, err
		}
	}
	switch {
	case len(ids) < room:
		return store.FindNextRequest(o.app, o.Now())
	case crowded:
		return o.Now().Add(crowdEnd), nil
	}
	return o.Now().Add(claimPause), nil // more may be due
}

// claimAndAsk claims the requests, in one transaction, and sends them.
func (o *Outbox) claimAndAsk(ids []string) error {
	o.asking.used.Store(true)
	if !o.options.Keyed {
		o.app.Logger().Error(o.options.InWords("Requests failed, as there is no API key: set MODELRIVER_API_KEY, and restart"), "requests", ids)
		return o.changeRequests(ids, func(tx core.App, request *core.Record) error {
			if request.GetString("state") != store.Queued {
				return nil
			}
			return store.EndRequest(tx, request, reasonUnset, time.Time{})
		})
	}

	o.asking.mu.Lock()
	began := o.Now()
	for _, id := range ids {
		o.asking.posts[id] = began
	}
	o.asking.mu.Unlock()
	var claimed []*core.Record
	err := o.commits.Do(func(tx core.App) error {
		var all []*core.Record // the transaction may go on when nobody waits for it any more
		for _, id := range ids {
			request, err := store.ClaimRequest(tx, id)
			if err != nil {
				return err
			}
			if request != nil {
				all = append(all, request)
			}
		}
		claimed = all
		return nil
	})
	if err != nil {
		o.asking.mu.Lock()
		for _, id := range ids {
			o.asking.unsure[id] = began
		}
		o.asking.mu.Unlock()
	}
	sent := map[string]bool{}
	o.mu.Lock()
	ctx := o.ctx
	o.mu.Unlock()
	if err == nil { // else a late transaction may still write to claimed
		for _, request := range claimed {
			sent[request.Id] = true
			o.senders.Go(func() { o.ask(ctx, request, began) })
		}
	}
	for _, id := range ids {
		if !sent[id] {
			o.notAsking(id, began)
		}
	}
	return err
}

// notAsking ends the sending of a request that began then.
func (o *Outbox) notAsking(id string, began time.Time) {
	o.asking.mu.Lock()
	defer o.asking.mu.Unlock()
	if o.asking.posts[id].Equal(began) { // else it was armed and claimed again meanwhile
		delete(o.asking.posts, id)
	}
}

// tidyRequests ends, now and then, those whose answer did not come, and sets free those that
// were claimed when nobody waited for it any more.
func (o *Outbox) tidyRequests() error {
	now := o.Now()
	if since := now.Sub(o.asking.tidied); since >= 0 && since < tidyInterval {
		return nil
	}
	unanswered, err := store.FindUnanswered(o.app, now, 100)
	if err != nil {
		return err
	}
	if len(unanswered) > 0 {
		o.app.Logger().Error("Requests failed: "+reasonUnanswered, "requests", unanswered)
		err := o.changeRequests(unanswered, func(tx core.App, request *core.Record) error {
			if request.GetString("state") != store.Sent || request.GetDateTime("expires").Time().After(now) {
				return nil
			}
			return store.EndRequest(tx, request, reasonUnanswered, time.Time{})
		})
		if err != nil {
			return err
		}
	}
	if unsure := o.takeUnsure(now); len(unsure) > 0 {
		err := o.changeRequests(unsure, func(tx core.App, request *core.Record) error {
			if !isSending(request) {
				return nil
			}
			return store.PostponeRequest(tx, request, now)
		})
		if err != nil {
			o.asking.mu.Lock()
			for _, id := range unsure { // they are seen to the next time
				o.asking.unsure[id] = time.Time{}
			}
			o.asking.mu.Unlock()
			return err
		}
	}
	if len(unanswered) < 100 {
		o.asking.tidied = now
	}
	return nil
}

// takeUnsure returns the requests that nobody sends, though they may be claimed.
func (o *Outbox) takeUnsure(now time.Time) (ids []string) {
	a := &o.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, since := range a.unsure {
		if now.Sub(since) > 2*commit.MaxWait { // what was withdrawn too late is committed by now
			delete(a.unsure, id)
			if _, sending := a.posts[id]; !sending {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

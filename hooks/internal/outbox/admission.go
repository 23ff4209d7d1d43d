package outbox

import (
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A Ticket is a new callback's admission. It ends with one of Stored and Dropped.
type Ticket struct {
	outbox *Outbox
	cb     *store.Callback
	held   bool // there is a place for it in memory, so that it is sent right after the commit
	due    bool // its row is to be read
}

// Admit makes the callback that is owed to url, under the record's id, ready to be
// inserted. If there is room for it in memory, its row is leased as it is inserted. If
// not, it is due at once, and read from the table when there is room; and without a key,
// when its window ends.
func (o *Outbox) Admit(id, url string) (*Ticket, *store.Callback) {
	now := o.Now()
	host, _ := o.client.Host(url)
	cb := &store.Callback{
		Id: id, URL: url, Host: host,
		Expires: store.DateTime(now.Add(o.options.Window)), NextAttempt: now,
	}
	t := &Ticket{outbox: o, cb: cb, due: true}
	switch {
	case url == "": // none is owed, unless the event is refused
	case o.waitsForKey(cb):
		t.due = false
		cb.NextAttempt = cb.Expires.Time()
	case o.reserve(cb):
		t.held = true
		cb.Attempts = 1
		cb.NextAttempt = now.Add(o.lease())
	}
	return t, cb
}

// Stored has the callback sent: its row is committed, with a record or a refused event.
func (t *Ticket) Stored() {
	hasRow := t.cb.URL != "" || t.cb.Refused
	switch {
	case t.held:
		t.outbox.send(t.cb)
	case hasRow && t.due && t.outbox.room(t.cb.Host) > 0: // the outbox has only just started
		t.outbox.Wake()
	}
}

// Dropped gives the place back: no row was written.
func (t *Ticket) Dropped() {
	if t.held {
		t.outbox.release(t.cb)
	}
}

// waitsForKey reports whether the callback can't be sent for want of a key, and has
// time left in which one may be set.
func (o *Outbox) waitsForKey(cb *store.Callback) bool {
	return !o.options.Keyed && cb.Host != "" && o.Now().Before(cb.Expires.Time())
}

package outbox

import (
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const (
	maxUnmatched  = 10_000
	keepUnmatched = 5 * time.Minute // which outlasts a client's time-out and ModelRiver's delay
)

// Undecided reports whether the webhook with the id may be the answer to a request that is
// still being sent, whose channel is not known therefore. That ends with the requests that
// were being sent when the webhook came first, so after a client's time-out at most.
func (o *Outbox) Undecided(id string) (bool, error) {
	a := &o.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.resumed { // what the last process was sending has no outcome yet
		sending, err := store.FindSending(o.app, 1)
		return len(sending) > 0, err
	}
	now := o.Now()
	first, known := a.unmatched[id]
	if !known {
		first = now
	}
	for _, began := range a.posts {
		if !began.After(first) {
			a.remember(id, first)
			return true, nil
		}
	}
	delete(a.unmatched, id)
	return false, nil
}

func (a *asking) remember(id string, first time.Time) {
	if len(a.unmatched) >= maxUnmatched {
		for old, came := range a.unmatched {
			if first.Sub(came) > keepUnmatched {
				delete(a.unmatched, old)
			}
		}
	}
	if len(a.unmatched) < maxUnmatched {
		a.unmatched[id] = first
	}
}

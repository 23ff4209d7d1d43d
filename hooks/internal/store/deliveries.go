package store

import (
	"database/sql"
	"errors"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// The states of a delivery beside Delivered, Failed and Deleted.
const (
	Waiting = "waiting" // the callback is pending
	Refused = "refused" // the content is not stored
	Stored  = "stored"  // no callback is owed
)

// A Delivery is one webhook's life: received, stored or refused, called back. It has the
// id of its record and of its callback row, of which one may be missing.
type Delivery struct {
	Id          string         `json:"id" db:"id"`
	Created     types.DateTime `json:"created" db:"created"`
	Title       string         `json:"title" db:"title"`
	Event       string         `json:"event" db:"event"`
	Category    string         `json:"category" db:"category"`
	UserId      string         `json:"userId" db:"userId"`
	ChannelId   string         `json:"channelId" db:"channelId"`
	Record      string         `json:"record" db:"record"` // the record's id, empty if there is none
	State       string         `json:"state" db:"-"`       // Delivered, Waiting, Failed, Refused, Stored or Deleted
	Attempts    int            `json:"attempts" db:"attempts"`
	LastStatus  int            `json:"lastStatus" db:"lastStatus"`
	LastError   string         `json:"lastError" db:"lastError"`
	NextAttempt types.DateTime `json:"nextAttempt" db:"nextAttempt"` // zero unless it waits
	DeliveredAt types.DateTime `json:"deliveredAt" db:"deliveredAt"`
	Took        *int64         `json:"took" db:"-"` // milliseconds from received to delivered, nil if not delivered

	// Callback is the state of the callback row, empty if there is none.
	Callback string `json:"-" db:"callback"`
}

// A DeliveryFilter says which deliveries are listed. What is empty does not count.
type DeliveryFilter struct {
	// State is Refused, or Waiting, Delivered, Failed or Deleted, which are looked for in
	// the callback rows, as the figures count: refused ones may be among them.
	State                 string
	Event, Category, User string
	Search                string    // a whole id, else a whole channel id, else a part of the title
	From, To              time.Time // From <= created < To
	After                 string    // DeliveryPage.Next of the page before
	Limit                 int
}

// A DeliveryPage is a page of deliveries, the newest first.
type DeliveryPage struct {
	Items []*Delivery `json:"items"`
	Next  string      `json:"next"` // empty at the end

	// SearchedTo is down to when was looked, if that found less than the limit although
	// there may be more.
	SearchedTo types.DateTime `json:"searchedTo"`
}

// A page looks at so many rows at most, and for so long if less than half of them match.
const (
	maxLook     = 20_000
	maxLookTime = 50 * time.Millisecond
)

// ErrNoPosition is the answer to a DeliveryFilter.After that is no DeliveryPage.Next.
var ErrNoPosition = errors.New("not the next of a page")

// FindDeliveries returns a page of the deliveries that the filter lets through.
//
// A delivery was created when its record was, or its callback row where there is no record
// or a state is looked for: milliseconds apart, and more where a refused event was stored
// later.
func FindDeliveries(app core.App, filter DeliveryFilter) (*DeliveryPage, error) {
	query, err := newDeliveryQuery(app, filter)
	if err != nil {
		return nil, err
	}
	page := &DeliveryPage{Items: []*Delivery{}}
	found, err := query.look(app, page)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(found))
	for i, position := range found {
		ids[i] = position.id
	}
	deliveries, err := readDeliveries(app, ids)
	if err != nil {
		return nil, err
	}
	for _, position := range found {
		if delivery := deliveries[position.id]; delivery != nil { // else deleted meanwhile
			delivery.Created, _ = types.ParseDateTime(position.created)
			page.Items = append(page.Items, delivery)
		}
	}
	return page, nil
}

// look returns where the deliveries of a page are, and sets where the next page begins.
func (q *deliveryQuery) look(app core.App, page *DeliveryPage) (found []position, err error) {
	began := time.Now()
	rows, err := app.ConcurrentDB().NewQuery(q.sql()).Bind(q.params).Rows()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var last position
	for looked := 0; rows.Next(); looked++ {
		if looked == maxLook || looked%16 == 15 && looked > 2*len(found) && time.Since(began) > q.time {
			page.Next = last.String()
			if len(found) < q.filter.Limit {
				page.SearchedTo, _ = types.ParseDateTime(last.created)
			}
			return found, nil
		}
		var created, id, payload sql.RawBytes
		var matches bool
		if err := rows.Scan(&created, &id, &matches, &payload); err != nil {
			return nil, err
		}
		last = position{created: string(created), id: string(id)}
		if !matches || len(payload) > 0 && !q.matchesPayload(payload) {
			continue
		}
		if len(found) == q.filter.Limit { // so that the last page is known to be the last
			page.Next = found[len(found)-1].String()
			return found, nil
		}
		found = append(found, last)
	}
	return found, rows.Err()
}

package store

import (
	"time"

	"github.com/pocketbase/pocketbase/tools/types"
)

// The states of a delivery beside Delivered and Failed.
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
	State       string         `json:"state" db:"state"`   // Delivered, Waiting, Failed, Refused, Stored or Deleted
	Attempts    int            `json:"attempts" db:"attempts"`
	LastStatus  int            `json:"lastStatus" db:"lastStatus"`
	LastError   string         `json:"lastError" db:"lastError"`
	NextAttempt types.DateTime `json:"nextAttempt" db:"nextAttempt"` // zero unless it waits
	DeliveredAt types.DateTime `json:"deliveredAt" db:"deliveredAt"`
	Took        *int64         `json:"took" db:"-"` // milliseconds from received to delivered, nil if not delivered
}

// A DeliveryFilter says which deliveries are listed. What is empty does not count.
type DeliveryFilter struct {
	State                 string // Waiting, Delivered, Failed or Refused
	Event, Category, User string
	Search                string    // a part of the title, or the whole channel id or id
	From, To              time.Time // From <= created < To
	After                 string    // DeliveryPage.Next of the page before
	Limit                 int
}

// A DeliveryPage is a page of deliveries, the newest first.
type DeliveryPage struct {
	Items []Delivery `json:"items"`
	Next  string     `json:"next"` // empty at the end

	// SearchedTo is down to when was looked if that found less than the limit, although
	// there may be more.
	SearchedTo types.DateTime `json:"searchedTo"`
}

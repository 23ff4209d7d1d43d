package store

import (
	"database/sql"
	"errors"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// A WholeDelivery is one delivery with all that is kept of it.
type WholeDelivery struct {
	Delivery *Delivery `json:"delivery"`

	// Payload is the webhook as it came. Where that is not kept, it is nil; but what is kept
	// of a refused event to be ingested again is here, without headers and scheme.
	Payload *string       `json:"payload"`
	Headers types.JSONRaw `json:"headers"`
	Scheme  string        `json:"scheme"` // in which it was signed
	Size    int           `json:"size"`   // bytes

	Callback *WholeCallback `json:"callback"` // nil if none is owed
	Timeline []Attempt      `json:"timeline"` // oldest first

	// TimelineMissing is how many attempts of this sending have no row: of before an upgrade,
	// cut off by a crash, or more than MaxAttempts ago.
	TimelineMissing int `json:"timelineMissing"`
}

// A WholeCallback is what a callback's row says beside its delivery.
type WholeCallback struct {
	URL     string         `json:"url" db:"url"`
	Host    string         `json:"host" db:"host"`
	Body    string         `json:"body" db:"body"`
	Created types.DateTime `json:"created" db:"created"`
	Expires types.DateTime `json:"expires" db:"expires"`
	State   string         `json:"state" db:"state"`

	Attempts    int            `json:"-" db:"attempts"`
	NextAttempt types.DateTime `json:"-" db:"nextAttempt"`
	Payload     string         `json:"-" db:"payload"` // of a refused event
}

// FindDelivery returns a delivery, or nil if there is none with this id.
func FindDelivery(app core.App, id string) (*WholeDelivery, error) {
	deliveries, err := readDeliveries(app, []string{id})
	if err != nil || deliveries[id] == nil {
		return nil, err
	}
	whole := &WholeDelivery{Delivery: deliveries[id], Timeline: []Attempt{}}
	if err := whole.readCallback(app); err != nil {
		return nil, err
	}
	if err := whole.readPayload(app); err != nil {
		return nil, err
	}
	return whole, whole.readTimeline(app)
}

func (w *WholeDelivery) readCallback(app core.App) error {
	row := &WholeCallback{}
	err := app.ConcurrentDB().NewQuery(`
		SELECT url, host, body, created, expires, state, attempts, nextAttempt, payload FROM modelriverCallbacks
		WHERE id = {:id} AND state != 'deleted'`).Bind(dbx.Params{"id": w.Delivery.Id}).One(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	w.Callback = row
	return err
}

func (w *WholeDelivery) readPayload(app core.App) error {
	var row struct {
		Payload string        `db:"payload"`
		Headers types.JSONRaw `db:"headers"`
		Scheme  string        `db:"scheme"`
		Size    int           `db:"size"`
	}
	err := app.AuxConcurrentDB().NewQuery("SELECT payload, headers, scheme, size FROM modelriverPayloads WHERE id = {:id}").
		Bind(dbx.Params{"id": w.Delivery.Id}).One(&row)
	switch {
	case err == nil:
		w.Payload, w.Headers, w.Scheme, w.Size = &row.Payload, row.Headers, row.Scheme, row.Size
	case !errors.Is(err, sql.ErrNoRows) && !isPayloadsMissing(err):
		return err
	case w.Callback != nil && w.Callback.Payload != "":
		w.Payload, w.Size = &w.Callback.Payload, len(w.Callback.Payload)
	}
	return nil
}

func (w *WholeDelivery) readTimeline(app core.App) error {
	var rows []struct {
		Attempt
		Expires types.DateTime `db:"expires"` // of the callback then
	}
	err := app.ConcurrentDB().NewQuery(`
		SELECT at, status, duration, error, answer, errorCallback, expires FROM modelriverAttempts
		WHERE callback = {:id} ORDER BY at, rowid`).Bind(dbx.Params{"id": w.Delivery.Id}).All(&rows)
	if err != nil {
		return err
	}
	present := 0 // of the attempts that the callback's row counts
	for _, row := range rows {
		w.Timeline = append(w.Timeline, row.Attempt)
		if w.Callback == nil || !row.Expires.Equal(w.Callback.Expires) {
			continue
		}
		if !row.ErrorCallback || w.Callback.Payload != "" { // else it told of the last one's failure
			present++
		}
	}
	w.TimelineMissing = w.missing(present)
	return nil
}

func (w *WholeDelivery) missing(present int) int {
	cb := w.Callback
	if cb == nil || cb.URL == "" || w.Delivery.State == Deleted { // nothing was sent, or its trace was deleted with the record
		return 0
	}
	missing := max(cb.Attempts-present, 0)
	if missing > 0 && cb.State == Pending && cb.NextAttempt.Time().After(time.Now()) {
		missing-- // it is under way
	}
	return missing
}

package store

import (
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// All are the figures of one moment, which page, status command and metrics show.
type All struct {
	Figures
	Requests RequestFigures `json:"requests"`
	Rejected *Rejected      `json:"rejected"` // nil if no server has counted any here yet
}

// ReadAll returns the figures since a time, which may be zero. window is how long a callback is
// tried, unwritten what the server has counted of rejected webhooks and not written.
func ReadAll(app core.App, now, since time.Time, window time.Duration, unwritten []Rejection) (all All, err error) {
	if all.Figures, err = ReadFigures(app, since, window); err != nil {
		return all, err
	}
	if all.Requests, err = ReadRequestFigures(app); err != nil {
		return all, err
	}
	if unwritten == nil && !app.HasTable(Rejections) { // a command beside the server of an earlier release
		return all, nil
	}
	if since.IsZero() {
		since = now.UTC().Truncate(24 * time.Hour)
	}
	rejected, err := ReadRejected(app, now, since, unwritten)
	all.Rejected = &rejected
	return all, err
}

// Figures count webhooks and callbacks.
type Figures struct {
	Since     types.DateTime `json:"since,omitzero"` // zero for all that is kept
	Received  int            `json:"received"`       // events since then: stored or refused
	Stored    int            `json:"stored"`         // records since then
	Refused   int            `json:"refused"`        // events since then that are refused still
	Delivered int            `json:"delivered"`      // callbacks since then, as long as they are kept
	Failed    int            `json:"failed"`         // callbacks of any time that are not retried yet
	Waiting   int            `json:"waiting"`        // callbacks to be sent

	// Median is the time from a webhook to ModelRiver's answer to its callback, in
	// milliseconds, of the latest callbacks that were delivered within their window: of
	// later ones it is how long someone took to retry. It is nil if there are none.
	Median *int64 `json:"median"`

	// P95 is the time that 95 of 100 of these callbacks did not exceed.
	P95 *int64 `json:"p95"`
}

// medianOf is how many of the latest delivered callbacks the median time is taken of, among the
// timesLooks latest.
const medianOf = 1000

// The queries of the figures. They read indexes, and of the rows, which carry bodies,
// only those of refused events.
const (
	countStored    = "SELECT COUNT(*) FROM aiContent WHERE created >= {:since}"
	countRefused   = "SELECT COUNT(*) FROM modelriverCallbacks WHERE payload != '' AND created >= {:since}"
	countDelivered = "SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'delivered' AND deliveredAt >= {:since}"
	countFailed    = "SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'failed'"
	countWaiting   = "SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'pending'"
)

// ReadFigures returns the figures since a time, which may be zero. window is how long a
// callback is tried.
func ReadFigures(app core.App, since time.Time, window time.Duration) (Figures, error) {
	var figures Figures
	if !since.IsZero() {
		figures.Since = DateTime(since)
	}
	for query, count := range map[string]*int{
		countStored: &figures.Stored, countRefused: &figures.Refused, countDelivered: &figures.Delivered,
		countFailed: &figures.Failed, countWaiting: &figures.Waiting,
	} {
		err := app.ConcurrentDB().NewQuery(query).Bind(dbx.Params{"since": figures.Since}).Row(count)
		if err != nil {
			return figures, err
		}
	}
	figures.Received = figures.Stored + figures.Refused
	times, err := readTimes(app, "", "~", window, medianOf)
	figures.Median, figures.P95 = medianTime(times), p95Time(times)
	return figures, err
}

// medianTime returns nil if there are no times.
func medianTime(times []int64) *int64 {
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	median := (times[(len(times)-1)/2] + times[len(times)/2]) / 2
	return &median
}

// Latest are the rows that an operator asks for first. Each is nil if there is none.
type Latest struct {
	Ends
	LastError *CallbackError `json:"lastError"` // of a callback that waits or failed
}

// Ends are the newest and the oldest of what comes and goes.
type Ends struct {
	LastReceived  *types.DateTime  `json:"lastReceived"`
	OldestWaiting *WaitingCallback `json:"oldestWaiting"`
}

// A WaitingCallback is one that is pending.
type WaitingCallback struct {
	Id      string         `json:"id" db:"id"`
	Created types.DateTime `json:"created" db:"created"`
	Next    types.DateTime `json:"nextAttempt" db:"nextAttempt"`
}

// A CallbackError is why an attempt failed.
type CallbackError struct {
	Id      string         `json:"id" db:"id"`
	State   string         `json:"state" db:"state"`
	Updated types.DateTime `json:"updated" db:"updated"`
	Status  int            `json:"lastStatus" db:"lastStatus"`
	Error   string         `json:"lastError" db:"lastError"`
}

// ReadEnds returns the ends.
func ReadEnds(app core.App) (ends Ends, err error) {
	var received types.DateTime
	err = app.ConcurrentDB().NewQuery(`
		SELECT MAX(COALESCE((SELECT MAX(created) FROM aiContent), ''),
			COALESCE((SELECT MAX(created) FROM modelriverCallbacks WHERE payload != ''), ''))`).Row(&received)
	if err != nil {
		return ends, err
	}
	if !received.IsZero() {
		ends.LastReceived = &received
	}
	ends.OldestWaiting, err = readOne[WaitingCallback](app, `
		SELECT id, created, nextAttempt FROM modelriverCallbacks
		WHERE state = 'pending' ORDER BY created, id LIMIT 1`)
	return ends, err
}

// ReadLatest returns the latest rows.
func ReadLatest(app core.App) (latest Latest, err error) {
	latest.Ends, err = ReadEnds(app)
	if err != nil {
		return latest, err
	}
	latest.LastError, err = readOne[CallbackError](app, `
		SELECT id, state, updated, lastStatus, lastError FROM modelriverCallbacks
		WHERE state IN ('pending', 'failed') AND lastError != '' ORDER BY updated DESC, id LIMIT 1`)
	return latest, err
}

// readOne returns the row of a query, or nil if there is none.
func readOne[T any](app core.App, query string) (*T, error) {
	row := new(T)
	err := app.ConcurrentDB().NewQuery(query).One(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return row, err
}

package store

import (
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// RequestFigures count requests, as long as they are kept.
type RequestFigures struct {
	Open     int `json:"open"` // queued or sent
	Failed   int `json:"failed"`
	Answered int `json:"answered"`

	// Median is the time from a request to its answer, in milliseconds, of the latest that
	// were answered. It is nil if there are none.
	Median *int64 `json:"median"`
}

// ReadRequestFigures returns the figures. They read an index, and of the rows, which carry
// inputs, the latest only: nextAttempt is empty in all that are answered, and rows behind it
// are in the order of their creation.
func ReadRequestFigures(app core.App) (figures RequestFigures, err error) {
	if !app.HasTable(Requests) { // a command beside the server of an earlier release
		return figures, nil
	}
	var counts []struct {
		State string `db:"state"`
		N     int    `db:"n"`
	}
	err = app.ConcurrentDB().NewQuery("SELECT state, COUNT(*) AS n FROM aiRequests GROUP BY state").All(&counts)
	if err != nil {
		return figures, err
	}
	for _, count := range counts {
		switch count.State {
		case Failed:
			figures.Failed = count.N
		case Answered:
			figures.Answered = count.N
		default:
			figures.Open += count.N
		}
	}
	var latest []struct {
		Created types.DateTime `db:"created"`
		Updated types.DateTime `db:"updated"`
	}
	err = app.ConcurrentDB().NewQuery(`
		SELECT created, updated FROM aiRequests WHERE state = 'answered' AND nextAttempt = '' ORDER BY rowid DESC LIMIT {:n}`,
	).Bind(dbx.Params{"n": medianOf}).All(&latest)
	times := make([]int64, len(latest))
	for i, row := range latest {
		times[i] = row.Updated.Sub(row.Created).Milliseconds()
	}
	figures.Median = medianTime(times)
	return figures, err
}

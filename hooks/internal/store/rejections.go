package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// RejectedMessage is the message of the log rows that count rejected webhooks. Their
// attributes are count, error and remedy.
const RejectedMessage = "Rejected ModelRiver webhooks"

// Why webhooks are answered with an error unread.
const (
	RejectedSignature  = "signature" // it does not match
	RejectedUnsigned   = "unsigned"  // there is no header with one
	RejectedStale      = "stale"     // its timestamp is too far from now
	RejectedTooLarge   = "tooLarge"
	RejectedCompressed = "compressed"
	RejectedNotJSON    = "notJson"
	RejectedNoSecret   = "noSecret" // none is configured
	RejectedSchema     = "schema"   // a collection lacks what is needed
	RejectedDatabase   = "database" // it can't commit
	RejectedReplica    = "replica"  // it was stored, but not shipped in time
)

// RejectedFor are all reasons.
var RejectedFor = []string{
	RejectedSignature, RejectedUnsigned, RejectedStale, RejectedTooLarge, RejectedCompressed, RejectedNotJSON,
	RejectedNoSecret, RejectedSchema, RejectedDatabase, RejectedReplica,
}

// RejectionsKept is how long rejections are kept.
const RejectionsKept = 30 * 24 * time.Hour

// A Rejection counts the webhooks that were rejected for one reason in one hour of the
// clock.
type Rejection struct {
	Hour   types.DateTime `db:"hour"`
	Reason string         `db:"reason"`
	Count  int            `db:"count"`
	Last   types.DateTime `db:"last"` // time, error and remedy of the last one
	Error  string         `db:"error"`
	Remedy string         `db:"remedy"`
}

// Add counts those of later too, which has the same hour and reason.
func (r *Rejection) Add(later Rejection) {
	later.Count += r.Count
	*r = later
}

// AddRejection writes r, or adds it to the row that has its hour and reason.
func AddRejection(tx core.App, r Rejection) error {
	_, err := commit.Query(tx, `
		INSERT INTO modelriverRejections (id, hour, reason, count, last, error, remedy)
		VALUES ({:id}, {:hour}, {:reason}, {:count}, {:last}, {:error}, {:remedy})
		ON CONFLICT (hour, reason) DO UPDATE SET
			count = count + excluded.count, last = excluded.last, error = excluded.error, remedy = excluded.remedy`,
	).Bind(dbx.Params{
		"id": core.GenerateDefaultRandomId(), "hour": r.Hour, "reason": r.Reason, "count": r.Count,
		"last": r.Last, "error": r.Error, "remedy": r.Remedy,
	}).Execute()
	return err
}

// DeleteRejections deletes what was counted in hours that began before a time.
func DeleteRejections(tx core.App, before time.Time) error {
	_, err := tx.NonconcurrentDB().Delete(Rejections, dbx.NewExp("hour < {:before}", dbx.Params{"before": DateTime(before)})).Execute()
	return err
}

// ReadRejections returns what was rejected, from the hour of since on, oldest first:
// what is written, and what the server has counted since.
func ReadRejections(app core.App, since time.Time, unwritten []Rejection) ([]Rejection, error) {
	var rows []Rejection
	if app.HasTable(Rejections) { // or the server is of an earlier release, or somebody deleted it
		err := app.ConcurrentDB().NewQuery(`
			SELECT hour, reason, count, last, error, remedy FROM modelriverRejections
			WHERE hour >= {:since} ORDER BY hour, reason`,
		).Bind(dbx.Params{"since": DateTime(since.Truncate(time.Hour))}).All(&rows)
		if err != nil {
			return nil, err
		}
	}
	for _, r := range unwritten {
		if r.Hour.Time().Before(since.Truncate(time.Hour)) {
			continue
		}
		same := func(row Rejection) bool { return row.Hour.Equal(r.Hour) && row.Reason == r.Reason }
		if i := slices.IndexFunc(rows, same); i >= 0 {
			rows[i].Add(r)
		} else {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b Rejection) int { return a.Hour.Compare(b.Hour) })
	return rows, nil
}

// Rejected are the figures of rejected webhooks. As an hour's are counted in one, they belong
// to a time that begins within the hour if the last of them does: there may be fewer, but
// never more.
type Rejected struct {
	Count    int            `json:"count"` // in the last 24 hours
	LastHour int            `json:"lastHour"`
	Today    int            `json:"today"` // since the time that the figures are since
	Last     types.DateTime `json:"last"`
	Reason   string         `json:"reason"` // the error of the last one that was signed, if any was
	Remedy   string         `json:"remedy"`

	// How many of those had no signature: anybody can send such, and it need not mean anything.
	UnsignedLastHour int `json:"unsignedLastHour"`
	UnsignedToday    int `json:"unsignedToday"`

	told     types.DateTime // of the one that Reason is of
	unsigned bool           // it had no signature
}

// ReadRejected returns the figures at a time, and today's since another.
func ReadRejected(app core.App, now, since time.Time, unwritten []Rejection) (rejected Rejected, err error) {
	day := now.Add(-24 * time.Hour)
	from := day
	if since.Before(day) {
		from = since
	}
	rows, err := ReadRejections(app, from, unwritten)
	for _, r := range rows {
		if r.within(day) {
			rejected.Count += r.Count
		}
		if r.within(now.Add(-time.Hour)) && !r.Hour.Time().After(now) { // or the clock was set back
			rejected.LastHour += r.Count
			if r.Reason == RejectedUnsigned {
				rejected.UnsignedLastHour += r.Count
			}
		}
		if r.within(since) {
			rejected.Today += r.Count
			if r.Reason == RejectedUnsigned {
				rejected.UnsignedToday += r.Count
			}
		}
		if r.within(day) || r.within(since) {
			rejected.explain(r)
		}
	}
	return rejected, err
}

// explain has the latest reason told. One without a signature hides no other.
func (f *Rejected) explain(r Rejection) {
	unsigned := r.Reason == RejectedUnsigned
	if f.Reason == "" || f.unsigned && !unsigned || f.unsigned == unsigned && !r.Last.Before(f.told) {
		f.Reason, f.Remedy, f.told, f.unsigned = r.Error, r.Remedy, r.Last, unsigned
	}
	if f.Last.Before(r.Last) {
		f.Last = r.Last
	}
}

func (r *Rejection) within(since time.Time) bool { return !r.Last.Time().Before(since) }

// A RejectedReason counts the webhooks that were rejected for one reason.
type RejectedReason struct {
	Reason string         `json:"reason"`
	Count  int            `json:"count"`
	Last   types.DateTime `json:"last"`
	Error  string         `json:"error"` // of the last one
	Remedy string         `json:"remedy"`
}

// ReadRejectedReasons returns the reasons since a time, those with the most first.
func ReadRejectedReasons(app core.App, since time.Time, unwritten []Rejection) ([]RejectedReason, error) {
	rows, err := ReadRejections(app, since, unwritten)
	reasons := []RejectedReason{}
	for _, r := range rows {
		if !r.within(since) {
			continue
		}
		i := slices.IndexFunc(reasons, func(reason RejectedReason) bool { return reason.Reason == r.Reason })
		if i < 0 {
			i = len(reasons)
			reasons = append(reasons, RejectedReason{Reason: r.Reason})
		}
		reason := &reasons[i]
		reason.Count += r.Count
		if !r.Last.Before(reason.Last) {
			reason.Last, reason.Error, reason.Remedy = r.Last, r.Error, r.Remedy
		}
	}
	slices.SortStableFunc(reasons, func(a, b RejectedReason) int { return cmp.Compare(b.Count, a.Count) })
	return reasons, err
}

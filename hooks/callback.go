package hooks

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

const (
	contentCollection  = "aiContent"
	callbackCollection = "modelriverCallbacks"
)

// The states of a callback. It is pending until ModelRiver accepted it, or until it is
// given up. An event that was refused is never delivered: its callback row ends failed,
// accepted or not, because its content is still to be stored.
const (
	statePending   = "pending"
	stateDelivered = "delivered"
	stateFailed    = "failed"
)

// A callback is the part of a row of modelriverCallbacks that sending it needs.
//
// Rows change by SQL within the committer's transactions, save when one turns failed,
// which PocketBase saves so that hooks can see it. Every change names the expires of
// the row it was meant for: whoever arms a row again sets another one.
type callback struct {
	Id       string         `db:"id"`
	URL      string         `db:"url"`
	Host     string         `db:"host"` // as modelriver.Client.Host has it; empty if not allowed
	Attempts int            `db:"attempts"`
	Expires  types.DateTime `db:"expires"`
	Refused  bool           `db:"refused"` // the event was, so that its payload is kept
	Reason   string         `db:"reason"`  // of the refusal, or why the last attempt failed

	// Body is nil if it has not been read from the row. It is empty on a refused row
	// that was armed again: the event is to be ingested once more.
	Body []byte `db:"-"`
}

// callbackColumns is what a callback is read with.
const callbackColumns = "id, url, host, attempts, expires, payload != '' AS refused, lastError AS reason"

const errorCallback = "; error callback: " // what became of it follows

// refusal returns why the event was refused.
func (cb *callback) refusal() string {
	refusal, _, _ := strings.Cut(cb.Reason, errorCallback)
	return refusal
}

// lastFailure returns why the last attempt failed. It is empty if there was none.
func (cb *callback) lastFailure() string {
	if cb.Refused {
		_, last, _ := strings.Cut(cb.Reason, errorCallback)
		return last
	}
	return cb.Reason
}

// failure returns what the row is to say of err: behind the refusal, if the event was
// refused, and behind the last failure, if err is only why the callback was not sent.
func (cb *callback) failure(err error) string {
	last, text := cb.lastFailure(), err.Error()
	switch {
	case !notSent(err) || last == "":
	case strings.Contains(last, text):
		text = last
	default:
		text = last + "; not sent again: " + text
	}
	if cb.Refused {
		return cb.refusal() + errorCallback + text
	}
	return text
}

// failed returns what is to be set on a row that fails with err.
func (cb *callback) failed(status int, err error) map[string]any {
	set := map[string]any{"lastError": cb.failure(err)}
	if !notSent(err) {
		set["lastStatus"] = status
	}
	return set
}

// insertCallback writes a new pending row, or arms the row of the same id with this
// callback. payload is empty unless the event was refused.
func insertCallback(tx core.App, cb *callback, now, nextAttempt time.Time, recordId, payload string) error {
	_, err := query(tx, `
		INSERT INTO modelriverCallbacks
			(id, record, url, host, body, state, attempts, nextAttempt, expires, lastStatus, lastError, deliveredAt, payload, created, updated)
		VALUES
			({:id}, {:record}, {:url}, {:host}, {:body}, 'pending', {:attempts}, {:nextAttempt}, {:expires}, 0, {:reason}, '', {:payload}, {:now}, {:now})
		ON CONFLICT (id) DO UPDATE SET
			record = excluded.record, url = excluded.url, host = excluded.host, body = excluded.body, state = excluded.state,
			attempts = excluded.attempts, nextAttempt = excluded.nextAttempt, expires = excluded.expires, lastStatus = 0,
			lastError = excluded.lastError, deliveredAt = '', payload = excluded.payload, updated = excluded.updated`,
	).Bind(dbx.Params{
		"id": cb.Id, "record": recordId, "url": cb.URL, "host": cb.Host, "body": string(cb.Body),
		"attempts": cb.Attempts, "nextAttempt": dateTime(nextAttempt), "expires": cb.Expires,
		"reason": cb.Reason, "payload": payload, "now": dateTime(now),
	}).Execute()
	return err
}

func deleteCallback(tx core.App, id string) error {
	_, err := tx.NonconcurrentDB().Delete(callbackCollection, dbx.HashExp{"id": id}).Execute()
	return err
}

// A storedEvent is what the database has under an event's id.
type storedEvent struct {
	Record  bool
	State   string // of the callback row; empty if there is none
	Refused bool
}

func findStored(tx core.App, id string) (stored storedEvent, err error) {
	rows, err := query(tx, `
		SELECT '', 0 FROM aiContent WHERE id = {:id}
		UNION ALL SELECT state, payload != '' FROM modelriverCallbacks WHERE id = {:id}`,
	).Bind(dbx.Params{"id": id}).Rows()
	if err != nil {
		return stored, err
	}
	defer rows.Close()
	for rows.Next() {
		var state string
		var refused bool
		if err := rows.Scan(&state, &refused); err != nil {
			return stored, err
		}
		if state == "" {
			stored.Record = true
		} else {
			stored.State, stored.Refused = state, refused
		}
	}
	return stored, rows.Err()
}

// rearmFailed makes a failed row pending again, as if it had just been inserted.
func rearmFailed(tx core.App, id string, now time.Time, window time.Duration) error {
	_, err := tx.NonconcurrentDB().NewQuery(`
		UPDATE modelriverCallbacks
		SET state = 'pending', attempts = 0, nextAttempt = {:now}, expires = {:expires}, updated = {:now}
		WHERE id = {:id} AND state = 'failed'`,
	).Bind(dbx.Params{"id": id, "now": dateTime(now), "expires": dateTime(now.Add(window))}).Execute()
	return err
}

// pendingHosts returns every host that has a pending callback. It reads one index
// entry for each, however many callbacks there are.
func pendingHosts(app core.App) ([]string, error) {
	var hosts []string
	query := "SELECT MIN(host) FROM modelriverCallbacks WHERE state = 'pending'"
	params := dbx.Params{}
	for {
		var host sql.NullString
		if err := app.ConcurrentDB().NewQuery(query).Bind(params).Row(&host); err != nil {
			return nil, err
		}
		if !host.Valid {
			return hosts, nil
		}
		hosts = append(hosts, host.String)
		query = "SELECT MIN(host) FROM modelriverCallbacks WHERE state = 'pending' AND host > {:host}"
		params["host"] = host.String
	}
}

// findDue returns up to limit callbacks to host that are due. One that lies beyond the
// horizon, further ahead than any delay, is due too: the clock was set back since.
func findDue(app core.App, host string, now time.Time, horizon time.Duration, limit int) ([]*callback, error) {
	var due []*callback
	err := app.ConcurrentDB().NewQuery(`
		SELECT ` + callbackColumns + ` FROM modelriverCallbacks
		WHERE state = 'pending' AND host = {:host} AND nextAttempt <= {:now}
		ORDER BY nextAttempt LIMIT {:limit}`,
	).Bind(dbx.Params{"host": host, "now": dateTime(now), "limit": limit}).All(&due)
	if err != nil || len(due) == limit {
		return due, err
	}
	var ahead []*callback
	err = app.ConcurrentDB().NewQuery(`
		SELECT ` + callbackColumns + ` FROM modelriverCallbacks
		WHERE state = 'pending' AND host = {:host} AND nextAttempt > {:never}
		ORDER BY nextAttempt LIMIT {:limit}`,
	).Bind(dbx.Params{"host": host, "never": dateTime(now.Add(horizon)), "limit": limit - len(due)}).All(&ahead)
	return append(due, ahead...), err
}

// findNext returns when the next callback to host is due after now, or the zero time.
func findNext(app core.App, host string, now time.Time) (time.Time, error) {
	var next types.DateTime
	err := app.ConcurrentDB().NewQuery(`
		SELECT COALESCE(MIN(nextAttempt), '') FROM modelriverCallbacks
		WHERE state = 'pending' AND host = {:host} AND nextAttempt > {:now}`,
	).Bind(dbx.Params{"host": host, "now": dateTime(now)}).Row(&next)
	return next.Time(), err
}

// claim leases the callback until the given time and counts the attempt that is about
// to be made, so that a crash needs no rescuer: the row is due again by itself. It
// returns false if the row has changed since it was read.
func claim(tx core.App, cb *callback, now, until time.Time) (bool, error) {
	result, err := query(tx, `
		UPDATE modelriverCallbacks SET attempts = attempts + 1, nextAttempt = {:until}, updated = {:now}
		WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires}`,
	).Bind(dbx.Params{
		"until": dateTime(until), "now": dateTime(now), "id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires,
	}).Execute()
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// deliverCallback writes down that the callback was accepted.
func deliverCallback(tx core.App, cb *callback, now time.Time, status int) error {
	_, err := query(tx, `
		UPDATE modelriverCallbacks SET state = 'delivered', deliveredAt = {:now}, lastStatus = {:status}, lastError = '', updated = {:now}
		WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires}`,
	).Bind(dbx.Params{
		"now": dateTime(now), "status": status, "id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires,
	}).Execute()
	return err
}

// retryCallback writes down an attempt that failed and when the next one is due.
func retryCallback(tx core.App, cb *callback, now, next time.Time, status int, lastError string) error {
	_, err := query(tx, `
		UPDATE modelriverCallbacks SET nextAttempt = {:next}, lastStatus = {:status}, lastError = {:lastError}, updated = {:now}
		WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires}`,
	).Bind(dbx.Params{
		"next": dateTime(next), "status": status, "lastError": lastError, "now": dateTime(now),
		"id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires,
	}).Execute()
	return err
}

// failCallback turns the callback's row failed, through PocketBase.
func failCallback(tx core.App, cb *callback, set map[string]any) error {
	record, err := tx.FindRecordById(callbackCollection, cb.Id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // deleted by hand
	}
	if err != nil {
		return err
	}
	if record.GetString("state") != statePending || record.GetInt("attempts") != cb.Attempts ||
		!record.GetDateTime("expires").Equal(cb.Expires) {
		return nil // armed again, or edited by hand
	}
	record.Set("state", stateFailed)
	record.Load(set)
	return tx.SaveNoValidate(record)
}

// dateTime rounds t to what a date field keeps.
func dateTime(t time.Time) types.DateTime {
	d, _ := types.ParseDateTime(t.UTC().Truncate(time.Millisecond))
	return d
}

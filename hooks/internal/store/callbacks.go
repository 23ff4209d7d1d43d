package store

import (
	"database/sql"
	"errors"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// The states of a callback. It is pending until ModelRiver accepted it, or until it is
// given up. An event that was refused is never delivered: its callback row ends failed,
// accepted or not, because its content is still to be stored. A row that is deleted is no
// callback: see keepFromComingBack.
const (
	Pending   = "pending"
	Delivered = "delivered"
	Failed    = "failed"
	Deleted   = "deleted"
)

// A Callback is the part of a row of modelriverCallbacks that sending it needs.
//
// Rows change by SQL within the committer's transactions, save when one turns failed,
// which PocketBase saves so that hooks can see it. Every change names the expires of
// the row it was meant for: whoever arms a row again sets another one.
type Callback struct {
	Id       string         `db:"id"`
	URL      string         `db:"url"`
	Host     string         `db:"host"` // as modelriver.Client.Host has it; empty if not allowed
	Attempts int            `db:"attempts"`
	Expires  types.DateTime `db:"expires"` // the end of its window
	Refused  bool           `db:"refused"` // the event was, so that its payload is kept
	Reason   string         `db:"reason"`  // of the refusal, or why the last attempt failed

	// Body is nil if it has not been read from the row. It is empty on a refused row
	// that was armed again: the event is to be ingested once more.
	Body []byte `db:"-"`

	NextAttempt time.Time `db:"-"` // of a new one

	attempted []Attempt // since it was claimed
}

// callbackColumns is what a callback is read with.
const callbackColumns = "id, url, host, attempts, expires, payload != '' AS refused, lastError AS reason"

// Insert writes a new pending row, or arms the row of the same id with this callback. A
// refused event has no recordId, but its payload is kept.
func (cb *Callback) Insert(tx core.App, now time.Time, recordId, payload string) error {
	_, err := commit.Query(tx, `
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
		"attempts": cb.Attempts, "nextAttempt": DateTime(cb.NextAttempt), "expires": cb.Expires,
		"reason": cb.Reason, "payload": payload, "now": DateTime(now),
	}).Execute()
	return err
}

// DeleteCallback deletes the row, if there is one, and its attempts.
func DeleteCallback(tx core.App, id string) error {
	if _, err := tx.NonconcurrentDB().Delete(Callbacks, dbx.HashExp{"id": id}).Execute(); err != nil {
		return err
	}
	return DeleteAttempts(tx, id)
}

// A StoredEvent is what the database has under an event's id.
type StoredEvent struct {
	Record  bool
	State   string // of the callback row; empty if there is none
	Refused bool
}

// FindStored returns what the transaction finds under an event's id.
func FindStored(tx core.App, id string) (stored StoredEvent, err error) {
	rows, err := commit.Query(tx, `
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

// RearmFailed makes a failed row pending again, as if it had just been inserted.
func RearmFailed(tx core.App, id string, now time.Time, expires types.DateTime) error {
	_, err := tx.NonconcurrentDB().NewQuery(`
		UPDATE modelriverCallbacks
		SET state = 'pending', attempts = 0, nextAttempt = {:now}, expires = {:expires}, updated = {:now}
		WHERE id = {:id} AND state = 'failed'`,
	).Bind(dbx.Params{"id": id, "now": DateTime(now), "expires": expires}).Execute()
	return err
}

// PendingHosts returns every host that has a pending callback. It reads one index
// entry for each, however many callbacks there are.
func PendingHosts(app core.App) ([]string, error) {
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

// FindDue returns up to limit callbacks to host that are due. One that lies beyond the
// horizon, further ahead than any delay, is due too: the clock was set back since.
func FindDue(app core.App, host string, now time.Time, horizon time.Duration, limit int) ([]*Callback, error) {
	var due []*Callback
	err := app.ConcurrentDB().NewQuery(`
		SELECT ` + callbackColumns + ` FROM modelriverCallbacks
		WHERE state = 'pending' AND host = {:host} AND nextAttempt <= {:now}
		ORDER BY nextAttempt LIMIT {:limit}`,
	).Bind(dbx.Params{"host": host, "now": DateTime(now), "limit": limit}).All(&due)
	if err != nil || len(due) == limit {
		return due, err
	}
	var ahead []*Callback
	err = app.ConcurrentDB().NewQuery(`
		SELECT ` + callbackColumns + ` FROM modelriverCallbacks
		WHERE state = 'pending' AND host = {:host} AND nextAttempt > {:never}
		ORDER BY nextAttempt LIMIT {:limit}`,
	).Bind(dbx.Params{"host": host, "never": DateTime(now.Add(horizon)), "limit": limit - len(due)}).All(&ahead)
	return append(due, ahead...), err
}

// FindNext returns when the next callback to host is due after now, or the zero time.
func FindNext(app core.App, host string, now time.Time) (time.Time, error) {
	var next types.DateTime
	err := app.ConcurrentDB().NewQuery(`
		SELECT COALESCE(MIN(nextAttempt), '') FROM modelriverCallbacks
		WHERE state = 'pending' AND host = {:host} AND nextAttempt > {:now}`,
	).Bind(dbx.Params{"host": host, "now": DateTime(now)}).Row(&next)
	return next.Time(), err
}

// Claim leases the callback until the given time and counts the attempt that is about
// to be made, so that a crash needs no rescuer: the row is due again by itself. It
// returns false if the row has changed since it was read.
func (cb *Callback) Claim(tx core.App, now, until time.Time) (bool, error) {
	result, err := commit.Query(tx, `
		UPDATE modelriverCallbacks SET attempts = attempts + 1, nextAttempt = {:until}, updated = {:now}
		WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires}`,
	).Bind(dbx.Params{
		"until": DateTime(until), "now": DateTime(now), "id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires,
	}).Execute()
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// IsClaimed reports whether the row is still what it was when the callback was claimed.
func (cb *Callback) IsClaimed(tx core.App) (claimed bool, err error) {
	err = commit.Query(tx, `
		SELECT EXISTS (SELECT 1 FROM modelriverCallbacks
			WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires})`,
	).Bind(dbx.Params{"id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires}).Row(&claimed)
	return claimed, err
}

// Deliver writes down that the callback was accepted.
func (cb *Callback) Deliver(tx core.App, now time.Time, status int) error {
	if err := cb.insertAttempts(tx); err != nil {
		return err
	}
	_, err := commit.Query(tx, `
		UPDATE modelriverCallbacks SET state = 'delivered', deliveredAt = {:now}, lastStatus = {:status}, lastError = '', updated = {:now}
		WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires}`,
	).Bind(dbx.Params{
		"now": DateTime(now), "status": status, "id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires,
	}).Execute()
	return err
}

// Postpone writes down an attempt that failed and when the next one is due.
func (cb *Callback) Postpone(tx core.App, now, next time.Time, status int, lastError string) error {
	if err := cb.insertAttempts(tx); err != nil {
		return err
	}
	_, err := commit.Query(tx, `
		UPDATE modelriverCallbacks SET nextAttempt = {:next}, lastStatus = {:status}, lastError = {:lastError}, updated = {:now}
		WHERE id = {:id} AND state = 'pending' AND attempts = {:attempts} AND expires = {:expires}`,
	).Bind(dbx.Params{
		"next": DateTime(next), "status": status, "lastError": lastError, "now": DateTime(now),
		"id": cb.Id, "attempts": cb.Attempts, "expires": cb.Expires,
	}).Execute()
	return err
}

// Fail turns the callback's row failed, through PocketBase, and sets further fields. A hook may
// not prevent it: the callback would be sent for ever.
func (cb *Callback) Fail(tx core.App, set map[string]any) error {
	if err := cb.insertAttempts(tx); err != nil {
		return err
	}
	record, err := tx.FindRecordById(Callbacks, cb.Id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // deleted by hand
	}
	if err != nil {
		return err
	}
	if record.GetString("state") != Pending || record.GetInt("attempts") != cb.Attempts ||
		!record.GetDateTime("expires").Equal(cb.Expires) {
		return nil // armed again, or edited by hand
	}
	record.Set("state", Failed)
	record.Load(set)
	return saveSurely(tx, record)
}

package store

import (
	"encoding/json"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

const (
	// MaxAttempts is how many attempts of one callback are kept, the latest.
	MaxAttempts = 50

	maxAttemptError = 1000 // characters
)

// An Attempt is one time that a callback was sent, or that it was not, and why.
type Attempt struct {
	At            types.DateTime `json:"at" db:"at"` // when it began
	Status        int            `json:"status" db:"status"`
	Duration      int64          `json:"duration" db:"duration"` // milliseconds
	Error         string         `json:"error" db:"error"`       // why it failed
	Answer        string         `json:"answer" db:"answer"`     // the beginning
	ErrorCallback bool           `json:"errorCallback" db:"errorCallback"`
}

// Note adds an attempt, which is written down with its outcome.
func (cb *Callback) Note(at time.Time, took time.Duration, attempt Attempt) {
	attempt.At, attempt.Duration = DateTime(at), took.Milliseconds()
	if runes := []rune(attempt.Error); len(runes) > maxAttemptError {
		attempt.Error = string(runes[:maxAttemptError]) + "…"
	}
	cb.attempted = append(cb.attempted, attempt)
}

// insertAttempts writes down what was noted, whatever became of the row meanwhile, unless it
// was deleted. An outcome counts for more than how it came about: without it the callback
// would be sent again. So only a database that fails keeps it from being written.
func (cb *Callback) insertAttempts(tx core.App) error {
	for _, attempt := range cb.attempted {
		err := attempt.insert(tx, cb)
		if commit.DatabaseFailed(err) {
			return err
		}
		if err != nil {
			tx.Logger().Error("Failed to store an attempt to send a callback", "error", err, "callback", cb.Id)
		}
	}
	return nil
}

func (a *Attempt) insert(tx core.App, cb *Callback) error {
	_, err := commit.Query(tx, `
		INSERT INTO modelriverAttempts (callback, at, status, duration, error, answer, errorCallback, expires)
		SELECT id, {:at}, {:status}, {:duration}, {:error}, {:answer}, {:errorCallback}, {:expires}
		FROM modelriverCallbacks WHERE id = {:id}`,
	).Bind(dbx.Params{
		"id": cb.Id, "at": a.At, "status": a.Status, "duration": a.Duration, "error": a.Error, "answer": a.Answer,
		"errorCallback": a.ErrorCallback, "expires": cb.Expires,
	}).Execute()
	if err != nil {
		return err
	}
	_, err = commit.Query(tx, `
		DELETE FROM modelriverAttempts WHERE rowid IN (
			SELECT rowid FROM modelriverAttempts WHERE callback = {:id} ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET {:kept}
		)`).Bind(dbx.Params{"id": cb.Id, "kept": MaxAttempts}).Execute()
	return err
}

// DeleteAttempts deletes the attempts of callbacks.
func DeleteAttempts(tx core.App, callbacks ...string) error {
	if len(callbacks) == 0 {
		return nil
	}
	ids, err := json.Marshal(callbacks)
	if err != nil {
		return err
	}
	_, err = tx.NonconcurrentDB().NewQuery(
		"DELETE FROM modelriverAttempts WHERE callback IN (SELECT value FROM json_each({:ids}))",
	).Bind(dbx.Params{"ids": string(ids)}).Execute()
	return err
}

// DeleteOldCallbacks deletes some of the callbacks that were delivered before a time, and of
// the rows of records that were deleted before it, with their attempts. It returns how many.
func DeleteOldCallbacks(tx core.App, before time.Time) (deleted int64, err error) {
	var ids []string
	err = tx.NonconcurrentDB().NewQuery(`
		DELETE FROM modelriverCallbacks WHERE id IN (
			SELECT id FROM modelriverCallbacks
			WHERE state = 'delivered' AND deliveredAt < {:before} OR state = 'deleted' AND created < {:before} LIMIT 1000
		) RETURNING id`).Bind(dbx.Params{"before": DateTime(before)}).Column(&ids)
	if err != nil {
		return 0, err
	}
	return int64(len(ids)), DeleteAttempts(tx, ids...)
}

// FindLostAttempts returns callbacks that have attempts but no row: it was deleted past the
// hooks, by SQL.
func FindLostAttempts(app core.App) (callbacks []string, err error) {
	err = app.ConcurrentDB().NewQuery(`
		SELECT DISTINCT a.callback FROM modelriverAttempts a
		WHERE NOT EXISTS (SELECT 1 FROM modelriverCallbacks c WHERE c.id = a.callback) LIMIT 1000`).Column(&callbacks)
	return callbacks, err
}

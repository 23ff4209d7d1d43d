package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// The states of a request, beside Failed. It is queued until ModelRiver took it, and sent
// until the answer came.
//
// A queued request without nextAttempt is being sent: that is committed before the first
// byte goes out, so that one without is never sent twice and one with it may always be. A
// failed request that expires is one whose outcome is not known: an answer may still come.
const (
	Queued   = "queued"
	Sent     = "sent"
	Answered = "answered"
)

// Unmatched is the userId of content that may be the answer to a request, nobody knows to
// which. It is no id that PocketBase lets a record have, as it has a space in it.
const Unmatched = "unmatched answer"

const (
	// AnswerTime is how long an answer is waited for: ModelRiver sends a webhook again for 3 h
	// 43 min.
	AnswerTime = 4 * time.Hour

	// ReplayTime is how long an answer can still come, because ModelRiver keeps webhooks that
	// nobody took.
	ReplayTime = 30 * 24 * time.Hour
)

// ErrSilent is why nothing was saved when PocketBase says nothing of it.
var ErrSilent = errors.New("a hook ended without calling Next, so nothing was saved")

// saveSurely saves a record through the app's hooks, so that subscribers see it. A hook may
// hear of it, but not prevent it: what the record tells has happened.
func saveSurely(tx core.App, record *core.Record) error {
	written := false
	ctx := context.WithValue(context.Background(), outcome{}, &written)
	err := commit.Safely(tx, func(tx core.App) error { return tx.SaveNoValidateWithContext(ctx, record) })
	if err == nil && !written {
		err = ErrSilent
	}
	if err == nil || commit.DatabaseFailed(err) {
		return err
	}
	tx.Logger().Error("A hook refused what has happened: it is written without hooks", "error", err,
		"collection", record.Collection().Name, "id", record.Id)
	if written {
		record.MarkAsNotNew() // a hook failed behind the row, which is there
	}
	for _, field := range record.Collection().Fields { // which a hook of PocketBase's sets
		if date, ok := field.(*core.AutodateField); ok && (date.OnUpdate || record.GetDateTime(date.Name).IsZero()) {
			record.SetRaw(date.Name, types.NowDateTime())
		}
	}
	return tx.UnsafeWithoutHooks().SaveNoValidate(record)
}

// outcome is the key of a context in which the plugin itself saves what happened. Its value is
// set once that is written.
type outcome struct{}

// noteWritten is next to the statement that writes a record.
func noteWritten(e *core.ModelEvent) error {
	err := e.Next()
	if written, ok := e.Context.Value(outcome{}).(*bool); ok && err == nil {
		*written = true
	}
	return err
}

// IsOutcome reports whether the plugin saves what happened, not somebody what they changed.
func IsOutcome(ctx context.Context) bool { return ctx.Value(outcome{}) != nil }

// Edit has change complete what somebody edits, and the record saved, in one transaction. PocketBase writes
// all fields as they were when it read them, so nothing may be written in between.
func Edit(e *core.RecordEvent, change func(tx core.App) error) error {
	if IsOutcome(e.Context) {
		return e.Next()
	}
	app := e.App // which may be in a transaction of auxiliary.db only
	defer func() { e.App = app }()
	return app.RunInTransaction(func(tx core.App) error {
		e.App = tx
		if err := change(tx); err != nil {
			return err
		}
		return e.Next()
	})
}

// FindDueRequests returns the ids of up to limit requests that are to be sent. One that lies
// beyond the horizon, further ahead than any delay, is due too: the clock was set back since.
func FindDueRequests(app core.App, now time.Time, horizon time.Duration, limit int) (ids []string, err error) {
	err = app.ConcurrentDB().NewQuery(`
		SELECT id FROM aiRequests
		WHERE state = 'queued' AND nextAttempt != '' AND (nextAttempt <= {:now} OR nextAttempt > {:never})
		ORDER BY nextAttempt LIMIT {:limit}`,
	).Bind(dbx.Params{"now": DateTime(now), "never": DateTime(now.Add(horizon)), "limit": limit}).Column(&ids)
	return ids, err
}

// FindNextRequest returns when the next request is to be sent after now, or the zero time.
func FindNextRequest(app core.App, now time.Time) (time.Time, error) {
	next := DateTime(time.Time{})
	err := app.ConcurrentDB().NewQuery(
		"SELECT COALESCE(MIN(nextAttempt), '') FROM aiRequests WHERE state = 'queued' AND nextAttempt > {:now}",
	).Bind(dbx.Params{"now": DateTime(now)}).Row(&next)
	return next.Time(), err
}

// FindUnanswered returns the ids of up to limit requests that have waited for their answer
// for too long.
func FindUnanswered(app core.App, now time.Time, limit int) (ids []string, err error) {
	err = app.ConcurrentDB().NewQuery("SELECT id FROM aiRequests WHERE state = 'sent' AND expires <= {:now} LIMIT {:limit}").
		Bind(dbx.Params{"now": DateTime(now), "limit": limit}).Column(&ids)
	return ids, err
}

// FindSending returns the ids of up to limit requests that are being sent.
func FindSending(app core.App, limit int) (ids []string, err error) {
	err = app.ConcurrentDB().NewQuery("SELECT id FROM aiRequests WHERE state = 'queued' AND nextAttempt = '' LIMIT {:limit}").
		Bind(dbx.Params{"limit": limit}).Column(&ids)
	return ids, err
}

// AnyRequest reports whether there is a request whose answer may come.
func AnyRequest(app core.App) (any bool, err error) {
	err = app.ConcurrentDB().NewQuery("SELECT EXISTS (SELECT 1 FROM aiRequests) OR EXISTS (SELECT 1 FROM modelriverChannels)").Row(&any)
	return any, err
}

// FindRequest returns the request, or nil if it is gone.
func FindRequest(tx core.App, id string) (*core.Record, error) {
	request, err := commit.FindRecord(tx, Requests, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return request, err
}

// ClaimRequest marks the request as being sent and returns what the table has of it, which no
// hook behind the commit can change, or nil if it is not to be sent any more.
func ClaimRequest(tx core.App, id string) (*core.Record, error) {
	request, err := FindRequest(tx, id)
	if err != nil || request == nil {
		return nil, err
	}
	if request.GetString("state") != Queued || request.GetString("nextAttempt") == "" {
		return nil, nil
	}
	request.Set("attempts", request.GetInt("attempts")+1)
	request.Set("nextAttempt", "")
	if err := saveSurely(tx, request); err != nil {
		return nil, err
	}
	claimed, err := FindRequest(tx, id)
	if err != nil || claimed == nil || claimed.GetString("state") != Queued { // a hook has deleted or ended it
		return nil, err
	}
	return claimed, nil
}

// IsAttempt reports whether the request is what it was when it was claimed, but for its
// outcome: one that was armed again since has other attempts, or expires later.
func IsAttempt(request, claimed *core.Record) bool {
	return request.GetInt("attempts") == claimed.GetInt("attempts") &&
		(request.GetString("state") != Queued || request.GetDateTime("expires").Equal(claimed.GetDateTime("expires")))
}

// ForgetOpen forgets that an answer may come to a request that is gone, as ModelRiver did not
// take its last attempt.
func ForgetOpen(tx core.App, id string) error {
	_, err := tx.NonconcurrentDB().NewQuery(`DELETE FROM modelriverChannels WHERE rowid =
		(SELECT MAX(rowid) FROM modelriverChannels WHERE request = {:id} AND channelId = '')`).Bind(dbx.Params{"id": id}).Execute()
	return err
}

// EndRequest turns the request failed, for a reason that its user may read. until is how
// long an answer may come all the same, the zero time if none can.
func EndRequest(tx core.App, request *core.Record, reason string, until time.Time) error {
	request.Set("state", Failed)
	request.Set("error", reason)
	request.Set("nextAttempt", "")
	request.Set("expires", DateTime(until))
	return saveSurely(tx, request)
}

// KeepChannel remembers whose the answer to a request is that is not, or not in this shape,
// in aiRequests. Without a channel, it is one that is not known yet, while until has not
// come.
func KeepChannel(tx core.App, request *core.Record, channelId string, until time.Time) error {
	collection, err := tx.FindCachedCollectionByNameOrId(Channels)
	if err != nil {
		return err
	}
	channel := core.NewRecord(collection)
	channel.Set("request", request.Id)
	channel.Set("channelId", channelId)
	channel.Set("userId", request.GetString("userId"))
	channel.Set("asked", request.GetString("created"))
	channel.Set("expires", DateTime(until))
	return saveSurely(tx, channel)
}

// PostponeRequest has a request that is being sent, but was not taken, sent again.
func PostponeRequest(tx core.App, request *core.Record, next time.Time) error {
	request.Set("nextAttempt", DateTime(next))
	return saveSurely(tx, request)
}

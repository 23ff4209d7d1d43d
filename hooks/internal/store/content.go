package store

import (
	"encoding/json"
	"time"

	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// BindContent adds the hooks that keep content readable, deleted content deleted, with what
// was answered to its callback, and what was made for one user from everybody else; and the one
// that knows what the app's hooks let be written.
func BindContent(app core.App) {
	written := &hook.Handler[*core.ModelEvent]{
		Id: "modelriverWritten", Func: noteWritten, Priority: 9999, // behind the app's own, around the committer's
	}
	app.OnModelCreateExecute(Content, Callbacks, Requests, Channels).Bind(written)
	app.OnModelUpdateExecute(Content, Callbacks, Requests, Channels).Bind(written)
	readable := &hook.Handler[*core.RecordEvent]{
		Id: "modelriverReadable", Func: keepReadable, Priority: 9999, // behind the app's own
	}
	app.OnRecordCreateExecute(Content).Bind(readable)
	app.OnRecordUpdateExecute(Content).Bind(readable)
	app.OnRecordUpdateExecute(Content).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverOwner", Func: keepOwner, Priority: 10000, // next to the UPDATE, as it holds a transaction
	})
	app.OnRecordDeleteExecute(Content).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverDeleted", Func: keepFromComingBack, Priority: 10000, // inside PocketBase's transaction
	})
	app.OnRecordDeleteExecute(Content, Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverForgetAttempts", Func: forgetAttempts, Priority: 10000,
	})
	app.OnRecordUpdate(Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverDeleted", Func: keepDeleted,
	})
	app.OnRecordCreateRequest().Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "modelriverUserId", Func: guardUserId, Priority: -10000, // the client's id, before a hook sets another
	})
}

// keepReadable is bound to every save of a record: what the app's hooks or the dashboard
// put into a JSON field is made readable too.
func keepReadable(e *core.RecordEvent) error {
	for _, field := range e.Record.Collection().Fields {
		raw, ok := e.Record.GetRaw(field.GetName()).(types.JSONRaw)
		if !ok {
			continue
		}
		fit, err := rawjson.Readable(json.RawMessage(raw))
		if err != nil {
			return validation.Errors{field.GetName(): validation.NewError("validation_invalid_json", err.Error())}
		}
		e.Record.SetRaw(field.GetName(), types.JSONRaw(fit))
	}
	return e.Next()
}

// keepOwner leaves content whose it is by now, unless who saves it sets another user: PocketBase
// writes all fields as they were when it read them, which for a slow hook is long ago.
func keepOwner(e *core.RecordEvent) error {
	return Edit(e, func(tx core.App) error {
		// A record that was created here has no original. Nobody else sets Unmatched.
		if userId := e.Record.GetString("userId"); userId == e.Record.Original().GetString("userId") || userId == Unmatched {
			var owner []string
			err := tx.NonconcurrentDB().NewQuery("SELECT userId FROM aiContent WHERE id = {:id}").
				Bind(dbx.Params{"id": e.Record.Id}).Column(&owner)
			if err != nil {
				return err
			}
			if len(owner) > 0 {
				e.Record.Set("userId", owner[0])
			}
		}
		return nil
	})
}

// keepFromComingBack leaves a row in the place of the callback of a record without one,
// in the transaction that deletes the record, so that the same webhook does not store it
// again. It is kept as long as a delivered callback.
func keepFromComingBack(e *core.RecordEvent) error {
	if err := e.Next(); err != nil {
		return err
	}
	_, err := e.App.NonconcurrentDB().NewQuery(`
		INSERT INTO modelriverCallbacks (id, state, lastError, created, updated)
		VALUES ({:id}, {:state}, {:reason}, {:now}, {:now}) ON CONFLICT (id) DO NOTHING`,
	).Bind(dbx.Params{
		"id": e.Record.Id, "state": Deleted, "now": DateTime(time.Now()),
		"reason": "The record was deleted: the same webhook is not stored again while this row is kept",
	}).Execute()
	return err
}

// forgetAttempts deletes what was answered to a callback with it, or with its record, in the
// transaction that deletes that.
func forgetAttempts(e *core.RecordEvent) error {
	if err := e.Next(); err != nil {
		return err
	}
	return DeleteAttempts(e.App, e.Record.Id)
}

// keepDeleted refuses to send a row that is no callback.
func keepDeleted(e *core.RecordEvent) error {
	if e.Record.Original().GetString("state") == Deleted && e.Record.GetString("state") != Deleted {
		return validation.Errors{"state": validation.NewError("validation_deleted",
			"The record was deleted, so there is no callback to send: delete this row to let the webhook come again")}
	}
	return e.Next()
}

// guardUserId keeps whoever signs up, in any collection of users, from choosing an id
// that content names: what was made for a user who was deleted would be theirs. PocketBase
// lets anyone choose an id; it sets one itself only later, when it saves the record. Of
// payloads only those of refused events count: no other becomes content again.
//
// The answer is that for the id of a user that exists, so that it tells of no content.
func guardUserId(e *core.RecordRequestEvent) error {
	if !e.Collection.IsAuth() || e.Record.Id == "" || e.HasSuperuserAuth() {
		return e.Next()
	}
	var named bool
	err := e.App.DB().NewQuery(`
		SELECT EXISTS (SELECT 1 FROM aiContent WHERE userId = {:id})
			OR EXISTS (SELECT 1 FROM aiRequests WHERE userId = {:id})
			OR EXISTS (SELECT 1 FROM modelriverChannels WHERE userId = {:id})
			OR EXISTS (SELECT 1 FROM modelriverCallbacks WHERE payload != '' AND instr(payload, {:id}))`,
	).Bind(dbx.Params{"id": e.Record.Id}).Row(&named)
	if err != nil {
		return e.InternalServerError("Failed to create record.", err)
	}
	if named {
		return e.BadRequestError("Failed to create record.", validation.Errors{
			"id": validation.NewError("validation_not_unique", "Value must be unique."),
		})
	}
	return e.Next()
}

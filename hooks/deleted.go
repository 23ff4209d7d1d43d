package hooks

import (
	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
)

// stateDeleted is the state of a row that is no callback: it takes the place of one for
// a record without, once that is deleted, so that the same webhook does not store it
// again. It is kept as long as a delivered callback.
const stateDeleted = "deleted"

// rememberDeleted runs in the transaction that deletes a record.
func (p *plugin) rememberDeleted(e *core.RecordEvent) error {
	if err := e.Next(); err != nil {
		return err
	}
	_, err := e.App.NonconcurrentDB().NewQuery(`
		INSERT INTO modelriverCallbacks (id, state, lastError, created, updated)
		VALUES ({:id}, {:state}, {:reason}, {:now}, {:now}) ON CONFLICT (id) DO NOTHING`,
	).Bind(dbx.Params{
		"id": e.Record.Id, "state": stateDeleted, "now": dateTime(p.outbox.now()),
		"reason": "The record was deleted: the same webhook is not stored again while this row is kept",
	}).Execute()
	return err
}

// keepDeleted refuses to send a row that is no callback.
func keepDeleted(e *core.RecordEvent) error {
	if e.Record.Original().GetString("state") == stateDeleted && e.Record.GetString("state") != stateDeleted {
		return validation.Errors{"state": validation.NewError("validation_deleted",
			"The record was deleted, so there is no callback to send: delete this row to let the webhook come again")}
	}
	return e.Next()
}

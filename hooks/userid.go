package hooks

import (
	"github.com/pocketbase/dbx"
	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/core"
)

// guardUserId keeps whoever signs up, in any collection of users, from choosing an id
// that content names: what was made for a user who was deleted would be theirs. PocketBase
// lets anyone choose an id; it sets one itself only later, when it saves the record.
//
// The answer is that for the id of a user that exists, so that it tells of no content.
func guardUserId(e *core.RecordRequestEvent) error {
	if !e.Collection.IsAuth() || e.Record.Id == "" || e.HasSuperuserAuth() {
		return e.Next()
	}
	var named bool
	err := e.App.DB().NewQuery(`
		SELECT EXISTS (SELECT 1 FROM aiContent WHERE userId = {:id})
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

package outbox

import (
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Bind adds the outbox's hooks to its app: for rows that someone edits, in the dashboard
// or by the retry command, and for those that are done with.
func (o *Outbox) Bind() {
	o.app.OnRecordUpdate(store.Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverRearm",
		Func: func(e *core.RecordEvent) error {
			o.rearmEdited(e.Record)
			return e.Next()
		},
	})
	o.app.OnRecordAfterUpdateSuccess(store.Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverWake",
		Func: func(e *core.RecordEvent) error {
			if e.Record.GetString("state") == store.Pending {
				o.Wake()
			}
			return e.Next()
		},
	})
	o.bindRequests()
	// Daily, at an hour when little else runs. It may be run from the dashboard too.
	o.app.Cron().MustAdd("modelriverRetention", "17 3 * * *", o.deleteOld)
}

// rearmEdited prepares a row that someone sets back to pending to be sent as if it were
// new.
func (o *Outbox) rearmEdited(record *core.Record) {
	if record.GetString("state") != store.Pending || record.Original().GetString("state") == store.Pending {
		return
	}
	now := o.Now()
	record.Set("attempts", 0)
	record.Set("nextAttempt", store.DateTime(now))
	record.Set("expires", store.DateTime(now.Add(o.options.Window)))
	record.Set("deliveredAt", "")
	if record.GetString("payload") != "" {
		record.Set("body", "") // the event is ingested again
	}
	if host, err := o.client.Host(record.GetString("url")); err == nil {
		record.Set("host", host) // allowed since
	}
}

// deleteOld deletes callbacks that were delivered longer ago than Retention, and rows of
// records that were deleted longer ago; and requests as old that ended.
func (o *Outbox) deleteOld() {
	if err := o.deleteEnded(); err != nil {
		o.app.Logger().Warn("Failed to delete ended requests", "error", err)
	}
	before := store.DateTime(o.Now().Add(-o.options.Retention))
	for {
		var deleted int64
		err := o.commits.Do(func(tx core.App) error {
			result, err := tx.NonconcurrentDB().NewQuery(`
				DELETE FROM modelriverCallbacks WHERE id IN (
					SELECT id FROM modelriverCallbacks
					WHERE state = 'delivered' AND deliveredAt < {:before} OR state = 'deleted' AND created < {:before} LIMIT 1000
				)`).Bind(dbx.Params{"before": before}).Execute()
			if err != nil {
				return err
			}
			deleted, err = result.RowsAffected()
			return err
		})
		if err != nil {
			o.app.Logger().Warn("Failed to delete delivered callbacks", "error", err)
			return
		}
		if deleted == 0 {
			return
		}
	}
}

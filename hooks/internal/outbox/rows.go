package outbox

import (
	"database/sql"
	"errors"
	"slices"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// RetentionJob is the id of the cron job that deletes what is old, also of what each of several nodes has of its own.
const RetentionJob = "modelriverRetention"

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
	o.app.OnRecordUpdateExecute(store.Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverEditedCallback", Func: o.callbackEdited, Priority: 10000, // next to the UPDATE, as it holds a transaction
	})
	o.app.OnRecordAfterUpdateSuccess(store.Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverWake", Priority: -10000, // before a hook of the app's that fails
		Func: func(e *core.RecordEvent) error {
			if e.Record.GetString("state") == store.Pending {
				o.Wake()
			} else {
				o.withdraw(e.Record.Id)
			}
			return e.Next()
		},
	})
	o.app.OnRecordAfterDeleteSuccess(store.Callbacks).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverWithdraw", Priority: -10000,
		Func: func(e *core.RecordEvent) error {
			o.withdraw(e.Record.Id)
			return e.Next()
		},
	})
	o.bindRequests()
	// Daily, at an hour when little else runs. It may be run from the dashboard too.
	o.app.Cron().MustAdd(RetentionJob, "17 3 * * *", o.deleteOld)
}

// callbackEdited leaves what the editor did not change as the row has it now: PocketBase writes all
// fields as they were when it read them. One that has ended since, or was armed again, stays so.
func (o *Outbox) callbackEdited(e *core.RecordEvent) error {
	return store.Edit(e, func(tx core.App) error {
		row, err := tx.FindRecordById(store.Callbacks, e.Record.Id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		loaded, outcome := e.Record.Original(), []string{"attempts", "nextAttempt", "expires", "lastStatus", "lastError", "deliveredAt"}
		ended := row.GetString("state") != loaded.GetString("state") || row.GetString("expires") != loaded.GetString("expires")
		// Of a record that is saved a second time, as by a hook that hears of it, the original is older.
		ended = ended && slices.ContainsFunc(outcome, func(name string) bool { return e.Record.GetString(name) != row.GetString(name) })
		for _, field := range e.Record.Collection().Fields {
			name := field.GetName()
			if ended && (name == "state" || slices.Contains(outcome, name)) || e.Record.GetString(name) == loaded.GetString(name) {
				e.Record.Set(name, row.Get(name))
			}
		}
		return nil
	})
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
// records that were deleted longer ago; requests as old that ended; and payloads that came
// longer ago than PayloadRetention. Counts of rejected webhooks have a time of their own. Where
// several nodes share the database each has payloads of its own, and the one that leads deletes
// the rest.
func (o *Outbox) deleteOld() {
	now := o.Now()
	warn := func(what string, err error) {
		if err != nil {
			o.app.Logger().Warn("Failed to delete "+what, "error", err)
		}
	}
	if o.Leads() {
		warn("old counts of rejected webhooks", o.commits.Do(func(tx core.App) error {
			return store.DeleteRejections(tx, now.Add(-store.RejectionsKept))
		}))
		warn("ended requests", o.deleteEnded())
		warn("delivered callbacks", o.deleteBatches(func(tx core.App) (int64, error) {
			return store.DeleteOldCallbacks(tx, now.Add(-o.options.Retention))
		}))
		warn("attempts whose callback was deleted", o.deleteLostAttempts())
	}
	warn("old payloads", deleteAll(func() (int64, error) {
		return store.DeleteOldPayloads(o.app, now.Add(-o.options.PayloadRetention))
	}))
	warn("payloads whose record was deleted", store.DeleteLostPayloads(o.app))
}

// deleteBatches deletes until nothing is left, each time in a transaction of its own, so that
// webhooks are stored in between.
func (o *Outbox) deleteBatches(deleteSome func(tx core.App) (deleted int64, err error)) error {
	return deleteAll(func() (deleted int64, err error) {
		err = o.commits.Do(func(tx core.App) (err error) {
			deleted, err = deleteSome(tx)
			return err
		})
		return deleted, err
	})
}

// deleteAll deletes until nothing is left.
func deleteAll(deleteSome func() (deleted int64, err error)) error {
	for {
		if deleted, err := deleteSome(); err != nil || deleted == 0 {
			return err
		}
	}
}

// deleteLostAttempts looks for them outside of the transactions, as it reads all.
func (o *Outbox) deleteLostAttempts() error {
	for {
		callbacks, err := store.FindLostAttempts(o.app)
		if err != nil || len(callbacks) == 0 {
			return err
		}
		err = o.commits.Do(func(tx core.App) error { return store.DeleteAttempts(tx, callbacks...) })
		if err != nil {
			return err
		}
	}
}

package outbox

import (
	"slices"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// bindRequests adds the hooks for requests: new ones, those that someone edits, in the
// dashboard or by a hook, and those that are deleted. A request is sent only once it is
// committed, for that is when it is found in the table.
func (o *Outbox) bindRequests() {
	o.app.OnRecordCreate(store.Requests).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverQueue",
		Func: func(e *core.RecordEvent) error {
			if state := e.Record.GetString("state"); state == "" || state == store.Queued {
				o.queue(e.Record)
			}
			return e.Next()
		},
	})
	o.app.OnRecordUpdateExecute(store.Requests).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverEdited", Func: o.edited, Priority: 10000, // next to the UPDATE, as it holds a transaction
	})
	note := &hook.Handler[*core.RecordEvent]{
		Id: "modelriverNote",
		Func: func(e *core.RecordEvent) error {
			o.noteRequest(e.Record)
			return e.Next()
		},
	}
	o.app.OnRecordAfterCreateSuccess(store.Requests).Bind(note)
	o.app.OnRecordAfterUpdateSuccess(store.Requests).Bind(note)
	o.app.OnRecordDeleteExecute(store.Requests).Bind(&hook.Handler[*core.RecordEvent]{
		Id: "modelriverKeepChannel", Priority: 10000, // inside PocketBase's transaction
		Func: func(e *core.RecordEvent) error {
			row, err := store.FindRequest(e.App, e.Record.Id) // what the deleter had loaded may be older
			if err != nil {
				return err
			}
			if err := e.Next(); err != nil || row == nil {
				return err
			}
			return o.keepChannel(e.App, row)
		},
	})
}

// queue makes the request one that was never sent.
func (o *Outbox) queue(request *core.Record) {
	now := o.Now()
	request.Set("state", store.Queued)
	request.Set("attempts", 0)
	request.Set("nextAttempt", store.DateTime(now))
	request.Set("expires", store.DateTime(now.Add(askWindow)))
	request.Set("channelId", "")
	request.Set("record", "")
	request.Set("error", "")
}

// noteRequest has a request sent that is to be sent, and its answer looked for.
func (o *Outbox) noteRequest(request *core.Record) {
	o.asking.used.Store(true)
	if request.GetString("state") == store.Queued && !isSending(request) {
		o.asking.loop.wakeUp()
	}
}

// keepChannel remembers whose the answer to a request is that is deleted or asked again, if
// it was ever sent.
func (o *Outbox) keepChannel(tx core.App, request *core.Record) error {
	if request.GetInt("attempts") == 0 {
		return nil
	}
	until := time.Time{}
	switch {
	case isSending(request):
		until = o.Now().Add(store.ReplayTime)
	case request.GetString("state") == store.Failed:
		until = request.GetDateTime("expires").Time()
	}
	return store.KeepChannel(tx, request, request.GetString("channelId"), until)
}

// deleteEnded deletes requests that ended and are older than Retention, and channels from
// which no answer can come any more.
func (o *Outbox) deleteEnded() error {
	params := dbx.Params{
		"before": store.DateTime(o.Now().Add(-o.options.Retention)),
		"now":    store.DateTime(o.Now()), "replayed": store.DateTime(o.Now().Add(-store.ReplayTime)),
	}
	var last []string
	for {
		var ids []string
		// The inner query reads an index only, not the inputs.
		err := o.app.ConcurrentDB().NewQuery(`
			SELECT id FROM aiRequests WHERE state IN ('answered', 'failed')
			AND rowid IN (SELECT rowid FROM aiRequests WHERE created < {:before}) LIMIT 100`).Bind(params).Column(&ids)
		if err != nil {
			return err
		}
		if len(ids) == 0 || slices.Equal(ids, last) { // a hook keeps them
			break
		}
		last = ids
		remove := func(tx core.App, request *core.Record) error { return tx.Delete(request) }
		if err = o.changeRequests(ids, remove); commit.DatabaseFailed(err) {
			return err
		}
		if err == nil {
			continue
		}
		for _, id := range ids { // which of them a hook keeps
			if err := o.changeRequests([]string{id}, remove); err != nil {
				o.app.Logger().Warn("Failed to delete an ended request", "error", err, "request", id)
			}
		}
	}
	_, err := o.app.NonconcurrentDB().NewQuery(
		"DELETE FROM modelriverChannels WHERE created < {:replayed} AND expires < {:now}").Bind(params).Execute()
	return err
}

package store

import (
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// A Payload is a webhook as it came.
type Payload struct {
	Id      string // of its record
	Came    time.Time
	Payload []byte
	Headers string // a JSON object of those that are kept
	Scheme  string // in which it was signed
}

// Insert keeps the payload, unless its record was deleted meanwhile, or the row of a refused event. An event that was
// refused may come again with other content: what became of the later one replaces the first.
func (p *Payload) Insert(tx core.App) error {
	_, err := commit.Query(tx, `
		INSERT INTO modelriverPayloads (id, scheme, size, created, headers, payload)
		SELECT {:id}, {:scheme}, {:size}, {:came}, {:headers}, {:payload}
		WHERE EXISTS (SELECT 1 FROM aiContent WHERE id = {:id}) OR EXISTS (SELECT 1 FROM modelriverCallbacks WHERE id = {:id} AND payload > '')
		ON CONFLICT (id) DO UPDATE SET scheme = excluded.scheme, size = excluded.size, created = excluded.created,
			headers = excluded.headers, payload = excluded.payload`,
	).Bind(dbx.Params{
		"id": p.Id, "scheme": p.Scheme, "size": len(p.Payload), "came": DateTime(p.Came), "headers": p.Headers, "payload": string(p.Payload),
	}).Execute()
	return err
}

// DeleteOldPayloads deletes some of the payloads that came before a time, of those whose rows are
// the oldest, and returns how many: an index on created would cost each webhook, and no other
// query needs one. It takes no longer for large ones: few of them are deleted then.
func DeleteOldPayloads(tx core.App, before time.Time) (deleted int64, err error) {
	result, err := tx.NonconcurrentDB().NewQuery(`
		DELETE FROM modelriverPayloads WHERE rowid IN (
			SELECT id FROM (
				SELECT id, size, SUM(size) OVER (ORDER BY id) AS total FROM (
					SELECT rowid AS id, created, size FROM modelriverPayloads ORDER BY rowid LIMIT 1000
				) WHERE created < {:before}
			) WHERE total - size < 16777216
		)`).Bind(dbx.Params{"before": DateTime(before)}).Execute()
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// forgetContent deletes what is kept beside a record, in the transaction that deletes it:
// the payload, which has all of it, and what was answered to its callback.
func forgetContent(e *core.RecordEvent) error {
	if err := e.Next(); err != nil {
		return err
	}
	_, err := e.App.NonconcurrentDB().Delete(Payloads, dbx.HashExp{"id": e.Record.Id}).Execute()
	if err != nil {
		return err
	}
	return DeleteAttempts(e.App, e.Record.Id)
}

// forgetCallback deletes what is kept beside a callback row: its attempts, and the payload
// of an event that was refused, which has no record to go with.
func forgetCallback(e *core.RecordEvent) error {
	if err := e.Next(); err != nil {
		return err
	}
	_, err := e.App.NonconcurrentDB().NewQuery(
		"DELETE FROM modelriverPayloads WHERE id = {:id} AND NOT EXISTS (SELECT 1 FROM aiContent WHERE id = {:id})",
	).Bind(dbx.Params{"id": e.Record.Id}).Execute()
	if err != nil {
		return err
	}
	return DeleteAttempts(e.App, e.Record.Id)
}

package store

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// A Payload is a webhook as it came.
//
// Payloads are in a table of auxiliary.db, where PocketBase has its logs, each under the id of its
// record: data.db has one writer, for which webhooks wait, and this file has another. The table is
// made when the first payload comes, so that an operator may delete the file. No transaction holds
// both files: a payload is written after its record, and deleted after it.
type Payload struct {
	Id      string // of its record
	Came    time.Time
	Payload []byte
	Headers string // a JSON object of those that are kept
	Scheme  string // in which it was signed
}

// InsertPayloads keeps payloads, except those whose record was deleted meanwhile, or the row of a
// refused event. An event that was refused may come again with other content: what became of the
// later one replaces the first.
func InsertPayloads(app core.App, payloads []*Payload) error {
	ids := make([]string, len(payloads))
	for i, p := range payloads {
		ids[i] = p.Id
	}
	stored, err := findContent(app, ids)
	if err != nil {
		return err
	}
	payloads = slices.DeleteFunc(payloads, func(p *Payload) bool { return !stored[p.Id] })
	if len(payloads) == 0 {
		return nil
	}
	insert := func() error {
		return app.AuxRunInTransaction(func(tx core.App) error { return insertPayloads(tx, payloads) })
	}
	if err = insert(); !isPayloadsMissing(err) {
		return err
	}
	if err := createPayloads(app); err != nil {
		return err
	}
	return insert()
}

func isPayloadsMissing(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no such table: "+Payloads)
}

func createPayloads(app core.App) error {
	_, err := app.AuxNonconcurrentDB().NewQuery(`
		CREATE TABLE IF NOT EXISTS modelriverPayloads (
			id TEXT PRIMARY KEY NOT NULL, scheme TEXT NOT NULL, size INTEGER NOT NULL, created TEXT NOT NULL, headers TEXT NOT NULL,
			payload TEXT NOT NULL -- last, so that the others are read without it
		)`).Execute()
	return err
}

func insertPayloads(tx core.App, payloads []*Payload) error {
	query := tx.AuxNonconcurrentDB().NewQuery(`
		INSERT INTO modelriverPayloads (id, scheme, size, created, headers, payload)
		VALUES ({:id}, {:scheme}, {:size}, {:came}, {:headers}, {:payload})
		ON CONFLICT (id) DO UPDATE SET scheme = excluded.scheme, size = excluded.size, created = excluded.created,
			headers = excluded.headers, payload = excluded.payload`).Prepare()
	if query.LastError != nil {
		return query.LastError
	}
	defer query.Close()
	for _, p := range payloads {
		_, err := query.Bind(dbx.Params{
			"id": p.Id, "scheme": p.Scheme, "size": len(p.Payload), "came": DateTime(p.Came), "headers": p.Headers, "payload": string(p.Payload),
		}).Execute()
		if err != nil {
			return err
		}
	}
	return nil
}

// findContent returns under which ids there is a record, or the row of a refused event.
func findContent(app core.App, ids []string) (map[string]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	var found []string
	err = app.ConcurrentDB().NewQuery(`
		SELECT one.value FROM json_each({:ids}) one
		WHERE EXISTS (SELECT 1 FROM aiContent WHERE id = one.value)
			OR EXISTS (SELECT 1 FROM modelriverCallbacks WHERE id = one.value AND payload > '')`,
	).Bind(dbx.Params{"ids": string(list)}).Column(&found)
	if err != nil {
		return nil, err
	}
	stored := make(map[string]bool, len(found))
	for _, id := range found {
		stored[id] = true
	}
	return stored, nil
}

// DeletePayloads deletes those of the payloads that belong to nothing any more, few at a time.
func DeletePayloads(app core.App, ids []string) error {
	for some := range slices.Chunk(ids, 100) {
		stored, err := findContent(app, some)
		if err != nil {
			return err
		}
		var lost []any
		for _, id := range some {
			if !stored[id] {
				lost = append(lost, id)
			}
		}
		if len(lost) == 0 {
			continue
		}
		_, err = app.AuxNonconcurrentDB().Delete(Payloads, dbx.In("id", lost...)).Execute()
		if err != nil && !isPayloadsMissing(err) {
			return err
		}
	}
	return nil
}

// DeleteLostPayloads deletes the payloads that belong to nothing any more: what they belonged to
// was deleted past the hooks, by SQL, or a crash came in between.
func DeleteLostPayloads(app core.App) error {
	last := ""
	for {
		var ids []string
		err := app.AuxConcurrentDB().NewQuery("SELECT id FROM modelriverPayloads WHERE id > {:last} ORDER BY id LIMIT 1000").
			Bind(dbx.Params{"last": last}).Column(&ids)
		if isPayloadsMissing(err) {
			return nil
		}
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := DeletePayloads(app, ids); err != nil {
			return err
		}
		last = ids[len(ids)-1]
	}
}

// DeleteOldPayloads deletes some of the payloads that came before a time, of those whose rows are
// the oldest, and returns how many: an index on created would cost each webhook, and no other
// query needs one. It takes no longer for large ones: few of them are deleted then.
func DeleteOldPayloads(app core.App, before time.Time) (deleted int64, err error) {
	result, err := app.AuxNonconcurrentDB().NewQuery(`
		DELETE FROM modelriverPayloads WHERE rowid IN (
			SELECT id FROM (
				SELECT id, size, SUM(size) OVER (ORDER BY id) AS total FROM (
					SELECT rowid AS id, created, size FROM modelriverPayloads ORDER BY rowid LIMIT 1000
				) WHERE created < {:before}
			) WHERE total - size < 16777216
		)`).Bind(dbx.Params{"before": DateTime(before)}).Execute()
	if isPayloadsMissing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

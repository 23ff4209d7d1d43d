package store

import (
	"log/slog"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

// RejectedMessage is the message of the log rows that count rejected webhooks. Their
// attributes are count, error and remedy.
const RejectedMessage = "Rejected ModelRiver webhooks"

// Rejected is what is told of webhooks that were answered with an error unread.
type Rejected struct {
	Count  int            `json:"count" db:"count"`
	Last   types.DateTime `json:"last" db:"last"`
	Reason string         `json:"reason" db:"reason"` // of the last one
	Remedy string         `json:"remedy" db:"remedy"`
}

// ReadRejected reads from the log, which other processes write too, what was rejected
// since. It returns nil if the log is not kept.
func ReadRejected(app core.App, since time.Time) (*Rejected, error) {
	if logs := app.Settings().Logs; logs.MaxDays == 0 || logs.MinLevel > int(slog.LevelWarn) {
		return nil, nil
	}
	// Beside MAX, SQLite takes the other columns from the row that has it.
	result := &Rejected{}
	err := app.AuxConcurrentDB().NewQuery(`
		SELECT COALESCE(SUM(json_extract(data, '$.count')), 0) AS count, COALESCE(MAX(created), '') AS last,
			COALESCE(json_extract(data, '$.error'), '') AS reason, COALESCE(json_extract(data, '$.remedy'), '') AS remedy
		FROM _logs WHERE message = {:message} AND created >= {:since}`,
	).Bind(dbx.Params{"message": RejectedMessage, "since": DateTime(since)}).One(result)
	return result, err
}

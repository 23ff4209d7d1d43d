package store

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A deliveryRow is a delivery as the database has it.
type deliveryRow struct {
	Delivery
	Received types.DateTime `db:"received"` // of the callback row
	Payload  string         `db:"payload"`  // of a refused one
	Refused  bool           `db:"refused"`
}

// readDeliveries returns those of the deliveries that are there, by id.
func readDeliveries(app core.App, ids []string) (map[string]*Delivery, error) {
	list, err := json.Marshal(ids)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	var rows []deliveryRow
	err = app.ConcurrentDB().NewQuery(`
		SELECT wanted.value AS id, COALESCE(a.created, c.created) AS created,
			COALESCE(a.title, '') AS title, COALESCE(a.eventName, '') AS event, COALESCE(a.category, '') AS category,
			COALESCE(a.userId, '') AS userId, COALESCE(a.channelId, '') AS channelId, COALESCE(a.id, '') AS record,
			COALESCE(c.state, '') AS callback, COALESCE(c.attempts, 0) AS attempts, COALESCE(c.lastStatus, 0) AS lastStatus,
			COALESCE(c.lastError, '') AS lastError, COALESCE(c.deliveredAt, '') AS deliveredAt, COALESCE(c.created, '') AS received,
			iif(c.state = 'pending', c.nextAttempt, '') AS nextAttempt,
			iif(a.id IS NULL, c.payload, '') AS payload, octet_length(COALESCE(c.payload, '')) > 0 AS refused
		FROM json_each({:ids}) wanted
			LEFT JOIN aiContent a ON a.id = wanted.value
			LEFT JOIN modelriverCallbacks c ON c.id = wanted.value
		WHERE a.id IS NOT NULL OR c.id IS NOT NULL`,
	).Bind(dbx.Params{"ids": string(list)}).All(&rows)
	if err != nil {
		return nil, err
	}
	deliveries := make(map[string]*Delivery, len(rows))
	for _, row := range rows {
		deliveries[row.Id] = row.delivery()
	}
	return deliveries, nil
}

func (r *deliveryRow) delivery() *Delivery {
	d := r.Delivery
	if r.Payload != "" {
		refused := contentOf(r.Payload)
		d.Title, d.Event, d.Category = refused.Title, refused.Event, refused.Category
		d.UserId, d.ChannelId = refused.UserId, refused.ChannelId
	}
	switch {
	case r.Refused:
		d.State = Refused
	case d.Callback == Pending:
		d.State = Waiting
	case d.Callback == Failed:
		d.State = Failed
	case d.Record == "":
		d.State = Deleted
	case d.Callback == Delivered:
		d.State = Delivered
	default:
		d.State = Stored
	}
	if d.Callback == Delivered {
		took := d.DeliveredAt.Sub(r.Received).Milliseconds()
		d.Took = &took
	}
	return &d
}

// contentOf returns what of the content a refused event would have had is shown.
func contentOf(payload string) Delivery {
	event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
	if err != nil {
		return Delivery{Title: "Untitled"}
	}
	text := func(s string, most int) string { return FirstCharacters(strings.ToValidUTF8(s, "\uFFFD"), most) } // as fields of a new collection take it
	d := Delivery{
		Title: text(event.Title, 500), Event: text(event.Name, 1000), Category: text(event.Category, 1000),
		UserId: text(event.UserID, 1000), ChannelId: text(event.ChannelID, 1000),
	}
	if strings.TrimSpace(d.Title) == "" {
		d.Title = "Untitled"
	}
	if d.Category == "" {
		d.Category = "general"
	}
	return d
}

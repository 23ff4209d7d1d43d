package migrations

import (
	"database/sql"
	"errors"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/dbutils"
)

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			// So that an event's records, and what was refused or failed, are found in the order
			// of a list. A collection that the app had before lacks the other indexes as well.
			err := addIndexes(tx, "aiContent", []index{
				{"idx_modelriver_channel", "channelId", ""},
				{"idx_modelriver_event", "eventName, created, id", ""},
				{"idx_modelriver_created", "created, id", ""},
				{"idx_modelriver_user", "userId, created", ""},
			})
			if err != nil {
				return err
			}
			return addIndexes(tx, "modelriverCallbacks", []index{
				{"idx_modelriver_refused", "created, id", "payload != ''"},
				{"idx_modelriver_failed", "state, created, id", "state = 'failed'"}, // with state, or SQLite prefers another by it
			})
		})
	}, nil, "1767226200_modelriver_lists.go")
}

type index struct{ name, columns, where string }

// addIndexes gives the collection the indexes that it does not have as they are here.
// PocketBase makes all of a collection's indexes again when one changes, or their order.
// One that was renamed gets them too, and if it was deleted, the server starts all the same:
// it creates it again, by every migration.
func addIndexes(app core.App, name string, indexes []index) error {
	wanted := core.NewBaseCollection(name)
	c, err := app.FindCollectionByNameOrId(name)
	if errors.Is(err, sql.ErrNoRows) {
		c, err = app.FindCollectionByNameOrId(wanted.Id)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	changed := false
	for _, i := range indexes {
		wanted.AddIndex(i.name, false, i.columns, i.where)
		if dbutils.ParseIndex(c.GetIndex(i.name)).Build() != dbutils.ParseIndex(wanted.GetIndex(i.name)).Build() {
			c.AddIndex(i.name, false, i.columns, i.where)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return app.Save(c)
}

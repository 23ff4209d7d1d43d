package migrations

import "github.com/pocketbase/pocketbase/core"

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		return app.RunInTransaction(func(tx core.App) error {
			if err := indexContent(tx); err != nil {
				return err
			}
			callbacks, err := tx.FindCollectionByNameOrId("modelriverCallbacks")
			if err != nil {
				return err
			}
			callbacks.AddIndex("idx_modelriver_refused", false, "created, id", "payload != ''")
			callbacks.AddIndex("idx_modelriver_failed", false, "created, id", "state = 'failed'")
			return tx.Save(callbacks)
		})
	}, nil, "1767226200_modelriver_lists.go")
}

// indexContent has the list of deliveries find an event's records in the order of the
// list. A collection that the app had before lacks the other indexes as well.
func indexContent(app core.App) error {
	content, err := app.FindCollectionByNameOrId("aiContent")
	if err != nil {
		return err
	}
	content.AddIndex("idx_modelriver_event", false, "eventName, created, id", "")
	for _, index := range []struct{ name, columns string }{
		{"idx_modelriver_channel", "channelId"},
		{"idx_modelriver_created", "created, id"},
		{"idx_modelriver_user", "userId, created"},
	} {
		if content.GetIndex(index.name) == "" {
			content.AddIndex(index.name, false, index.columns, "")
		}
	}
	return app.Save(content)
}

package migrations

import "github.com/pocketbase/pocketbase/core"

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		c, err := app.FindCollectionByNameOrId("modelriverCallbacks")
		if err != nil {
			return err
		}
		// So that the dashboard's figures need no row: created lies behind the bodies.
		c.AddIndex("idx_modelriver_delivered", false, "state, deliveredAt, created", "")
		c.AddIndex("idx_modelriver_refused", false, "created", "payload != ''")
		return app.Save(c)
	}, nil, "1767225700_modelriver_stats.go")
}

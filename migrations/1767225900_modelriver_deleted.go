package migrations

import (
	"slices"

	"github.com/pocketbase/pocketbase/core"
)

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		c, err := app.FindCollectionByNameOrId("modelriverCallbacks")
		if err != nil {
			return err
		}
		// Of a row that keeps a deleted record from coming back.
		state, ok := c.Fields.GetByName("state").(*core.SelectField)
		if !ok || slices.Contains(state.Values, "deleted") {
			return nil
		}
		state.Values = append(state.Values, "deleted")
		return app.Save(c)
	}, nil, "1767225900_modelriver_deleted.go")
}

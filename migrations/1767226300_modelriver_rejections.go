package migrations

import (
	"database/sql"
	"errors"

	"github.com/pocketbase/pocketbase/core"
)

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		c, err := app.FindCollectionByNameOrId("modelriverRejections")
		switch {
		case err == nil:
			err = checkFields(c, "modelriverRejections", map[string][]string{
				"id":     {core.FieldTypeText},
				"hour":   {core.FieldTypeDate},
				"reason": {core.FieldTypeText},
				"count":  {core.FieldTypeNumber},
				"last":   {core.FieldTypeDate},
				"error":  {core.FieldTypeText},
				"remedy": {core.FieldTypeText},
			})
			if err != nil {
				return err
			}
		case errors.Is(err, sql.ErrNoRows):
			c = core.NewBaseCollection("modelriverRejections")
			c.Fields.Add(
				&core.DateField{Name: "hour", Required: true},
				&core.TextField{Name: "reason", Required: true, Presentable: true, Max: 100},
				&core.NumberField{Name: "count", OnlyInt: true},
				&core.DateField{Name: "last"},
				&core.TextField{Name: "error", Max: 2000},
				&core.TextField{Name: "remedy", Max: 2000},
			)
		default:
			return err
		}
		c.AddIndex("idx_modelriver_rejections", true, "hour, reason", "") // which counts are added by
		return app.Save(c)
	}, nil, "1767226300_modelriver_rejections.go")
}

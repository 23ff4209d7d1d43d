package migrations

import (
	"database/sql"
	"errors"

	"github.com/pocketbase/pocketbase/core"
)

func init() {
	core.AppMigrations.Register(createAttempts, nil, "1767226100_modelriver_deliveries.go")
}

// createAttempts creates the collection modelriverAttempts, for superusers only: each time
// that a callback was sent.
func createAttempts(app core.App) error {
	existing, err := app.FindCollectionByNameOrId("modelriverAttempts")
	if err == nil {
		return checkFields(existing, "modelriverAttempts", map[string][]string{
			"id":            {core.FieldTypeText},
			"callback":      {core.FieldTypeText},
			"at":            {core.FieldTypeDate},
			"status":        {core.FieldTypeNumber},
			"duration":      {core.FieldTypeNumber},
			"error":         {core.FieldTypeText},
			"answer":        {core.FieldTypeText},
			"errorCallback": {core.FieldTypeBool},
			"expires":       {core.FieldTypeDate},
		})
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	c := core.NewBaseCollection("modelriverAttempts")
	c.Fields.Add(
		&core.TextField{Name: "callback", Max: 1000, Presentable: true},
		&core.DateField{Name: "at", Presentable: true},
		&core.NumberField{Name: "status", OnlyInt: true},
		&core.NumberField{Name: "duration", OnlyInt: true},
		&core.TextField{Name: "error", Max: 10000},
		&core.TextField{Name: "answer", Max: 10000},
		&core.BoolField{Name: "errorCallback"},
		&core.DateField{Name: "expires"},
	)
	c.AddIndex("idx_modelriver_attempt_callback", false, "callback, at", "")
	return app.Save(c)
}

// Package migrations holds the schema of the ModelRiver plugin. Importing it
// registers the migrations with PocketBase, which applies them on serve.
//
// A migration that was released is never changed: what comes later is a new file that
// loads the collection, adds what is missing and saves it. Each can be applied twice,
// because a host may revert it, or forget that it was applied, and none drops data.
package migrations

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		if err := createAIContent(app); err != nil {
			return err
		}
		return createCallbacks(app)
	}, nil, "1767225600_modelriver_init.go")
}

// createAIContent creates the collection aiContent, or adopts one that is there.
func createAIContent(app core.App) error {
	existing, err := app.FindCollectionByNameOrId("aiContent")
	if err == nil {
		return checkFields(existing, "aiContent", map[string][]string{
			"id":        {core.FieldTypeText},
			"title":     {core.FieldTypeText},
			"body":      {core.FieldTypeText, core.FieldTypeEditor},
			"category":  {core.FieldTypeText},
			"metadata":  {core.FieldTypeJSON},
			"data":      {core.FieldTypeJSON},
			"channelId": {core.FieldTypeText},
			"eventName": {core.FieldTypeText},
			"userId":    {core.FieldTypeText},
			"source":    {core.FieldTypeText},
			"created":   {core.FieldTypeAutodate},
			"updated":   {core.FieldTypeAutodate},
		})
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}

	c := core.NewBaseCollection("aiContent")
	c.ListRule = types.Pointer(`userId = "" || userId = @request.auth.id`)
	c.ViewRule = types.Pointer(`userId = "" || userId = @request.auth.id`)
	c.Fields.Add(
		&core.TextField{Name: "title", Required: true, Presentable: true, Max: 500},
		&core.TextField{Name: "body", Max: 134217728},
		&core.TextField{Name: "category", Max: 1000},
		&core.JSONField{Name: "metadata", MaxSize: 134217728},
		&core.JSONField{Name: "data", MaxSize: 134217728},
		&core.TextField{Name: "channelId", Max: 1000},
		&core.TextField{Name: "eventName", Max: 1000},
		&core.TextField{Name: "userId", Max: 1000},
		&core.TextField{Name: "source", Max: 1000},
		&core.AutodateField{Name: "created", OnCreate: true},
		&core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true},
	)
	c.AddIndex("idx_modelriver_channel", false, "channelId", "")
	c.AddIndex("idx_modelriver_event", false, "eventName", "")
	c.AddIndex("idx_modelriver_created", false, "created, id", "")
	c.AddIndex("idx_modelriver_user", false, "userId, created", "")
	return app.Save(c)
}

// createCallbacks creates the collection modelriverCallbacks, for superusers only.
func createCallbacks(app core.App) error {
	existing, err := app.FindCollectionByNameOrId("modelriverCallbacks")
	if err == nil {
		return checkFields(existing, "modelriverCallbacks", map[string][]string{
			"id":          {core.FieldTypeText},
			"record":      {core.FieldTypeRelation},
			"url":         {core.FieldTypeText},
			"host":        {core.FieldTypeText},
			"body":        {core.FieldTypeText},
			"state":       {core.FieldTypeSelect},
			"attempts":    {core.FieldTypeNumber},
			"nextAttempt": {core.FieldTypeDate},
			"expires":     {core.FieldTypeDate},
			"lastStatus":  {core.FieldTypeNumber},
			"lastError":   {core.FieldTypeText},
			"deliveredAt": {core.FieldTypeDate},
			"payload":     {core.FieldTypeText},
			"created":     {core.FieldTypeAutodate},
			"updated":     {core.FieldTypeAutodate},
		})
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}

	content, err := app.FindCollectionByNameOrId("aiContent")
	if err != nil {
		return err
	}
	c := core.NewBaseCollection("modelriverCallbacks")
	c.Fields.Add(
		&core.RelationField{Name: "record", CollectionId: content.Id, MaxSelect: 1},
		&core.SelectField{Name: "state", Values: []string{"pending", "delivered", "failed"}, MaxSelect: 1, Required: true, Presentable: true},
		&core.NumberField{Name: "attempts", OnlyInt: true},
		&core.NumberField{Name: "lastStatus", OnlyInt: true},
		&core.TextField{Name: "lastError", Max: 134217728},
		&core.DateField{Name: "nextAttempt"},
		&core.DateField{Name: "expires"},
		&core.DateField{Name: "deliveredAt"},
		&core.TextField{Name: "url", Max: 134217728},
		&core.TextField{Name: "host", Max: 134217728},
		&core.TextField{Name: "body", Max: 268435456},
		&core.TextField{Name: "payload", Max: 268435456},
		&core.AutodateField{Name: "created", OnCreate: true},
		&core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true},
	)
	// What is due, for each host on its own; then what can be deleted.
	c.AddIndex("idx_modelriver_due", false, "state, host, nextAttempt", "")
	c.AddIndex("idx_modelriver_delivered", false, "state, deliveredAt", "")
	c.AddIndex("idx_modelriver_callback_created", false, "created, id", "")
	return app.Save(c)
}

// checkFields returns an error that names every field the plugin needs and the
// existing collection does not have. Field types beyond the first are also accepted.
func checkFields(c *core.Collection, name string, needed map[string][]string) error {
	var missing []string
	if c.Name != name {
		missing = append(missing, fmt.Sprintf("the name %q in this spelling, not %q", name, c.Name))
	}
	for field, fieldTypes := range needed {
		f := c.Fields.GetByName(field)
		if f == nil || !slices.Contains(fieldTypes, f.Type()) {
			missing = append(missing, fmt.Sprintf("%s (%s)", field, strings.Join(fieldTypes, " or ")))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("the collection %q is there already, but ModelRiver's content needs it to have: %s. Add that, or rename the collection, and start again",
		c.Name, strings.Join(missing, ", "))
}

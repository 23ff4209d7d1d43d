package migrations

import (
	"database/sql"
	"errors"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		if err := createRequests(app); err != nil {
			return err
		}
		return createChannels(app)
	}, nil, "1767226000_modelriver_requests.go")
}

// createRequests creates the collection aiRequests, or adopts one that is there. Who may
// create is left to the operator, as each request costs money: nobody but superusers.
func createRequests(app core.App) error {
	existing, err := app.FindCollectionByNameOrId("aiRequests")
	if err == nil {
		return checkFields(existing, "aiRequests", map[string][]string{
			"id":          {core.FieldTypeText},
			"workflow":    {core.FieldTypeText},
			"input":       {core.FieldTypeJSON},
			"userId":      {core.FieldTypeText},
			"state":       {core.FieldTypeSelect},
			"channelId":   {core.FieldTypeText},
			"record":      {core.FieldTypeRelation},
			"error":       {core.FieldTypeText},
			"attempts":    {core.FieldTypeNumber},
			"nextAttempt": {core.FieldTypeDate},
			"expires":     {core.FieldTypeDate},
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
	c := core.NewBaseCollection("aiRequests")
	// A guest's id is empty, as the userId of a request that nobody signed in has made.
	c.ListRule = types.Pointer(`@request.auth.id != "" && userId = @request.auth.id`)
	c.ViewRule = types.Pointer(`@request.auth.id != "" && userId = @request.auth.id`)
	c.DeleteRule = types.Pointer(`@request.auth.id != "" && userId = @request.auth.id && (state = "answered" || state = "failed")`)
	c.Fields.Add(
		&core.TextField{Name: "workflow", Required: true, Presentable: true, Max: 500},
		&core.JSONField{Name: "input", MaxSize: 134217728}, // Config.MaxInput is what counts for clients
		&core.TextField{Name: "userId", Max: 1000},
		&core.SelectField{Name: "state", Values: []string{"queued", "sent", "answered", "failed"}, MaxSelect: 1, Required: true, Presentable: true},
		&core.TextField{Name: "channelId", Max: 1000},
		&core.RelationField{Name: "record", CollectionId: content.Id, MaxSelect: 1},
		&core.TextField{Name: "error", Max: 2000},
		&core.NumberField{Name: "attempts", OnlyInt: true},
		&core.DateField{Name: "nextAttempt"},
		&core.DateField{Name: "expires"},
		&core.AutodateField{Name: "created", OnCreate: true},
		&core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true},
	)
	c.AddIndex("idx_modelriver_request_record", false, "record", "")
	c.AddIndex("idx_modelriver_request_channel", false, "channelId", "")
	c.AddIndex("idx_modelriver_request_due", false, "state, nextAttempt", "")
	c.AddIndex("idx_modelriver_request_open", false, "state, expires", "")
	c.AddIndex("idx_modelriver_request_user", false, "userId, created", "")
	return app.Save(c)
}

// createChannels creates the collection modelriverChannels, for superusers only: whose the
// answers are to requests that are not in aiRequests any more.
func createChannels(app core.App) error {
	existing, err := app.FindCollectionByNameOrId("modelriverChannels")
	if err == nil {
		return checkFields(existing, "modelriverChannels", map[string][]string{
			"id":        {core.FieldTypeText},
			"request":   {core.FieldTypeText},
			"channelId": {core.FieldTypeText},
			"userId":    {core.FieldTypeText},
			"expires":   {core.FieldTypeDate},
			"asked":     {core.FieldTypeDate},
			"created":   {core.FieldTypeAutodate},
		})
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	c := core.NewBaseCollection("modelriverChannels")
	c.Fields.Add(
		&core.TextField{Name: "request", Max: 1000},
		&core.TextField{Name: "channelId", Max: 1000, Presentable: true},
		&core.TextField{Name: "userId", Max: 1000},
		&core.DateField{Name: "expires"},
		&core.DateField{Name: "asked"},
		&core.AutodateField{Name: "created", OnCreate: true},
	)
	c.AddIndex("idx_modelriver_channel_id", false, "channelId", "")
	c.AddIndex("idx_modelriver_channel_request", false, "request", "")
	c.AddIndex("idx_modelriver_channel_user", false, "userId, asked", "")
	c.AddIndex("idx_modelriver_channel_created", false, "created", "")
	return app.Save(c)
}

package store

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/migrations"
)

// neededFields are the fields that the plugin reads and writes, and their types.
var neededFields = map[string]map[string][]string{
	Content: {
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
	},
	Callbacks: {
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
	},
	Requests: {
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
	},
	Channels: {
		"request":   {core.FieldTypeText},
		"channelId": {core.FieldTypeText},
		"userId":    {core.FieldTypeText},
		"expires":   {core.FieldTypeDate},
		"asked":     {core.FieldTypeDate},
		"created":   {core.FieldTypeAutodate},
	},
	Attempts: {
		"callback":      {core.FieldTypeText},
		"at":            {core.FieldTypeDate},
		"status":        {core.FieldTypeNumber},
		"duration":      {core.FieldTypeNumber},
		"error":         {core.FieldTypeText},
		"answer":        {core.FieldTypeText},
		"errorCallback": {core.FieldTypeBool},
		"expires":       {core.FieldTypeDate},
	},
}

// collections are the names of all that the plugin needs. It can do without its counts of
// rejected webhooks.
var collections = []string{Content, Callbacks, Requests, Channels, Attempts}

// defaultIds are the ids that PocketBase gives the collections, by which one that was
// renamed is found.
var defaultIds = map[string]string{
	Content:    "pbc_2861173258",
	Callbacks:  "pbc_2755497107",
	Requests:   "pbc_873360185",
	Channels:   "pbc_1775179939",
	Attempts:   "pbc_622599537",
	Rejections: "pbc_1079977988",
}

// A Schema knows whether the collections are as the plugin needs them. While they are
// not, webhooks are answered 503, so that ModelRiver keeps them, and the server stays up,
// so that the dashboard can mend it.
type Schema struct {
	problem atomic.Pointer[error]
}

// Problem returns why nothing can be stored now, or nil.
func (s *Schema) Problem() error {
	if problem := s.problem.Load(); problem != nil {
		return *problem
	}
	return nil
}

// Check looks at the collections, and tells log and terminal of a new problem.
func (s *Schema) Check(app core.App) {
	err := SchemaProblem(app)
	if err == nil {
		if err := migrations.KeepDataAsText(app); err != nil { // PocketBase makes another column
			app.Logger().Error("AI data that is a bare number loses digits until the next start", "error", err)
		}
		if s.problem.Swap(nil) != nil {
			app.Logger().Info("The collections are complete again: webhooks are stored")
		}
		return
	}
	if old := s.problem.Swap(&err); old == nil || (*old).Error() != err.Error() {
		app.Logger().Error("Webhooks are answered 503", "error", err)
		fmt.Fprintln(os.Stderr, "Webhooks are answered 503:", err)
	}
}

// Bind has the collections looked at again when someone changes one of them.
func (s *Schema) Bind(app core.App) {
	check := &hook.Handler[*core.CollectionEvent]{Id: "modelriverSchema", Func: func(e *core.CollectionEvent) error {
		s.Check(e.App)
		return e.Next()
	}}
	// By id too: a collection that was renamed has its new name here.
	tags := slices.Concat(collections, slices.Collect(maps.Values(defaultIds)))
	app.OnCollectionAfterCreateSuccess(tags...).Bind(check)
	app.OnCollectionAfterUpdateSuccess(tags...).Bind(check)
	app.OnCollectionAfterDeleteSuccess(tags...).Bind(check)
}

// SchemaProblem returns what the collections lack, or nil.
func SchemaProblem(app core.App) error {
	for _, name := range collections {
		collection, err := app.FindCollectionByNameOrId(name)
		if errors.Is(err, sql.ErrNoRows) {
			if renamed, err := app.FindCollectionByNameOrId(defaultIds[name]); err == nil {
				return fmt.Errorf("the collection %q was renamed to %q: rename it back in the dashboard", name, renamed.Name)
			}
			return fmt.Errorf("the collection %q was deleted: restart to create it again, empty, or restore a backup", name)
		}
		if err != nil {
			return err
		}
		var missing []string
		for field, types := range neededFields[name] {
			if f := collection.Fields.GetByName(field); f == nil || !slices.Contains(types, f.Type()) {
				missing = append(missing, fmt.Sprintf("%s (%s)", field, strings.Join(types, " or ")))
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			return fmt.Errorf("the collection %q lacks fields: add %s in the dashboard", name, strings.Join(missing, ", "))
		}
	}
	return nil
}

// RestoreSchema creates a collection again that was deleted after its migration had
// been applied, which PocketBase takes as done.
func RestoreSchema(app core.App) error {
	var deleted []string
	for name, id := range defaultIds {
		_, byName := app.FindCollectionByNameOrId(name)
		_, byId := app.FindCollectionByNameOrId(id)
		if errors.Is(byName, sql.ErrNoRows) && errors.Is(byId, sql.ErrNoRows) {
			deleted = append(deleted, name)
		}
	}
	if len(deleted) == 0 {
		return nil
	}
	app.Logger().Warn("A collection of ModelRiver's was deleted: it is created again, empty")
	err := app.RunInTransaction(func(tx core.App) error {
		for _, migration := range core.AppMigrations.Items() {
			if strings.Contains(migration.File, "_modelriver_") {
				if err := migration.Up(tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil && slices.Equal(deleted, []string{Rejections}) { // which nothing needs, so the server starts, and the rest is mended there
		app.Logger().Warn("Failed to create the collection of rejected webhooks again", "error", err)
		return nil
	}
	return err
}

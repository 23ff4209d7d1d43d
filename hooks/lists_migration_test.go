package hooks

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"
)

// indexesOf returns the indexes of the plugin's tables as the database has them.
func indexesOf(t *testing.T, app core.App) []string {
	t.Helper()
	var indexes []string
	err := app.DB().NewQuery(`
		SELECT rootpage || ' ' || sql FROM sqlite_master
		WHERE type = 'index' AND sql != '' AND tbl_name IN ('aiContent', 'modelriverCallbacks') ORDER BY name`).Column(&indexes)
	if err != nil {
		t.Fatal(err)
	}
	for i, index := range indexes {
		indexes[i] = strings.Join(strings.Fields(strings.ReplaceAll(index, "`", "")), " ")
	}
	return indexes
}

func listsMigration(t *testing.T, app core.App) {
	t.Helper()
	for _, migration := range core.AppMigrations.Items() {
		if migration.File == "1767226200_modelriver_lists.go" {
			if err := migration.Up(app); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no such migration")
}

// The lists need these indexes, in a collection that the app had before too. Applied
// again, the migration must leave them as they are.
func TestListsMigration(t *testing.T) {
	t.Parallel()
	wanted := []string{
		"idx_modelriver_channel ON aiContent (channelId)", "idx_modelriver_created ON aiContent ( created, id )",
		"idx_modelriver_event ON aiContent ( eventName, created, id )", "idx_modelriver_user ON aiContent ( userId, created )",
		"idx_modelriver_failed ON modelriverCallbacks ( state, created, id ) WHERE state = 'failed'",
		"idx_modelriver_refused ON modelriverCallbacks ( created, id ) WHERE payload != ''",
	}
	for name, drop := range map[string][]string{
		"new": nil, "adopted": {"idx_modelriver_channel", "idx_modelriver_created", "idx_modelriver_event", "idx_modelriver_user"},
	} {
		app, _ := newTestApp(t, testConfig())
		content, err := app.FindCollectionByNameOrId("aiContent")
		if err != nil {
			t.Fatal(err)
		}
		content.AddIndex("idx_modelriver_event", false, "eventName", "") // as it was before
		for _, index := range drop {
			content.RemoveIndex(index)
		}
		content.AddIndex("idx_own", false, "title", "")
		if err := app.Save(content); err != nil {
			t.Fatal(err)
		}
		listsMigration(t, app)
		indexes := indexesOf(t, app)
		for _, want := range append(wanted, "idx_own ON aiContent (title)") {
			if !slices.ContainsFunc(indexes, func(index string) bool { return strings.HasSuffix(index, " CREATE INDEX "+want) }) {
				t.Errorf("%s: there is no %s in\n%s", name, want, strings.Join(indexes, "\n"))
			}
		}
		listsMigration(t, app)
		if again := indexesOf(t, app); !slices.Equal(again, indexes) {
			t.Errorf("%s: applied twice it changed\n%s\nto\n%s", name, fmt.Sprint(indexes), fmt.Sprint(again))
		}
	}
}

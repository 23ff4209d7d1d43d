package hooks

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
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

// What was renamed or deleted before an upgrade must not keep the server from starting, where
// it is mended.
func TestListsMigrationOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	t.Run("renamed", func(t *testing.T) {
		t.Parallel()
		app, _ := newTestApp(t, testConfig())
		content, err := app.FindCollectionByNameOrId("aiContent")
		if err != nil {
			t.Fatal(err)
		}
		content.Name = "articles"
		content.RemoveIndex("idx_modelriver_event")
		if err := app.Save(content); err != nil {
			t.Fatal(err)
		}
		listsMigration(t, app)
		if content, err = app.FindCollectionByNameOrId("articles"); err != nil || content.GetIndex("idx_modelriver_event") == "" {
			t.Errorf("the index is not there: %v", err)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		app, _ := newTestApp(t, testConfig())
		callbacks, err := app.FindCollectionByNameOrId("modelriverCallbacks")
		if err != nil {
			t.Fatal(err)
		}
		if err := app.Delete(callbacks); err != nil {
			t.Fatal(err)
		}
		listsMigration(t, app)
		if err := store.RestoreSchema(app); err != nil {
			t.Fatal(err)
		}
		if indexes := strings.Join(indexesOf(t, app), "\n"); !strings.Contains(indexes, "idx_modelriver_failed") {
			t.Errorf("got\n%s", indexes)
		}
	})
}

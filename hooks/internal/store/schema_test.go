package store

import (
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Without the counts of rejected webhooks, which nothing needs, a server starts, though another
// collection is not as it should be: the dashboard is where that is mended.
func TestRestoreSchemaWithoutRejections(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	content, err := app.FindCollectionByNameOrId(Content)
	if err != nil {
		t.Fatal(err)
	}
	content.Fields.RemoveByName("source")
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
	rejections, err := app.FindCollectionByNameOrId(Rejections)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Delete(rejections); err != nil {
		t.Fatal(err)
	}
	if err := RestoreSchema(app); err != nil {
		t.Errorf("the start ends with: %v", err)
	}
	if SchemaProblem(app) == nil {
		t.Error("the lack of a field is not told")
	}
}

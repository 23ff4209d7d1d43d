package store

import (
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Whatever the filter, a page must read an index in the order of the list, or it would
// sort all there is first. What SQLite knows of the tables, which PocketBase has it look
// at daily, must not change that.
func TestDeliveriesReadIndexes(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	wantOrder(t, app, "empty")
	insertRows(t, app, time.Now(), 3000)
	for _, row := range []struct{ name, statement string }{
		{"a few failed", "UPDATE aiContent SET eventName = 'new_content', category = 'general', userId = 'user' || id % 9"},
		{"most failed", "UPDATE modelriverCallbacks SET state = 'failed', deliveredAt = '' WHERE id % 10 > 0"},
		{"most waiting", "UPDATE modelriverCallbacks SET state = 'pending' WHERE id % 20 > 0"},
		{"most refused", "UPDATE modelriverCallbacks SET payload = '{}' WHERE id % 20 > 0"},
	} {
		for _, statement := range []string{row.statement, "ANALYZE"} {
			if _, err := app.NonconcurrentDB().NewQuery(statement).Execute(); err != nil {
				t.Fatal(err)
			}
		}
		wantOrder(t, app, row.name)
	}
}

func wantOrder(t *testing.T, app core.App, name string) {
	t.Helper()
	for _, state := range []string{"", Waiting, Delivered, Failed, Refused, Deleted} {
		for _, f := range []DeliveryFilter{
			{}, {Event: "new_content"}, {Category: "general"}, {User: "user1"}, {Search: "title"}, {Event: "new_content", User: "user1", Category: "x", Search: "y"},
		} {
			f.State = state
			f.From, f.To, f.Limit = time.Now().Add(-48*time.Hour), time.Now(), 30
			q, err := newDeliveryQuery(app, f)
			if err != nil {
				t.Fatal(err)
			}
			var plan []struct {
				Detail string `db:"detail"`
			}
			if err := app.DB().NewQuery("EXPLAIN QUERY PLAN " + q.sql()).Bind(q.params).All(&plan); err != nil {
				t.Fatal(err)
			}
			for _, step := range plan {
				if strings.Contains(step.Detail, "TEMP B-TREE FOR ORDER BY") || strings.HasPrefix(step.Detail, "SCAN") {
					t.Errorf("%s, %+v: %s in %v", name, f, step.Detail, plan)
				}
			}
		}
	}
}

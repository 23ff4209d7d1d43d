package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// The oldest payloads are deleted first, and of large ones few at a time.
func TestOldPayloadsAreDeletedInShortTransactions(t *testing.T) {
	t.Parallel()
	app := apptest.NewApp(t)
	now := time.Now()
	const large = 6 << 20
	sizes := []int{large, 10, large, large, large, 10, 10}
	if err := createPayloads(app); err != nil {
		t.Fatal(err)
	}
	for i, size := range sizes {
		_, err := app.AuxNonconcurrentDB().Insert(Payloads, dbx.Params{
			"id": fmt.Sprintf("payload%08d", i), "scheme": "body", "size": size, "headers": "{}", "payload": "{}",
			"created": DateTime(now.Add(time.Duration(i-100) * time.Second)),
		}).Execute()
		if err != nil {
			t.Fatal(err)
		}
	}
	before := now.Add(-95*time.Second + time.Millisecond) // the last one stays
	for _, want := range []int64{4, 2, 0} {
		if deleted, err := DeleteOldPayloads(app, before); deleted != want || err != nil {
			t.Errorf("got %d, %v, want %d", deleted, err, want)
		}
	}
	var ids []string
	err := app.AuxDB().Select("id").From(Payloads).Column(&ids)
	if err != nil || len(ids) != 1 || ids[0] != "payload00000006" {
		t.Errorf("left: got %v, %v", ids, err)
	}
}

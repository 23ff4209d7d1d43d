package hooks

import (
	"errors"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// A hook after create that hangs ends nothing either where its batch had to be run again,
// each write in a transaction of its own.
func TestHookHangsBehindARefusal(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	if p.commits.plain = func() int { return saveHooks(app) }; p.commits.hooked() {
		t.Fatal("hooks would see a batch run twice")
	}
	server := serve(t, app, p)
	server.awaitOutbox(t)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	app.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "hangs" {
			<-hang
		}
		return e.Next()
	})

	ended := make(chan string, 10)
	add := func(name string, run func(tx core.App) error) {
		p.commits.add(&write{run: run, done: func(error) { ended <- name }})
	}
	var order []string
	release := p.commits.hold()
	add("hangs", func(tx core.App) error {
		content, err := tx.FindCachedCollectionByNameOrId(contentCollection)
		if err != nil {
			return err
		}
		record := core.NewRecord(content)
		record.Load(map[string]any{"title": "hangs", "category": "x", "source": "x", "data": "{}"})
		return tx.Save(record)
	})
	add("refused", func(core.App) error { return errors.New("no") })
	add("neighbour", func(core.App) error { return nil })
	release()
	add("later", func(core.App) error { return nil })
	for len(order) < 4 {
		select {
		case name := <-ended:
			order = append(order, name)
		case <-time.After(2 * maxCommitWait):
			t.Fatalf("writes that ended: got only %q", order)
		}
	}
	for i, want := range []string{"hangs", "refused", "neighbour", "later"} {
		if order[i] != want {
			t.Fatalf("order: got %q", order)
		}
	}
}

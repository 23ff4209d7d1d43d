package realtime

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// newTwo is newTest with a second collection, which is changed by plain SQL too.
func newTwo(t *testing.T) (*tests.TestApp, *FanOut) {
	t.Helper()
	app := apptest.NewApp(t)
	for _, name := range []string{collectionName, "callbacks"} {
		c := core.NewBaseCollection(name)
		c.ListRule, c.ViewRule = types.Pointer(`state != "secret"`), types.Pointer("")
		c.Fields.Add(&core.TextField{Name: "title"})
		if name == "callbacks" {
			c.Fields.Add(&core.TextField{Name: "state"})
		} else {
			c.Fields.Add(&core.NumberField{Name: "state"}) // of the same name
		}
		if err := app.Save(c); err != nil {
			t.Fatal(err)
		}
	}
	f := New(app, collectionName, "callbacks")
	f.Partly = []string{"callbacks"}
	f.Bind()
	return app, f
}

func saveIn(t *testing.T, app core.App, collection, id, title string, state any) {
	t.Helper()
	c, err := app.FindCachedCollectionByNameOrId(collection)
	if err != nil {
		t.Fatal(err)
	}
	record, err := app.FindRecordById(c, id)
	if err != nil {
		record = core.NewRecord(c)
		record.Id = id
	}
	record.Load(map[string]any{"title": title, "state": state})
	if err := app.Save(record); err != nil {
		t.Fatal(err)
	}
}

// Each topic gets what is of its collection, whatever is the same in another one, and a
// connection that has topics of both gets them in the order of the commits.
func TestBroadcastOfSeveralCollections(t *testing.T) {
	t.Parallel()
	app, f := newTwo(t)
	server := apptest.Serve(t, app)
	const id = "record000000001"
	both := server.Subscribe(t, "", "aiContent/*", "callbacks/*")
	content, callbacks := server.Subscribe(t, "", "aiContent/*"), server.Subscribe(t, "", "callbacks/*")
	one := server.Subscribe(t, "", "callbacks/"+id)
	five := server.Subscribe(t, "", strings.Replace(liveTopic("callbacks/*", `state = "5"`), "leave=1&", "", 1))
	earlier := new(core.Record) // whose hooks still run
	f.Committed([]*core.Record{earlier})
	var inOrder []string
	err := app.RunInTransaction(func(tx core.App) error {
		for i := range 6 {
			collection, title := []string{collectionName, "callbacks"}[i%2], fmt.Sprintf("%d", i)
			saveIn(t, tx, collection, fmt.Sprintf("record%09d", i/2), title, 5)
			inOrder = append(inOrder, `"title":"`+title+`"`)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	saveIn(t, app, "callbacks", id, "secret", "secret")
	saveIn(t, app, collectionName, id, "secret", "secret") // is no number, and 0
	f.Settled([]*core.Record{earlier})
	for _, row := range []struct {
		name string
		*apptest.Stream
		want []string
	}{
		{"of both", both, append(append([]string{}, inOrder...), `"update"`)},
		{"of content", content, []string{inOrder[0], inOrder[2], inOrder[4], `"update"`}},
		{"of callbacks", callbacks, []string{inOrder[1], inOrder[3], inOrder[5]}},
		{"of one callback", one, []string{inOrder[3], `"title":"secret"`}},
		{"of a state", five, []string{inOrder[1], inOrder[3], inOrder[5]}},
	} {
		for i, want := range row.want {
			if got := next(t, row.Stream); !strings.Contains(got, want) {
				t.Errorf("event %d %s: got %s, want %s", i, row.name, got, want)
			}
		}
		if len(row.Events) > 0 {
			t.Errorf("%s: %s is too much", row.name, <-row.Events)
		}
	}
}

// Only a collection whose changes all come by hooks is announced, and called exact.
func TestLiveOfWhatPlainSQLWrites(t *testing.T) {
	t.Parallel()
	app, f := newTwo(t)
	server := apptest.Serve(t, app)
	message := f.connected(&subscriber{DefaultClient: subscriptions.NewDefaultClient(), fanOut: f})
	if !strings.Contains(string(message.Data), `"live":["aiContent"]`) {
		t.Errorf("PB_CONNECT: got %s", message.Data)
	}
	for collection, exact := range map[string]bool{collectionName: true, "callbacks": false} {
		s := server.Subscribe(t, "", liveTopic(collection+"/*", `title = "x"`))
		if event := <-s.Events; !strings.Contains(event, fmt.Sprintf(`"exact":%t`, exact)) {
			t.Errorf("%s: got %s, want exact: %t", collection, event, exact)
		}
	}
}

type callback struct{ content }

func (*callback) TableName() string { return "callbacks" }

// Models of the app's own have one id in two collections.
func TestDeletesOfOneIdInTwoCollections(t *testing.T) {
	t.Parallel()
	app, _ := newTwo(t)
	server := apptest.Serve(t, app)
	const id = "record000000001"
	saveIn(t, app, collectionName, id, "a content", 0)
	saveIn(t, app, "callbacks", id, "a callback", "")
	contents, callbacks := server.Subscribe(t, "", "aiContent/*"), server.Subscribe(t, "", "callbacks/*")
	err := app.RunInTransaction(func(tx core.App) error {
		for _, model := range []core.Model{new(content), new(callback)} {
			if err := tx.ModelQuery(model).AndWhere(dbx.HashExp{"id": id}).One(model); err != nil {
				return err
			}
			if err := tx.Delete(model); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, contents, "a content")
	await(t, callbacks, "a callback")
}

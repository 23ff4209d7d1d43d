package realtime

import (
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Of two commits to a record, the later one's hooks may end first: the other's event comes
// after it then. Whoever is told what leaves gets only what the database has, and plain
// subscribers get what PocketBase sends them.
func TestLastEventOfARecordIsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(t *testing.T, app core.App, id string){
		"an update": func(t *testing.T, app core.App, id string) { saveRecord(t, app, id, map[string]any{"title": "later"}) },
		"it leaves": func(t *testing.T, app core.App, id string) {
			saveRecord(t, app, id, map[string]any{"title": "later", "userId": "somebody"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			content, err := app.FindCollectionByNameOrId(collectionName)
			if err != nil {
				t.Fatal(err)
			}
			content.Fields.Add(&core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true})
			if err := app.Save(content); err != nil {
				t.Fatal(err)
			}
			app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
				if e.Record.GetString("title") == "sooner" {
					again(t, app, e.Record.Id)
				}
				return e.Next()
			})
			const id = "record000000001"
			saveRecord(t, app, id, map[string]any{"title": "first"})
			server := apptest.Serve(t, app)
			live, plain := server.Subscribe(t, "", liveTopic("aiContent/*", "")), server.Subscribe(t, "", "aiContent/*")
			saveRecord(t, app, id, map[string]any{"title": "sooner"})
			saveRecord(t, app, "end000000000000", nil)

			var got []string
			for event := ""; !strings.Contains(event, "end0"); got = append(got, event) {
				event = next(t, live)
			}
			last := got[len(got)-2]
			if name == "an update" && (len(got) != 2 || !strings.Contains(last, `"later"`)) || name == "it leaves" && !strings.Contains(last, `"leave"`) {
				t.Errorf("got %s, want in the end what the database has", strings.Join(got, "\n"))
			}
			if name == "an update" {
				if event := next(t, plain); !strings.Contains(event, `"later"`) {
					t.Errorf("plain: got %s", event)
				}
				if event := next(t, plain); !strings.Contains(event, `"sooner"`) {
					t.Errorf("plain: got %s, want every event", event)
				}
			}
		})
	}
}

// Two commits to a record may be of the same millisecond, as requests that come together are.
func TestLastEventOfCommitsOfOneMoment(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	content, err := app.FindCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	content.Fields.Add(&core.AutodateField{Name: "updated", OnCreate: true, OnUpdate: true})
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
	const id = "record000000001"
	saveRecord(t, app, id, nil)
	server := apptest.Serve(t, app)
	live := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
	var records [2]*core.Record
	for i, title := range []string{"sooner", "later"} {
		if records[i], err = app.FindRecordById(collectionName, id); err != nil {
			t.Fatal(err)
		}
		records[i].Set("title", title)
		records[i].SetRaw("updated", types.NowDateTime().Add(time.Hour))
	}
	records[1].SetRaw("updated", records[0].GetDateTime("updated"))
	app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		if e.Record == records[0] {
			if err := app.Save(records[1]); err != nil {
				return err
			}
		}
		return e.Next()
	})
	if err := app.Save(records[0]); err != nil {
		t.Fatal(err)
	}
	saveRecord(t, app, "end000000000000", nil)
	for _, want := range []string{`"later"`, "end0"} {
		if event := next(t, live); !strings.Contains(event, want) {
			t.Errorf("got %s, want %s", event, want)
		}
	}
}

// A record may be made again before the hooks behind its delete have ended: whoever is told what
// leaves counts on the last event, and fetches instead.
func TestDeletesOfWhatIsThereAgain(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	const id = "record000000001"
	app.OnRecordAfterDeleteSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		saveRecord(t, app, id, map[string]any{"title": "again"})
		return e.Next()
	})
	saveRecord(t, app, id, nil)
	server := apptest.Serve(t, app)
	live, plain := server.Subscribe(t, "", liveTopic("aiContent/*", "")), server.Subscribe(t, "", "aiContent/*")
	record, err := app.FindRecordById(collectionName, id)
	if err == nil {
		err = app.Delete(record)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"create"`, `"delete"`} {
		if event := next(t, plain); !strings.Contains(event, want) {
			t.Errorf("plain: got %s, want %s", event, want)
		}
	}
	awaitEnd(t, live)
}

// A slowApp is slow to find out who may see a record.
type slowApp struct {
	core.App
	meanwhile func()
}

func (a slowApp) CanAccessRecord(record *core.Record, info *core.RequestInfo, rule *string) (bool, error) {
	defer a.meanwhile()
	return a.App.CanAccessRecord(record, info, rule)
}

// A record may be deleted while it is found out who sees its update: that comes before the delete.
func TestDeleteComesLast(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	setRule(t, app, `title:lower != "x"`) // which the database is asked
	const id = "record000000001"
	saveRecord(t, app, id, nil)
	server := apptest.Serve(t, app)
	live := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
	deleted, told := make(chan struct{}), make(chan error, 1)
	app.OnRecordAfterDeleteSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		close(deleted)
		return e.Next()
	})
	app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		e.App = slowApp{e.App, func() {
			go func() {
				record, err := app.FindRecordById(collectionName, id)
				if err == nil {
					err = app.Delete(record)
				}
				told <- err
			}()
			<-deleted
			select { // which it must not do before the update is told
			case err := <-told:
				told <- err
			case <-time.After(100 * time.Millisecond):
			}
		}}
		return e.Next()
	})
	saveRecord(t, app, id, map[string]any{"title": "y"})
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"update"`, `"delete"`} {
		if event := next(t, live); !strings.Contains(event, want) {
			t.Errorf("got %s, want %s", event, want)
		}
	}
}

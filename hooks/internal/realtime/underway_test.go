package realtime

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Who subscribes while a delete is under way may have listed the record: it is told, or
// fetches again if nobody knows whether it could see it.
func TestDeletesThatBeganBeforeASubscription(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		filter      string
		before      bool // it has another topic, or is nobody yet
		told, fetch bool
	}{
		"the first subscriber":                {told: true},
		"a filter that lets it through":       {filter: `id = "record000000001"`, told: true},
		"a filter that does not":              {filter: `id != "record000000001"`},
		"a filter of a long field":            {filter: `title = "x"`, fetch: true},
		"a filter that the database is asked": {filter: `data.n > 1`, fetch: true},
		"another topic of a subscriber":       {filter: `title = "x"`, before: true, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			server := apptest.Serve(t, app)
			const id = "record000000001"
			saveRecord(t, app, id, map[string]any{"title": "x", "data": `{"n":2}`})
			other, topic := liveTopic("aiContent/*", `title = "none"`), liveTopic("aiContent/*", row.filter)
			var s *apptest.Stream
			if row.before {
				s = server.Subscribe(t, "", other)
			}
			err := app.RunInTransaction(func(tx core.App) error {
				record, err := tx.FindRecordById(collectionName, id)
				if err != nil {
					return err
				}
				if err := tx.Delete(record); err != nil {
					return err
				}
				if row.before {
					server.SetTopics(t, s.ID, "", other, topic)
				} else {
					s = server.Subscribe(t, "", topic)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if row.fetch {
				awaitEnd(t, s)
				return
			}
			saveRecord(t, app, "end000000000000", map[string]any{"title": "x"})
			event := next(t, s)
			if told := strings.Contains(event, `"delete"`) && strings.Contains(event, id); told != row.told {
				t.Errorf("got %s", event)
			}
		})
	}
}

// An update may commit between the decision who hears of a delete, which is PocketBase's, and
// the delete: whoever is told what leaves hears by what the row was in the end.
func TestDeletesTellByWhatRowsWere(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		was, is map[string]any
		filter  string
		want    []string // of the events of the record
	}{
		"it came to the filter": {map[string]any{"title": "x"}, map[string]any{"title": "y"}, `title = "y"`, []string{"update", "leave"}},
		"it left the filter":    {map[string]any{"title": "x"}, map[string]any{"title": "y"}, `title = "x"`, []string{"leave"}},
		"it stayed":             {map[string]any{"title": "x"}, map[string]any{"title": "y"}, `title != "z"`, []string{"update", "delete"}},
		"it became public": {
			map[string]any{"title": "secret", "userId": "somebody"}, map[string]any{"title": "y", "userId": ""}, "", []string{"update", "leave"},
		},
		"it became private": {map[string]any{"title": "x"}, map[string]any{"title": "secret", "userId": "somebody"}, "", []string{"leave"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			server := apptest.Serve(t, app)
			const id = "record000000001"
			saveRecord(t, app, id, row.was)
			s := server.Subscribe(t, "", liveTopic("aiContent/*", row.filter))
			record, err := app.FindRecordById(collectionName, id)
			if err != nil {
				t.Fatal(err)
			}
			app.OnRecordDeleteExecute(collectionName).BindFunc(func(e *core.RecordEvent) error {
				saveRecord(t, app, id, row.is)
				return e.Next()
			})
			if err := app.Delete(record); err != nil {
				t.Fatal(err)
			}
			end := map[string]any{"title": "y"}
			if name == "it left the filter" {
				end = row.was
			}
			saveRecord(t, app, "end000000000000", end)
			var got []string
			for event := ""; !strings.Contains(event, "end000000000000"); {
				if event = next(t, s); strings.Contains(event, "secret") {
					t.Errorf("told what was private: %s", event)
				}
				if strings.Contains(event, id) {
					_, action, _ := strings.Cut(event, `"action":"`)
					action, _, _ = strings.Cut(action, `"`)
					got = append(got, action)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// A record may be deleted before the hooks of its last update have ended: whoever saw it
// before that update hears that it left.
func TestUpdatesTellWhatLeftThoughItIsGone(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		deleted, err := app.FindRecordById(collectionName, e.Record.Id)
		if err == nil {
			err = app.Delete(deleted)
		}
		return errors.Join(err, e.Next())
	})
	const id = "record000000001"
	saveRecord(t, app, id, map[string]any{"title": "x"})
	server := apptest.Serve(t, app)
	live, plain := server.Subscribe(t, "", liveTopic("aiContent/*", "")), server.Subscribe(t, "", "aiContent/*")
	saveRecord(t, app, id, map[string]any{"title": "secret", "userId": "somebody"})
	saveRecord(t, app, "end000000000000", nil)
	if event := next(t, live); !strings.Contains(event, `"leave"`) || !strings.Contains(event, id) {
		t.Errorf("got %s", event)
	}
	if event := next(t, plain); !strings.Contains(event, "end0") {
		t.Errorf("a plain subscriber got %s", event)
	}
}

// Garbage may be collected while the app's hooks behind a change run: what the row was is
// known still.
func TestHooksDuringWhichGarbageIsCollected(t *testing.T) {
	t.Parallel()
	collect := func(e *core.RecordEvent) error {
		collected := make(chan struct{})
		runtime.AddCleanup(new([64]byte), func(c chan struct{}) { close(c) }, collected)
		for range 3 {
			runtime.GC()
		}
		<-collected
		return e.Next()
	}
	hide := func(app core.App, record *core.Record) error {
		record.Set("userId", "somebody")
		return app.Save(record)
	}
	remove := func(app core.App, record *core.Record) error { return app.Delete(record) }
	for name, row := range map[string]struct {
		change        func(core.App, *core.Record) error
		inTransaction bool
		want          string
	}{
		"an update":                  {hide, false, "leave"},
		"an update in a transaction": {hide, true, "leave"},
		"a delete":                   {remove, false, "delete"},
		"a delete in a transaction":  {remove, true, "delete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			const id = "record000000001"
			saveRecord(t, app, id, nil)
			server := apptest.Serve(t, app)
			s := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
			app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(collect)
			app.OnRecordAfterDeleteSuccess(collectionName).BindFunc(collect)
			record, err := app.FindRecordById(collectionName, id)
			if err != nil {
				t.Fatal(err)
			}
			if row.inTransaction {
				err = app.RunInTransaction(func(tx core.App) error { return row.change(tx, record) })
			} else {
				err = row.change(app, record)
			}
			if err != nil {
				t.Fatal(err)
			}
			saveRecord(t, app, "end000000000000", nil)
			if event := next(t, s); !strings.Contains(event, `"`+row.want+`"`) || !strings.Contains(event, id) {
				t.Errorf("got %s, want its %s", event, row.want)
			}
		})
	}
}

// What a row was before an update is known of that update alone, though hooks have kept the one
// before it from being told, or the same record is saved again within the hooks.
func TestEachUpdateGoesByWhatItsRowWas(t *testing.T) {
	t.Parallel()
	set := func(app core.App, record *core.Record, userId string) error {
		record.Set("userId", userId)
		return app.Save(record)
	}
	for name, row := range map[string]struct {
		was    string
		change func(app *tests.TestApp, record *core.Record) error
	}{
		"behind one that is not told": {"somebody", func(app *tests.TestApp, record *core.Record) error {
			id := app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(*core.RecordEvent) error { return nil })
			err := set(app, record, "")
			app.OnRecordAfterUpdateSuccess(collectionName).Unbind(id)
			return errors.Join(err, set(app, record, "somebody"))
		}},
		"around one of a hook": {"", func(app *tests.TestApp, record *core.Record) error {
			app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
				if e.Record.GetString("title") == "" {
					e.Record.Set("title", "x")
					if err := e.App.Save(e.Record); err != nil {
						return err
					}
				}
				return e.Next()
			})
			return set(app, record, "somebody")
		}},
		"in a transaction of the other database": {"", func(app *tests.TestApp, record *core.Record) error {
			return app.AuxRunInTransaction(func(tx core.App) error { return set(tx, record, "somebody") })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			const id = "record000000001"
			saveRecord(t, app, id, map[string]any{"userId": row.was})
			server := apptest.Serve(t, app)
			s := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
			record, err := app.FindRecordById(collectionName, id)
			if err != nil {
				t.Fatal(err)
			}
			if err := row.change(app, record); err != nil {
				t.Fatal(err)
			}
			saveRecord(t, app, "end000000000000", nil)
			if event := next(t, s); !strings.Contains(event, `"leave"`) || !strings.Contains(event, id) {
				t.Errorf("got %s, want that it left", event)
			}
		})
	}
}

// A hook of the app may fail behind the commit. PocketBase tells nobody then, so whoever counts on
// being told fetches again.
func TestHooksThatFailBehindTheCommit(t *testing.T) {
	t.Parallel()
	fail := func(e *core.RecordEvent) error { return errors.Join(e.Next(), errors.New("no")) }
	for name, change := range map[string]func(core.App, *core.Record) error{
		"an update": func(app core.App, record *core.Record) error {
			record.Set("userId", "somebody")
			return app.Save(record)
		},
		"a delete": func(app core.App, record *core.Record) error { return app.Delete(record) },
		"an update of a transaction that goes on": func(app core.App, record *core.Record) error {
			var failed error
			err := app.RunInTransaction(func(tx core.App) error {
				record.Set("userId", "somebody")
				failed = tx.Save(record)
				return nil
			})
			return errors.Join(err, failed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, f := newTest(t)
			const id = "record000000001"
			saveRecord(t, app, id, nil)
			server := apptest.Serve(t, app)
			live, plain := server.Subscribe(t, "", liveTopic("aiContent/*", "")), server.Subscribe(t, "", "aiContent/*")
			app.OnRecordUpdate(collectionName).BindFunc(fail)
			app.OnRecordDelete(collectionName).BindFunc(fail)
			record, err := app.FindRecordById(collectionName, id)
			if err != nil {
				t.Fatal(err)
			}
			if err := app.RunInTransaction(func(tx core.App) error { return change(tx, record.Fresh()) }); err == nil {
				t.Fatal("it has not failed")
			}
			saveRecord(t, app, "undone000000000", nil)
			if event := next(t, live); !strings.Contains(event, "undone") {
				t.Errorf("of what was undone: got %s", event)
			}
			if err := change(app, record); err == nil {
				t.Fatal("it has not failed")
			}
			awaitEnd(t, live)
			saveRecord(t, app, "end000000000000", nil)
			for _, want := range []string{"undone", "end0"} {
				if event := next(t, plain); !strings.Contains(event, want) {
					t.Errorf("plain: got %s, want %s", event, want)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.underway)+len(f.ofRow)+len(f.decided) > 0 {
				t.Errorf("left behind: %d, %d, %d", len(f.underway), len(f.ofRow), len(f.decided))
			}
		})
	}
}

// An update that fails within the hooks of a delete of the same record is not that delete.
func TestUpdateThatFailsWithinADelete(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	app.OnRecordUpdate(collectionName).BindFunc(func(*core.RecordEvent) error { return errors.New("no") })
	app.OnRecordDeleteExecute(collectionName).BindFunc(func(e *core.RecordEvent) error {
		if err := e.App.Save(e.Record); err == nil {
			t.Error("it has not failed")
		}
		return e.Next()
	})
	const id = "record000000001"
	saveRecord(t, app, id, nil)
	server := apptest.Serve(t, app)
	live := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
	record, err := app.FindRecordById(collectionName, id)
	if err == nil {
		err = app.Delete(record)
	}
	if err != nil {
		t.Fatal(err)
	}
	saveRecord(t, app, "end000000000000", nil)
	if event := next(t, live); !strings.Contains(event, `"delete"`) {
		t.Errorf("got %s", event)
	}
}

// The rule may change while a save is under way, whose record has the rule of before, by
// which PocketBase sends its event. Whoever is told what leaves fetches instead.
func TestSavesByAnOldRule(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	const id = "record000000001"
	saveRecord(t, app, id, nil)
	server := apptest.Serve(t, app)
	for name, change := range map[string]func(record *core.Record) error{
		"an update": func(record *core.Record) error { return app.Save(record) },
		"a delete":  func(record *core.Record) error { return app.Delete(record) },
	} {
		record, err := app.FindRecordById(collectionName, id)
		if err != nil {
			t.Fatal(err)
		}
		collection, err := app.FindCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		collection.ListRule = types.Pointer(`@request.auth.id != "" && title != "` + name + `"`)
		if err := app.Save(collection); err != nil {
			t.Fatal(err)
		}
		s := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
		if err := change(record); err != nil {
			t.Fatal(err)
		}
		awaitEnd(t, s)
		if told := strings.Join(s.Take(), "\n"); strings.Contains(told, id) {
			t.Errorf("%s: a guest was told %s", name, told)
		}
		saveRecord(t, app, id, nil)
	}
}

// Who subscribes while an update is under way may have listed the record as it was: it is
// told that it leaves, or fetches again if nobody knows whether it could see it.
func TestUpdatesThatBeganBeforeASubscription(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		filter      string
		early       bool // it was there before
		told, fetch bool
	}{
		"the first subscriber":                {told: true},
		"a filter that lets it through":       {filter: `id != "" && created != ""`, told: true},
		"a filter of a long field":            {filter: `category = "a"`, fetch: true},
		"whose filter it passes still":        {filter: `category = "b"`},
		"a filter that the database is asked": {filter: `data.n > 1`, fetch: true},
		"whoever was there before":            {filter: `category = "a"`, early: true, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			server := apptest.Serve(t, app)
			const id = "record000000001"
			saveRecord(t, app, id, map[string]any{"category": "a", "data": `{"n":2}`})
			saved := map[string]any{"category": "b", "data": `{"n":1}`}
			if row.told && !row.early {
				saved["userId"] = "somebody"
			}
			var s *apptest.Stream
			if row.early {
				s = server.Subscribe(t, "", liveTopic("aiContent/*", row.filter))
			}
			err := app.RunInTransaction(func(tx core.App) error {
				saveRecord(t, tx, id, saved)
				if !row.early {
					s = server.Subscribe(t, "", liveTopic("aiContent/*", row.filter))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if row.fetch {
				awaitEnd(t, s)
				return
			}
			if event := next(t, s); strings.Contains(event, `"leave"`) != row.told || !strings.Contains(event, id) {
				t.Errorf("got %s", event)
			}
		})
	}
}

// awaitEnd returns when the stream has ended, so that its viewer fetches again.
func awaitEnd(t *testing.T, s *apptest.Stream) {
	t.Helper()
	select {
	case <-s.Ended:
	case <-time.After(time.Minute):
		t.Errorf("the stream goes on, with %q", s.Take())
	}
}

// What the database could not be asked about a record is not known: whoever is told what leaves
// fetches instead.
func TestQuestionsThatFail(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	setRule(t, app, `title:lower != "x"`) // which the database is asked
	server := apptest.Serve(t, app)
	live, plain := server.Subscribe(t, "", liveTopic("aiContent/*", "")), server.Subscribe(t, "", "aiContent/*")
	app.OnRecordAfterCreateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.Id != "end000000000000" {
			e.App = failingApp{e.App}
		}
		return e.Next()
	})
	saveRecord(t, app, "record000000001", nil)
	saveRecord(t, app, "end000000000000", nil)
	if event := next(t, plain); !strings.Contains(event, "end0") {
		t.Errorf("plain: got %s", event)
	}
	awaitEnd(t, live)
}

// A failingApp can't find out who may see a record.
type failingApp struct{ core.App }

func (failingApp) CanAccessRecord(*core.Record, *core.RequestInfo, *string) (bool, error) {
	return false, context.DeadlineExceeded
}

package realtime

import (
	"bufio"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// An idEvent is one with its id, as EventSource has it.
type idEvent struct{ id, name, data string }

// listen opens a stream that names its last event, and gives it the topics.
func listen(t *testing.T, server *apptest.Server, lastEventID string, topics ...string) <-chan idEvent {
	t.Helper()
	response, err := server.Client.Get(server.URL + "/api/realtime?lastEventId=" + url.QueryEscape(lastEventID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	events := make(chan idEvent, 1000)
	go func() {
		defer close(events)
		var event idEvent
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			switch key, value, _ := strings.Cut(lines.Text(), ":"); key {
			case "id":
				event.id = value
			case "event":
				event.name = value
			case "data":
				event.data = value
				events <- event
			}
		}
	}()
	server.SetTopics(t, nextOf(t, events, "clientId").id, "", topics...)
	return events
}

// nextOf returns the next event, which has the part in it.
func nextOf(t *testing.T, events <-chan idEvent, part string) idEvent {
	t.Helper()
	select {
	case event := <-events:
		if !strings.Contains(event.data, part) {
			t.Fatalf("got %q, want %s", event, part)
		}
		return event
	case <-time.After(time.Minute):
		t.Fatalf("no event within a minute, want %s", part)
		return idEvent{}
	}
}

// A stream that is cut between the events that one change is to its topics gets that change
// again on each: none misses it. After the last of them nothing comes twice.
func TestStreamCutWithinAChange(t *testing.T) {
	t.Parallel()
	for name, cutAfter := range map[string]int{"the first event": 0, "the second event": 1, "the last event": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			server := apptest.Serve(t, app)
			topics := []string{liveTopic("aiContent/*", `category = "a"`), liveTopic("aiContent/*", `title ~ "n"`), liveTopic("aiContent/*", "")}
			events := listen(t, server, "", topics...)
			for range topics {
				nextOf(t, events, `"live"`)
			}
			saveRecord(t, app, "record000000001", map[string]any{"category": "a", "title": "one"})
			id := ""
			for range 1 + cutAfter {
				id = nextOf(t, events, `"one"`).id
			}
			saveRecord(t, app, "record000000002", map[string]any{"category": "a", "title": "another"})

			back := listen(t, server, id, topics...)
			for range topics {
				nextOf(t, back, `"continued":true`)
			}
			wanted := []string{`"one"`, `"another"`}
			if cutAfter == 2 {
				wanted = wanted[1:]
			}
			for _, title := range wanted {
				got := map[string]bool{}
				for range topics {
					got[nextOf(t, back, title).name] = true
				}
				if len(got) != len(topics) {
					t.Errorf("%s came to %d topics, want %d", title, len(got), len(topics))
				}
			}
			saveRecord(t, app, "record000000003", map[string]any{"category": "a", "title": "new"})
			nextOf(t, back, `"new"`)
		})
	}
}

// A stream whose topic is younger than the look at the row before a change cannot be told
// whether the record leaves it: it is ended, and does not go on.
func TestStreamEndsThatCannotBeTold(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		filter string // that the row passed before the change
		userId string // after it
		stays  bool
	}{
		"a filter that the database is asked": {filter: `data.n > 1`},
		"a long field":                        {filter: `body = "before"`},
		"a field that the rule compares":      {filter: `userId = ""`, userId: "somebody", stays: true},
		"what the row passes":                 {filter: `data.n = 1`, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, f := newTest(t)
			server := apptest.Serve(t, app)
			const id = "record000000001"
			saveRecord(t, app, id, map[string]any{"data": `{"n":2}`, "body": "before"})
			older := server.Subscribe(t, "", liveTopic("aiContent/*", "")) // else nobody looks before
			apptest.Eventually(t, "the older is told", func() bool { return older.LastEventID() != "" })
			topic := liveTopic("aiContent/*", row.filter)
			var younger *apptest.Stream
			app.OnRecordAfterUpdateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
				if younger == nil {
					younger = server.Subscribe(t, "", topic)
					apptest.Eventually(t, "the younger is told", func() bool { return younger.LastEventID() != "" })
				}
				return e.Next()
			})
			saveRecord(t, app, id, map[string]any{"data": `{"n":1}`, "body": "after", "userId": row.userId})
			next(t, older)
			if row.stays {
				next(t, younger)
				return
			}
			select {
			case <-younger.Ended:
			case <-time.After(time.Minute):
				t.Fatalf("the stream goes on, with %q", younger.Take())
			}
			apptest.Eventually(t, "it is forgotten", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.subscribers) == 1 })
			if _, goesOn := comeBack(t, server, younger.LastEventID(), "", topic); goesOn {
				t.Error("it is continued")
			}
		})
	}
}

// A topic that others have taken the place of meanwhile has missed something.
func TestTopicThatWasAwayDoesNotGoOn(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	topic := liveTopic("aiContent/*", `category = "a"`)
	s := server.Subscribe(t, "", topic)
	apptest.Eventually(t, "it is told", func() bool { return len(s.Events) == 1 })
	server.SetTopics(t, s.ID, "", "aiContent/*")
	saveRecord(t, app, "record000000001", map[string]any{"category": "a"})
	next(t, s)
	server.SetTopics(t, s.ID, "", topic)
	select {
	case event := <-s.Events:
		if !strings.Contains(event, `"live"`) || strings.Contains(event, "continued") {
			t.Errorf("got %s, want that it does not go on", event)
		}
	case <-time.After(time.Minute):
		t.Error("not told within a minute")
	}
}

// PocketBase drops all topics before it sets new ones. What happens meanwhile is missed, even by the
// only subscriber there is.
func TestTopicsMissWhatHappensWhileTheyAreSet(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		happens func(t *testing.T, app core.App, drop func())
		goesOn  bool
	}{
		"nothing":  {func(_ *testing.T, _ core.App, drop func()) { drop() }, true},
		"a create": {func(t *testing.T, app core.App, drop func()) { drop(); saveRecord(t, app, "record000000002", nil) }, false},
		"the end of a delete": {func(t *testing.T, app core.App, drop func()) {
			app.OnRecordAfterDeleteSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
				drop()
				return e.Next()
			})
			record, err := app.FindRecordById(collectionName, "record000000001")
			if err == nil {
				err = app.Delete(record)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, f := newTest(t)
			server := apptest.Serve(t, app)
			topic := liveTopic("aiContent/*", "")
			stream := server.Subscribe(t, "", topic)
			saveRecord(t, app, "record000000001", nil)
			next(t, stream)
			client, err := app.SubscriptionsBroker().ClientById(stream.ID)
			if err != nil {
				t.Fatal(err)
			}
			row.happens(t, app, func() { client.Unsubscribe() })
			apptest.Eventually(t, "all is sent", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return !f.draining && len(f.changes) == 0 && client.(*subscriber).position.Load() == f.end()
			})
			client.Subscribe(topic)
			select {
			case event := <-stream.Events:
				if strings.Contains(event, `"continued":true`) != row.goesOn {
					t.Errorf("got %s", event)
				}
			case <-time.After(time.Minute):
				t.Fatal("no event within a minute")
			}
		})
	}
}

// A filter means what the collection's fields are now.
func TestFiltersFollowTheCollection(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	filtered := func(filter string) *apptest.Stream {
		return server.Subscribe(t, "", strings.Replace(liveTopic("aiContent/*", filter), "leave=1&", "", 1))
	}
	change := func(change func(fields *core.FieldsList)) {
		t.Helper()
		content, err := app.FindCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		change(&content.Fields)
		if err := app.Save(content); err != nil {
			t.Fatal(err)
		}
	}
	number, renamed := filtered(`category = "05"`), filtered(`title = "x"`)
	saveRecord(t, app, "record000000001", map[string]any{"category": "5", "title": "y"})
	saveRecord(t, app, "record000000002", map[string]any{"category": "05", "title": "x"})
	for _, s := range []*apptest.Stream{number, renamed} {
		if event := next(t, s); !strings.Contains(event, "record000000002") {
			t.Fatalf("as text: got %s", event)
		}
	}

	change(func(fields *core.FieldsList) { fields.RemoveByName("category") })
	change(func(fields *core.FieldsList) {
		fields.Add(&core.NumberField{Name: "category"})
		fields.GetByName("title").SetName("heading")
	})
	saveRecord(t, app, "record000000003", map[string]any{"category": 5, "heading": "x"})
	if event := next(t, number); !strings.Contains(event, "record000000003") {
		t.Errorf("as a number: got %s", event)
	}
	change(func(fields *core.FieldsList) { fields.GetByName("body").SetName("title") })
	saveRecord(t, app, "record000000004", map[string]any{"title": "y", "heading": "x"})
	saveRecord(t, app, "record000000005", map[string]any{"title": "x", "heading": "y"})
	if event := next(t, renamed); !strings.Contains(event, "record000000005") {
		t.Errorf("of a field that has another one's name: got %s", event)
	}
}

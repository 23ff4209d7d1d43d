package realtime

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// liveTopic is one of all records that a filter lets through, or of one record.
func liveTopic(path, filter string) string {
	return path + "?leave=1&options=" + url.QueryEscape(`{"query":{"filter":`+fmt.Sprintf("%q", filter)+`}}`)
}

// next returns the next event but those that answer a subscription, or tell that the
// stream lives.
func next(t *testing.T, s *apptest.Stream) string {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case event := <-s.Events:
			if !strings.Contains(event, `"action":"live"`) && !strings.Contains(event, `"action":"alive"`) {
				return event
			}
		case <-timeout:
			t.Fatal("no event within a minute")
		}
	}
}

func saveRecord(t *testing.T, app core.App, id string, fields map[string]any) {
	t.Helper()
	record, err := app.FindRecordById(collectionName, id)
	if err != nil {
		content, err := app.FindCachedCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		record = core.NewRecord(content)
		record.Id = id
	}
	record.Load(fields)
	if err := app.Save(record); err != nil {
		t.Fatal(err)
	}
}

// Whoever could see a record and no longer can is told, with its id and no more.
func TestLeave(t *testing.T) {
	t.Parallel()
	const id = "record000000001"
	const left = `{"action":"leave","record":{"id":"` + id + `"}}`
	for _, row := range []struct {
		name, path, filter string
		before, after      map[string]any
		guest, owner       string // what is in the event of the update
	}{
		{"it is made private", "aiContent/*", "", map[string]any{"userId": ""}, map[string]any{"userId": "owner0000000000"}, left, `"action":"update"`},
		{"the same, of the one record", "aiContent/" + id, "", map[string]any{"userId": ""}, map[string]any{"userId": "owner0000000000"}, left, `"action":"update"`},
		{"it leaves a filter", "aiContent/*", `category = "a"`, map[string]any{"category": "a"}, map[string]any{"category": "b"}, left, left},
		{"it leaves a filter that the database is asked", "aiContent/*", `data.n > 1`, map[string]any{"data": `{"n":2}`}, map[string]any{"data": `{"n":1}`}, left, left},
		{"it enters a filter", "aiContent/*", `category = "b"`, map[string]any{"category": "a"}, map[string]any{"category": "b"}, `"action":"update"`, `"action":"update"`},
		{"it was never seen by the guest", "aiContent/*", "", map[string]any{"userId": "owner0000000000"}, map[string]any{"userId": "owner0000000000", "title": "x"}, "", `"action":"update"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
				app, _ := newTest(t)
				server := apptest.Serve(t, app)
				server.Client = client
				owner, _ := apptest.NewUser(t, app, "owner@example.com")
				token, err := owner.NewAuthToken()
				if err != nil {
					t.Fatal(err)
				}
				mine := func(fields map[string]any) map[string]any {
					fields = maps.Clone(fields)
					for name, value := range fields {
						if value == "owner0000000000" {
							fields[name] = owner.Id
						}
					}
					return fields
				}
				saveRecord(t, app, id, mine(row.before))
				topic := liveTopic(row.path, row.filter)
				guest, own := server.Subscribe(t, "", topic), server.Subscribe(t, token, topic)
				saveRecord(t, app, id, mine(row.after))
				saveRecord(t, app, id, map[string]any{"title": "end", "userId": "", "category": "a", "data": `{"n":2}`}) // somebody sees this
				saveRecord(t, app, id, map[string]any{"title": "end", "category": "b"})
				if row.guest != "" {
					if event := next(t, guest); !strings.Contains(event, row.guest) || strings.Contains(row.guest, "leave") && event != row.guest {
						t.Errorf("guest: got %s, want %s", event, row.guest)
					}
				} else if event := next(t, guest); !strings.Contains(event, `"end"`) {
					t.Errorf("guest: got %s, want only what came later", event)
				}
				if event := next(t, own); !strings.Contains(event, row.owner) {
					t.Errorf("owner: got %s, want %s", event, row.owner)
				}
			})
		})
	}
}

// Nobody is told that a record left which no commit ever showed.
func TestLeaveIsOfWhatWasCommitted(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	guest := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
	for _, undo := range []bool{false, true} {
		_ = app.RunInTransaction(func(tx core.App) error {
			id := fmt.Sprintf("secret%t0000000000", undo)[:15]
			saveRecord(t, tx, id, map[string]any{"userId": ""})
			saveRecord(t, tx, id, map[string]any{"userId": "somebody"})
			if undo {
				return fmt.Errorf("undo")
			}
			return nil
		})
	}
	saveRecord(t, app, "public000000000", nil)
	if err := app.RunInTransaction(func(tx core.App) error {
		saveRecord(t, tx, "public000000000", map[string]any{"userId": "somebody"})
		return fmt.Errorf("undo")
	}); err == nil {
		t.Fatal("got no error")
	}
	saveRecord(t, app, "public000000000", map[string]any{"title": "still"})
	for _, want := range []string{`"action":"create"`, `"still"`} {
		if event := next(t, guest); !strings.Contains(event, want) {
			t.Errorf("got %s, want %s", event, want)
		}
	}
}

// No leave tells what a new rule hides, or a user who is deleted no longer sees: streams
// that count on being told end, or hear that they are nobody's, and others stay.
func TestStreamsThatExpectLeaveAreToldWhenNoneCan(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, app core.App, user *core.Record){
		"with the rules": func(t *testing.T, app core.App, _ *core.Record) {
			content, err := app.FindCollectionByNameOrId(collectionName)
			if err != nil {
				t.Fatal(err)
			}
			content.ListRule = types.Pointer(`userId = "nobody"`)
			if err := app.Save(content); err != nil {
				t.Fatal(err)
			}
		},
		"with the rules, behind which a hook fails": func(t *testing.T, app core.App, _ *core.Record) {
			app.OnCollectionAfterUpdateSuccess().Bind(&hook.Handler[*core.CollectionEvent]{
				Func: func(*core.CollectionEvent) error { return errors.New("no") }, Priority: -1,
			})
			content, err := app.FindCollectionByNameOrId(collectionName)
			if err != nil {
				t.Fatal(err)
			}
			content.ListRule = types.Pointer(`userId = "nobody"`)
			if err := app.Save(content); err == nil {
				t.Fatal("no hook has failed")
			}
		},
		"with rules that are not committed": func(t *testing.T, app core.App, _ *core.Record) { // which PocketBase goes by until then
			_ = app.RunInTransaction(func(tx core.App) error {
				content, err := tx.FindCollectionByNameOrId(collectionName)
				if err != nil {
					t.Fatal(err)
				}
				content.ListRule = types.Pointer(`userId = "nobody"`)
				if err := tx.Save(content); err != nil {
					t.Fatal(err)
				}
				return errors.New("undo")
			})
		},
		"with the collection": func(t *testing.T, app core.App, _ *core.Record) {
			content, err := app.FindCollectionByNameOrId(collectionName)
			if err != nil {
				t.Fatal(err)
			}
			if err := app.Delete(content); err != nil {
				t.Fatal(err)
			}
		},
		"with its name": func(t *testing.T, app core.App, _ *core.Record) {
			content, err := app.FindCollectionByNameOrId(collectionName)
			if err != nil {
				t.Fatal(err)
			}
			content.Name = "another"
			if err := app.Save(content); err != nil {
				t.Fatal(err)
			}
		},
		"with the user": func(t *testing.T, app core.App, user *core.Record) {
			if err := app.Delete(user); err != nil {
				t.Fatal(err)
			}
		},
		"with the password": func(t *testing.T, app core.App, user *core.Record) {
			user.SetPassword("another password")
			if err := app.Save(user); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, _ := newTest(t)
			server := apptest.Serve(t, app)
			user, token := apptest.NewUser(t, app, "user@example.com")
			live, plain := server.Subscribe(t, token, liveTopic("aiContent/*", "")), server.Subscribe(t, token, "aiContent/*")
			change(t, app, user)
			if name != "with the user" && name != "with the password" {
				select {
				case <-live.Ended:
				case <-time.After(time.Minute):
					t.Error("the stream goes on")
				}
			} else if event := next(t, live); event != `{"action":"unidentified"}` {
				t.Errorf("got %s", event)
			}
			if len(plain.Events) > 0 {
				t.Errorf("one that asked for nothing new got %s", <-plain.Events)
			}
			select {
			case <-plain.Ended:
				t.Error("a stream that asked for nothing new ended too")
			default:
			}
		})
	}
}

// The server says whether its events tell everything of a query.
func TestSubscriptionsAreToldWhatIsLive(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	content, err := app.FindCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	content.Fields.Add(&core.TextField{Name: "secret", Hidden: true}, &core.RelationField{Name: "author", CollectionId: "_pb_users_auth_"})
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
	server := apptest.Serve(t, app)
	for filter, exact := range map[string]bool{
		``: true, `category = "a"`: true, `data.n > 1 && (title ~ "x" || created > "2026-01-01")`: true, `author = "x"`: true, `category:lower = "a"`: true,
		`created > @now`: false, `author.name = "x"`: false, `@collection.users.id ?= userId`: false, `secret = "x"`: false, `users_via_x.id = "y"`: false, `no filter (`: false,
	} {
		s := server.Subscribe(t, "", liveTopic("aiContent/*", filter))
		want := fmt.Sprintf(`{"action":"live","exact":%t,"sortable":["id","title","body","category","userId","created"]}`, exact)
		apptest.Eventually(t, "an answer to "+filter, func() bool { return len(s.Events) > 0 })
		if event := <-s.Events; event != want {
			t.Errorf("%s: got %s, want %s", filter, event, want)
		}
	}
}

// A change costs those nothing who demand another value of a field.
func TestConcerned(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	content, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	var streams []*apptest.Stream
	for i := range 50 {
		streams = append(streams, server.Subscribe(t, "", liveTopic("aiContent/*", fmt.Sprintf(`category = "c%d" && title != "x"`, i))))
	}
	all := server.Subscribe(t, "", `aiContent/*?options=`+url.QueryEscape(`{"query":{"filter":"category = 'c1' || category = 'c2'"}}`))
	count := func(before, after string) int {
		f.mu.Lock()
		defer f.mu.Unlock()
		c := &change{record: core.NewRecord(content), state: state{row: row{"category": {class: text, text: after}}}}
		if before != "" {
			c.before.row = row{"category": {class: text, text: before}}
		}
		behind := len(f.behind)
		f.note(c)
		n := len(f.behind) - behind
		clear(f.behind)
		return n
	}
	for _, row := range []struct {
		before, after string
		want          int
	}{{"", "c7", 1}, {"c7", "c8", 2}, {"", "nobody's", 0}} {
		if got := count(row.before, row.after); got != row.want {
			t.Errorf("from %q to %q: got %d, want %d", row.before, row.after, got, row.want)
		}
	}
	saveRecord(t, app, "record000000001", map[string]any{"category": "c7"})
	saveRecord(t, app, "record000000001", map[string]any{"category": "c1"})
	for i, wants := range map[int][]string{7: {`"create"`, `"leave"`}, 1: {`"update"`}} {
		for _, want := range wants {
			if event := next(t, streams[i]); !strings.Contains(event, want) {
				t.Errorf("viewer of c%d: got %s, want %s", i, event, want)
			}
		}
	}
	if event := next(t, all); !strings.Contains(event, `"update"`) {
		t.Errorf("got %s", event)
	}
	for _, s := range streams {
		if server.SetTopics(t, s.ID, "") != 204 {
			t.Error("unsubscribe")
		}
	}
	server.SetTopics(t, all.ID, "")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.index)+len(f.demanded)+len(f.filterFields)+f.asking+f.leaving+len(f.subscribers)+len(f.behind)+len(f.underway)+len(f.ofRow) > 0 {
		t.Errorf("left behind: %v %v %v %d %d", f.index, f.demanded, f.filterFields, f.asking, f.leaving)
	}
}

// A quiet stream that expects leave hears that it lives, and one of stock PocketBase's kind
// hears nothing.
func TestQuietStreamsAreToldThatTheyLive(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		server := apptest.Serve(t, app)
		server.Client = client
		plain := server.Subscribe(t, "", "aiContent/*")
		live := server.Subscribe(t, "", liveTopic("aiContent/*", ""), liveTopic("aiContent/*", "title = 'x'"))
		for _, want := range []string{`"live"`, `"live"`, `"alive"`, `"alive"`} {
			select {
			case event := <-live.Events:
				if !strings.Contains(event, `"action":`+want) {
					t.Errorf("got %s, want %s", event, want)
				}
			case <-time.After(2 * aliveEvery):
				t.Fatalf("no %s in time", want)
			}
		}
		if len(plain.Events) > 0 {
			t.Errorf("a plain stream got %s", <-plain.Events)
		}
	})
}

// Whoever comes later begins at the end of what was sent, whatever it asks for.
func TestLaterSubscribersBeginAtTheEnd(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	first := server.Subscribe(t, "", "aiContent/*")
	create(t, app, "before")
	next(t, first)
	apptest.Eventually(t, "what was sent is forgotten", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.logStart > 0
	})
	streams := []*apptest.Stream{first}
	for _, topics := range [][]string{{"aiContent/*"}, {liveTopic("aiContent/*", "")}, {liveTopic("aiContent/*", `title = "after"`)},
		{liveTopic("aiContent/*", `title = "after"`), "aiContent/*"}} {
		s := server.Subscribe(t, "", topics...)
		server.SetTopics(t, s.ID, "", "aiContent/*", liveTopic("aiContent/*", `title = "x"`))
		server.SetTopics(t, s.ID, "", topics...)
		streams = append(streams, s)
	}
	create(t, app, "after")
	for i, s := range streams {
		if event := next(t, s); !strings.Contains(event, `"after"`) {
			t.Errorf("stream %d: got %s", i, event)
		}
	}
}

// A user whose password has changed and who signs in again gets what is theirs on the next
// stream, after the last one has gone.
func TestNextStreamOfTheSameUser(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	user, token := apptest.NewUser(t, app, "user@example.com")
	topics := []string{liveTopic("aiContent/*", ""), liveTopic("aiContent/*", `category = "a"`)}
	for i := range 3 {
		s := server.Subscribe(t, token, topics...)
		server.SetTopics(t, s.ID, token, topics...)
		saveRecord(t, app, fmt.Sprintf("record00000000%d", i), map[string]any{"title": fmt.Sprint("for the user ", i), "userId": user.Id, "category": "a"})
		for range topics {
			if event := next(t, s); !strings.Contains(event, fmt.Sprint("for the user ", i)) {
				t.Fatalf("round %d: got %s", i, event)
			}
		}
		user.SetPassword(fmt.Sprint("another password ", i))
		if err := app.Save(user); err != nil {
			t.Fatal(err)
		}
		if event := next(t, s); event != `{"action":"unidentified"}` {
			t.Fatalf("got %s", event)
		}
		s.Close()
		var err error
		if token, err = user.NewAuthToken(); err != nil {
			t.Fatal(err)
		}
	}
}

// Writers that save one record at the same time, each without a transaction of its own,
// leave nobody with a record that the last of them hid.
func TestLeaveBesideOtherWriters(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		server := apptest.Serve(t, app)
		server.Client = client
		guest := server.Subscribe(t, "", liveTopic("aiContent/*", ""))
		const rounds, writers = 150, 4
		for round := range rounds {
			id := fmt.Sprintf("record%09d", round)
			saveRecord(t, app, id, map[string]any{"userId": "somebody"})
			var group sync.WaitGroup
			for writer := range writers {
				record, err := app.FindRecordById(collectionName, id)
				if err != nil {
					t.Fatal(err)
				}
				record.Set("title", fmt.Sprint(writer))
				record.Set("userId", []string{"", "somebody"}[writer%2])
				group.Go(func() {
					if err := app.Save(record); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			record, err := app.FindRecordById(collectionName, id)
			if err != nil {
				t.Fatal(err)
			}
			saveRecord(t, app, "end000000000000", map[string]any{"title": fmt.Sprint("end ", round)})
			shown := false
			for {
				event := next(t, guest)
				if strings.Contains(event, fmt.Sprintf(`"end %d"`, round)) {
					break
				}
				if strings.Contains(event, id) {
					shown = !strings.Contains(event, `"leave"`)
				}
			}
			if public := record.GetString("userId") == ""; shown && !public {
				t.Fatalf("round %d: a guest still shows a record that is private", round)
			}
		}
	})
}

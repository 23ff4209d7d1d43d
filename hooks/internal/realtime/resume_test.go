package realtime

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// comeBack opens a stream again, names the last event, and reports whether the server says
// that it goes on.
func comeBack(t *testing.T, server *apptest.Server, lastEventID, token, topic string) (*apptest.Stream, bool) {
	t.Helper()
	s := server.ConnectAfter(t, lastEventID)
	if status := server.SetTopics(t, s.ID, token, topic); status != http.StatusNoContent {
		t.Fatalf("subscribe: got %d", status)
	}
	for {
		select {
		case event := <-s.Events:
			if strings.Contains(event, `"action":"live"`) {
				return s, strings.Contains(event, `"continued":true`)
			}
			t.Fatalf("got %s before what is live", event)
		case <-time.After(time.Minute):
			t.Fatal("not told what is live within a minute")
		}
	}
}

// A stream that is cut again and again brings each event once, in order, as one that never
// was: of all records, of a filter that is compiled, of one that the database is asked,
// and under a rule that the database is asked.
func TestStreamsGoOnAfterCuts(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		filter, rule string
		guest        bool
	}{
		"all records":      {guest: true},
		"a user's":         {filter: `category = "a"`},
		"compiled filter":  {filter: `category = "a"`, guest: true},
		"asked filter":     {filter: `data.n > 1`, guest: true},
		"rule of the user": {rule: `@request.auth.verified = false || userId = ""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
				app, _ := newTest(t)
				server := apptest.Serve(t, app)
				server.Client = client
				user, token := apptest.NewUser(t, app, "user@example.com")
				if row.guest {
					token = ""
				}
				if row.rule != "" {
					setRule(t, app, row.rule)
				}
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				topic := liveTopic("aiContent/*", row.filter)
				stable, cut := server.Subscribe(t, token, topic), server.Subscribe(t, token, topic)
				apptest.Eventually(t, "it is told what is live", func() bool { return cut.LastEventID() != "" })

				done := make(chan struct{})
				go func() {
					defer close(done)
					write(t, app, random, user.Id)
				}()
				var got []string
				collect := func(s *apptest.Stream) {
					s.Close()
					<-s.Ended
					got = append(got, changesOf(s.Take())...)
				}
				cuts := 0
				for writing := true; writing; cuts++ {
					select {
					case <-done:
						writing = false
					case <-time.After(time.Duration(5+cuts%50) * time.Millisecond):
					}
					collect(cut)
					var goesOn bool
					if cut, goesOn = comeBack(t, server, cut.LastEventID(), token, topic); !goesOn {
						t.Fatalf("after %d cuts it is not continued", cuts)
					}
				}
				saveRecord(t, app, "end000000000000", map[string]any{"title": "the end", "category": "a", "data": `{"n":2}`})
				var want []string
				for event := ""; !strings.Contains(event, "the end"); want = append(want, event) {
					event = next(t, stable)
				}
				for event := ""; !strings.Contains(event, "the end"); got = append(got, event) {
					event = next(t, cut)
				}
				if !slices.Equal(got, want) {
					t.Errorf("after %d cuts: got %d events, want %d:\n%s\n\n%s", cuts, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				t.Logf("%d cuts, %d events", cuts, len(want))
			})
		})
	}
}

// write makes changes of every kind for a while.
func write(t *testing.T, app core.App, random *rand.Rand, userId string) {
	for range 300 {
		id := fmt.Sprintf("record%09d", random.IntN(20))
		record, err := app.FindRecordById(collectionName, id)
		if err == nil && random.IntN(4) == 0 {
			if err := app.Delete(record); err != nil {
				t.Error(err)
			}
			continue
		}
		saveRecord(t, app, id, map[string]any{
			"title": fmt.Sprint(random.IntN(1000)), "category": []string{"a", "b"}[random.IntN(2)],
			"userId": []string{"", userId, "somebody0000000"}[random.IntN(3)], "data": fmt.Sprintf(`{"n":%d}`, random.IntN(4)),
		})
		time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond)
	}
}

func changesOf(events []string) []string {
	return slices.DeleteFunc(events, func(event string) bool {
		return strings.Contains(event, `"action":"live"`) || strings.Contains(event, `"action":"alive"`)
	})
}

func setRule(t *testing.T, app core.App, rule string) {
	t.Helper()
	content, err := app.FindCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	content.ListRule = types.Pointer(rule)
	if err := app.Save(content); err != nil {
		t.Fatal(err)
	}
}

// What a stream missed is for the same viewer only, and only if nothing of it is forgotten.
func TestStreamsDoNotGoOn(t *testing.T) {
	t.Parallel()
	const secret = "record000000001"
	for name, row := range map[string]struct {
		between func(t *testing.T, app core.App, f *FanOut, user *core.Record)
		as      func(t *testing.T, app core.App, token string) string
		id      func(id string) string
	}{
		"for a guest": {as: func(*testing.T, core.App, string) string { return "" }},
		"for another user": {as: func(t *testing.T, app core.App, _ string) string {
			_, token := apptest.NewUser(t, app, "other@example.com")
			return token
		}},
		"after a rule changed": {between: func(t *testing.T, app core.App, _ *FanOut, _ *core.Record) {
			setRule(t, app, `userId = ""`)
		}},
		"after the user changed": {between: func(t *testing.T, app core.App, _ *FanOut, user *core.Record) {
			user.SetVerified(true)
			if err := app.Save(user); err != nil {
				t.Fatal(err)
			}
		}},
		"with too many changes": {between: func(t *testing.T, app core.App, f *FanOut, _ *core.Record) {
			for i := range keptChanges {
				saveRecord(t, app, "record00000000y", map[string]any{"title": fmt.Sprint(i)})
			}
			apptest.Eventually(t, "the first is forgotten", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.log) == keptChanges })
		}},
		"after too long": {between: func(t *testing.T, _ core.App, f *FanOut, _ *core.Record) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for s := range f.subscribers {
				if s.away != nil {
					s.away.Reset(0)
				}
			}
			f.mu.Unlock()
			apptest.Eventually(t, "it is forgotten", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.away == 0 })
			f.mu.Lock()
		}},
		"of another server's life": {id: func(id string) string { return "another" + id[7:] }},
		"of a later event":         {id: func(id string) string { return id + "999" }},
		"of no number":             {id: func(id string) string { return id + "x" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, f := newTest(t)
			server := apptest.Serve(t, app)
			user, token := apptest.NewUser(t, app, "user@example.com")
			topic := liveTopic("aiContent/*", "")
			s := server.Subscribe(t, token, topic)
			saveRecord(t, app, "record000000000", nil)
			next(t, s)
			s.Close()
			apptest.Eventually(t, "it is away", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.away == 1 })
			saveRecord(t, app, secret, map[string]any{"userId": user.Id})
			if row.between != nil {
				row.between(t, app, f, user)
			}
			id := s.LastEventID()
			if row.id != nil {
				id = row.id(id)
			}
			if row.as != nil {
				token = row.as(t, app, token)
			}
			back, goesOn := comeBack(t, server, id, token, topic)
			if goesOn {
				t.Error("it is told that it goes on")
			}
			saveRecord(t, app, "record000000002", nil)
			if event := next(t, back); !strings.Contains(event, "record000000002") {
				t.Errorf("got %s, want only what came later", event)
			}
		})
	}
}

// A stream goes on when topics are added to it, and when its old connection is not known to
// be gone; plain ones are not told, and forgotten at once.
func TestStreamsGoOn(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	one, other := liveTopic("aiContent/*", `category = "a"`), liveTopic("aiContent/*", `category = "b"`)
	s := server.Subscribe(t, "", one)
	apptest.Eventually(t, "it is told", func() bool { return len(s.Events) == 1 })
	<-s.Events
	server.SetTopics(t, s.ID, "", one, other)
	apptest.Eventually(t, "it is told of both", func() bool { return len(s.Events) == 2 })
	continued := 0
	for range 2 {
		if strings.Contains(<-s.Events, `"continued":true`) {
			continued++
		}
	}
	if continued != 1 {
		t.Errorf("got %d topics that go on, want the old one", continued)
	}

	back, goesOn := comeBack(t, server, s.LastEventID(), "", one)
	if !goesOn {
		t.Error("it is not continued while the old connection is open")
	}
	select {
	case <-s.Ended:
	case <-time.After(time.Minute):
		t.Error("the old connection goes on")
	}
	saveRecord(t, app, "record000000001", map[string]any{"category": "a"})
	if event := next(t, back); !strings.Contains(event, "record000000001") {
		t.Errorf("got %s", event)
	}

	plain := server.Subscribe(t, "", "aiContent/*")
	saveRecord(t, app, "record000000002", map[string]any{"category": "a"})
	next(t, plain)
	if plain.LastEventID() != plain.ID {
		t.Errorf("a plain stream's event has the id %s, want the client's", plain.LastEventID())
	}
	plain.Close()
	back.Close()
	apptest.Eventually(t, "only one is away", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.away == 1 && len(f.subscribers) == 1
	})
}

// A stream that came back without one of its topics goes on once more, though the last that it
// missed was an event of that topic, to which nobody listens any more.
func TestStreamsGoOnWithFewerTopics(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	kept, left := liveTopic("aiContent/*", `category = "a"`), liveTopic("aiContent/*", `category = "b"`)
	s := server.Subscribe(t, "", kept, left)
	apptest.Eventually(t, "it is told of both", func() bool { return len(s.Events) == 2 })
	s.Close()
	apptest.Eventually(t, "it is away", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.away == 2 })
	saveRecord(t, app, "record000000001", map[string]any{"category": "b"})

	back, goesOn := comeBack(t, server, s.LastEventID(), "", kept)
	if event := next(t, back); !goesOn || !strings.Contains(event, "record000000001") {
		t.Fatalf("got %s, goes on: %v", event, goesOn)
	}
	select {
	case <-back.Events:
	case <-time.After(aliveEvery / 2): // until then it need hear nothing else
	}
	if id := back.LastEventIDOf(left); back.LastEventIDOf(kept) != id {
		t.Errorf("the topic that it kept brings the place %s, want %s", back.LastEventIDOf(kept), id)
	}
	if _, goesOn := comeBack(t, server, back.LastEventIDOf(kept), "", kept); !goesOn {
		t.Error("it does not go on from there")
	}
}

// What comes to a stream that has ended, as a request that was under way, changes nothing any more.
func TestStreamsThatHaveEndedStayAsTheyAre(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	topic := liveTopic("aiContent/*", "")
	s := server.Subscribe(t, "", topic)
	apptest.Eventually(t, "it is told", func() bool { return s.LastEventID() != "" })
	client, err := app.SubscriptionsBroker().ClientById(s.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	apptest.Eventually(t, "it is away", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.away == 1 })
	client.Unsubscribe()
	saveRecord(t, app, "record000000001", nil)

	gone := server.ConnectAfter(t, s.LastEventID())
	client, err = app.SubscriptionsBroker().ClientById(gone.ID)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	apptest.Eventually(t, "its next one has ended too", client.IsDiscarded)
	client.Subscribe(topic)

	back, goesOn := comeBack(t, server, s.LastEventID(), "", topic)
	if !goesOn {
		t.Error("it does not go on")
	}
	if event := next(t, back); !strings.Contains(event, "record000000001") {
		t.Errorf("got %s", event)
	}
	back.Close()
	apptest.Eventually(t, "only this one is away", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.away == 1 && len(f.subscribers) == 1
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subscribers {
		f.forget(s)
	}
	if f.away != 0 || len(f.byKey) > 0 || len(f.index) > 0 || f.leaving != 0 {
		t.Errorf("left behind: %d away, %d by key, %d in the index, %d that leave", f.away, len(f.byKey), len(f.index), f.leaving)
	}
}

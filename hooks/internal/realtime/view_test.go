package realtime

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// Whoever changes its topics or signs in keeps what was on its way, and gets nothing of
// what was decided before.
func TestBroadcastKeepsToTheViewOfTheMoment(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, f := newTest(t)
		server := apptest.Serve(t, app)
		server.Client = client
		user, token := apptest.NewUser(t, app, "u@example.com")
		s := server.Subscribe(t, "", "aiContent/*")
		late := server.Connect(t)
		earlier := new(core.Record)
		f.Committed([]*core.Record{earlier})
		content, err := app.FindCachedCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		create := func(title, userId string) {
			record := core.NewRecord(content)
			record.Set("title", title)
			record.Set("userId", userId)
			if err := app.Save(record); err != nil {
				t.Fatal(err)
			}
		}
		create("public, before", "")
		create("own, before", user.Id)
		server.SetTopics(t, s.ID, token, "aiContent/*", "users/*")
		server.SetTopics(t, late.ID, token, "aiContent/*")
		create("own, after", user.Id)
		f.Settled([]*core.Record{earlier})
		for _, row := range []struct {
			name string
			*apptest.Stream
			want []string
		}{
			{"a guest who signs in", s, []string{"public, before", "own, after"}},
			{"a subscriber who comes later", late, []string{"own, after"}},
		} {
			for _, want := range row.want {
				if event := <-row.Events; !strings.Contains(event, want) {
					t.Errorf("%s got %s, want %s", row.name, event, want)
				}
			}
		}
	})
}

// A change that is on its way into the log belongs to the view of its moment too.
func TestBroadcastKeepsTheViewOfWhatIsBeingPublished(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	s := server.Subscribe(t, "", "aiContent/*")
	f.mu.Lock()
	f.draining = true // here, step by step
	f.mu.Unlock()
	create(t, app, "on its way")
	c := f.next()
	client, err := app.SubscriptionsBroker().ClientById(s.ID)
	if err != nil {
		t.Fatal(err)
	}
	client.Subscribe("users/*")
	if err := f.publish(c); err != nil {
		t.Fatal(err)
	}
	select {
	case event := <-s.Events:
		if !strings.Contains(event, "on its way") {
			t.Errorf("event: got %s", event)
		}
	case <-time.After(20 * time.Second):
		t.Error("whoever added a topic lost the change that was being published")
	}
}

// A subscriber that changes its other topics all the time loses no delete.
func TestBroadcastOfDeletesBesideNewTopics(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	s := server.Subscribe(t, "", "aiContent/*")
	client, err := app.SubscriptionsBroker().ClientById(s.ID)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				client.Subscribe("users/*")
			}
		}
	}()
	content, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	for range n {
		record := core.NewRecord(content)
		if err := app.Save(record); err != nil {
			t.Fatal(err)
		}
		if err := app.Delete(record); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
	for i := range 2 * n {
		select {
		case <-s.Events:
		case <-time.After(20 * time.Second):
			t.Fatalf("got %d of %d events", i, 2*n)
		}
	}
}

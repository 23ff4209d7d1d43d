package realtime

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A subscriber that stopped reading is cut, and costs nobody else anything.
func TestBroadcastCutsStalledSubscribers(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, f := newTest(t)
		server := apptest.Serve(t, app)
		server.Client = client
		healthy := server.Subscribe(t, "", "aiContent/*")

		stalled, err := client.Get(server.URL + "/api/realtime")
		if err != nil {
			t.Fatal(err)
		}
		defer stalled.Body.Close()
		var id string
		for scanner := bufio.NewScanner(stalled.Body); id == "" && scanner.Scan(); {
			id, _ = strings.CutPrefix(scanner.Text(), "id:")
		}
		server.SetTopics(t, id, "", "aiContent/*")
		apptest.Eventually(t, "both subscribe", func() bool { return len(f.all()) == 2 })

		// More than the queue and the buffers on the way hold.
		const changes = maxQueued + 700
		all := make(chan struct{})
		go func() {
			for range changes {
				<-healthy.Events
			}
			close(all)
		}()
		collection, err := app.FindCachedCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		record := core.NewRecord(collection)
		record.Set("body", strings.Repeat("x", 20_000))
		for range changes {
			f.add(&change{action: "create", record: record, moment: 1, list: access{rule: types.Pointer("")}})
			time.Sleep(100 * time.Microsecond) // no faster than a healthy subscriber reads
		}
		select {
		case <-all:
		case <-time.After(60 * time.Second):
			t.Error("the healthy subscriber did not get every event")
		}
		apptest.Eventually(t, "the stalled subscriber is gone", func() bool { return len(f.all()) == 1 && server.SubscriptionsBroker().TotalClients() == 1 })
	})
}

// A stream on which nothing happens stays open past the time that a write may take.
func TestBroadcastKeepsIdleStreams(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		server := apptest.Serve(t, app)
		server.Client = client
		s := server.Subscribe(t, "", "aiContent/*")
		create(t, app, "before")
		<-s.Events
		select {
		case <-s.Ended:
			t.Fatal("an idle stream was ended")
		case <-time.After(2 * writeTimeout):
		}
		create(t, app, "after")
		if event := <-s.Events; !strings.Contains(event, "after") {
			t.Errorf("event: got %s", event)
		}
	})
}

func TestSubscriberQueue(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	s := &subscriber{DefaultClient: subscriptions.NewDefaultClient(), fanOut: f, ready: make(chan struct{}, 1)}
	s.topics.Store(&[]topic{})
	app.SubscriptionsBroker().Register(s)

	s.Subscribe("aiContent/*", "aiContent/x", `aiContent/*?options={"query":{"fields":"id"}}`, "users/*")
	if got := len(f.all()); got != 1 {
		t.Fatalf("subscribers: got %d, want 1", got)
	}
	for prefix, want := range map[string]int{"aiContent/*?": 1, "aiContent/x?": 0, "users/*?": 1, "users/*": 1, "aiContent/": 3} {
		if got := len(s.Subscriptions(prefix)); got != want {
			t.Errorf("subscriptions of %q: got %d, want %d", prefix, got, want)
		}
	}
	if got := len(s.Subscriptions()); got != 4 {
		t.Errorf("all subscriptions: got %d, want 4", got)
	}
	s.Unsubscribe("aiContent/*", "aiContent/x")
	if got := len(f.all()); got != 0 {
		t.Errorf("subscribers after unsubscribing: got %d, want 0", got)
	}

	for range maxQueued {
		s.Send(subscriptions.Message{})
	}
	if s.IsDiscarded() {
		t.Fatal("discarded before its queue is full")
	}
	s.Send(subscriptions.Message{})
	if !s.IsDiscarded() {
		t.Error("not discarded when its queue is full")
	}
}

// PocketBase's limits of a realtime connection, which an app may change, hold here too.
func TestBroadcastKeepsStreamLimits(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		for name, set := range map[string]func(e *core.RealtimeConnectRequestEvent){
			"idle": func(e *core.RealtimeConnectRequestEvent) { e.IdleTimeout = 300 * time.Millisecond },
			"max":  func(e *core.RealtimeConnectRequestEvent) { e.MaxTimeout = 300 * time.Millisecond },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				app, _ := newTest(t)
				app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
					set(e)
					return e.Next()
				})
				server := apptest.Serve(t, app)
				response, err := client.Get(server.URL + "/api/realtime")
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body) // until the server ends it
				if err != nil || !strings.Contains(string(body), "event:PB_CONNECT") {
					t.Errorf("got %q, %v", body, err)
				}
				if got := server.SubscriptionsBroker().TotalClients(); got != 0 {
					t.Errorf("clients after the end: got %d, want 0", got)
				}
			})
		}
	})
}

// Topics may be set twice at the same time. Until it is told what is live of all of them, their events
// are nobody's: PocketBase's would have no place among them.
func TestTopicsThatAreSetAtOnce(t *testing.T) {
	t.Parallel()
	_, f := newTest(t)
	s := f.newSubscriber(subscriptions.NewDefaultClient(), httptest.NewRequest(http.MethodGet, "/", nil))
	topic := liveTopic("aiContent/*", "")
	var both sync.WaitGroup
	f.mu.Lock()
	for range 2 {
		both.Go(func() { s.Subscribe(topic) })
	}
	apptest.Eventually(t, "both have begun", func() bool { return len(s.DefaultClient.Subscriptions()) > 0 && s.tellings.Load() == 2 })
	if own := s.Subscriptions(collectionName + "/*?"); len(own) > 0 {
		t.Errorf("PocketBase is to send %v", own)
	}
	f.mu.Unlock()
	both.Wait()
}

package realtime

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/subscriptions"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// With enrich hooks every viewer may get another record, so PocketBase's broadcast
// stays in charge.
func TestBroadcastLeavesEnrichHooksToPocketBase(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		app.OnRecordEnrich(collectionName).BindFunc(func(e *core.RecordEnrichEvent) error {
			e.Record.Hide("category")
			return e.Next()
		})
		server := apptest.Serve(t, app)
		server.Client = client
		s := server.Subscribe(t, "", "aiContent/*")
		create(t, app, "T")
		if event := <-s.Events; strings.Contains(event, "category") {
			t.Errorf("event has what the hook hides: %s", event)
		}
	})
}

// What the broadcaster doesn't send, PocketBase does: to a client that has both kinds of
// topic, to one that the app made, and to one that has subscribed since the last change.
func TestBroadcastSharesClientsWithPocketBase(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		type appsClient struct{ subscriptions.Client }
		var own atomic.Bool
		app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
			if own.Load() {
				e.Client = appsClient{e.Client}
			}
			return e.Next()
		})
		server := apptest.Serve(t, app)
		server.Client = client
		const all, titles = "aiContent/*", `aiContent/*?options={"query":{"fields":"title"}}`
		events := func(s *apptest.Stream, want ...string) {
			t.Helper()
			for range want {
				select {
				case event := <-s.Events:
					i := slices.IndexFunc(want, func(w string) bool { return strings.Contains(event, w) })
					if i < 0 {
						t.Fatalf("got %s, want one of %q", event, want)
					}
					want = slices.Delete(slices.Clone(want), i, i+1)
				case <-time.After(20 * time.Second):
					t.Fatalf("no event, want %q", want)
				}
			}
		}
		const whole, title = `"userId"`, `"record":{"title"`

		plain := server.Subscribe(t, "", all)
		create(t, app, "1")
		events(plain, whole)
		both := server.Subscribe(t, "", all, titles)
		create(t, app, "2")
		events(plain, whole)
		events(both, whole, title)
		own.Store(true)
		foreign := server.Subscribe(t, "", all)
		create(t, app, "3")
		events(plain, whole)
		events(both, whole, title)
		events(foreign, whole)
		if n := len(plain.Events) + len(both.Events) + len(foreign.Events); n > 0 {
			t.Errorf("%d events came twice", n)
		}
	})
}

// A client that the app registers in the broker is served like any other, whenever it
// comes and whoever leaves meanwhile.
func TestBroadcastFindsClientsOfTheApp(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	s := server.Subscribe(t, "", "aiContent/*")
	var before subscriptions.Client
	for _, name := range []string{"first", "second", "third"} {
		create(t, app, name+" without") // the broadcast knows its clients now
		<-s.Events
		if before != nil {
			<-before.Channel()
		}
		own := subscriptions.NewDefaultClient()
		own.Subscribe("aiContent/*")
		if before != nil {
			server.SubscriptionsBroker().Unregister(before.Id())
		}
		server.SubscriptionsBroker().Register(own)
		before = own
		create(t, app, name)
		<-s.Events
		select {
		case m := <-own.Channel():
			if !strings.Contains(string(m.Data), `"`+name+`"`) {
				t.Errorf("the %s client got %s", name, m.Data)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("the %s client that the app registered got no event", name)
		}
	}
}

package realtime

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func TestMain(m *testing.M) { apptest.Main(m) }

// A hook that does not call e.Next() stops the broadcast, as in PocketBase.
func TestBroadcastIsBehindTheAppsHooks(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		app.OnRecordAfterCreateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
			if e.Record.GetString("title") == "quiet" {
				return nil
			}
			return e.Next()
		})
		server := apptest.Serve(t, app)
		server.Client = client
		s := server.Subscribe(t, "", "aiContent/*")
		create(t, app, "quiet")
		create(t, app, "loud")
		if event := <-s.Events; !strings.Contains(event, "loud") {
			t.Errorf("event: got %s", event)
		}
	})
}

func TestBroadcastSendsThroughRealtimeHooks(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		app.OnRealtimeMessageSend().BindFunc(func(e *core.RealtimeMessageEvent) error {
			e.Message.Data = []byte(strings.ReplaceAll(string(e.Message.Data), "plain", "hooked"))
			return e.Next()
		})
		server := apptest.Serve(t, app)
		server.Client = client
		s := server.Subscribe(t, "", "aiContent/*")
		create(t, app, "plain")
		if event := <-s.Events; !strings.Contains(event, `"title":"hooked"`) {
			t.Errorf("event: got %s", event)
		}
	})
}

// Only what comes thick and fast is shown in steps: a change that follows another soon
// after the first has been sent does not.
func TestBroadcastTellsABurst(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	s := server.Subscribe(t, "", "aiContent/*")
	content, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	add := func(n int) {
		for range n {
			f.add(&change{action: "create", record: core.NewRecord(content), moment: 1, list: access{rule: types.Pointer("")}})
		}
	}
	throttled := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.throttled
	}
	idle := func() {
		apptest.Eventually(t, "no round is under way", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return !f.rounding
		})
	}
	for range 20 { // each comes right behind the end of the rounds for the one before
		add(1)
		<-s.Events
		idle()
	}
	if got := throttled(); got > 0 {
		t.Errorf("%d of 20 single changes were taken for a burst", got)
	}
	for range 40 {
		add(50)
		time.Sleep(roundInterval / 5)
	}
	for range 2000 {
		<-s.Events
	}
	if throttled() == 0 {
		t.Error("2,000 changes in a moment were not taken for a burst")
	}
}

const collectionName = "aiContent"

// newTest returns an app, not serving, with a collection of which everything without a
// userId is public, and its fan-out.
func newTest(t testing.TB) (*tests.TestApp, *FanOut) {
	t.Helper()
	app := apptest.NewApp(t)
	c := core.NewBaseCollection(collectionName)
	c.ListRule = types.Pointer(`userId = "" || userId = @request.auth.id`)
	c.ViewRule = c.ListRule
	for _, name := range []string{"title", "body", "category", "userId"} {
		c.Fields.Add(&core.TextField{Name: name, Max: 1 << 20})
	}
	c.Fields.Add(&core.JSONField{Name: "data"}, &core.AutodateField{Name: "created", OnCreate: true})
	if err := app.Save(c); err != nil {
		t.Fatal(err)
	}
	f := New(app, collectionName)
	f.Bind()
	return app, f
}

// add has a change broadcast that was never saved.
func (f *FanOut) add(c *change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.append(c)
}

// create saves a public record.
func create(t testing.TB, app core.App, title string) {
	t.Helper()
	c, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	record := core.NewRecord(c)
	record.Set("title", title)
	if err := app.Save(record); err != nil {
		t.Fatal(err)
	}
}

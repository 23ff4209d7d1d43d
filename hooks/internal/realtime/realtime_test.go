package realtime

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"
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

	s.Subscribe("aiContent/*", "aiContent/x", `aiContent/*?options={"query":{"filter":"a=1"}}`, "users/*")
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

// A compiled rule must say what PocketBase says, for any rule and any values.
func TestCompiledRules(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	user, _ := apptest.NewUser(t, app, "u@example.com")
	collection, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(options ...string) string { return options[random.IntN(len(options))] }
	values := []string{"", user.Id, "general", "Ä", "a'b", " "}
	operand := func() string {
		return pick("userId", "category", "title", "@request.auth.id", `""`, `"general"`, `'Ä'`, `"a'b"`, `"`+user.Id+`"`)
	}
	var build func(depth int) string
	build = func(depth int) string {
		var b strings.Builder
		for i := range 1 + random.IntN(3) {
			if i > 0 {
				b.WriteString(pick(" && ", " || "))
			}
			if depth > 0 && random.IntN(3) == 0 {
				b.WriteString("(" + build(depth-1) + ")")
			} else {
				b.WriteString(operand() + pick(" = ", " != ") + operand())
			}
		}
		return b.String()
	}

	var stored []*core.Record
	for range 12 {
		record := core.NewRecord(collection)
		record.Set("title", pick("general", "Ä", "a'b"))
		record.Set("category", values[random.IntN(len(values))])
		record.Set("userId", values[random.IntN(len(values))])
		if err := app.Save(record); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, record)
	}
	allowed := 0
	for range 400 {
		text := build(2)
		groups, err := fexpr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		compiler := ruleCompiler{collection: collection}
		compiled := compiler.rule(groups)
		if compiled == nil {
			t.Fatalf("%s: not compiled", text)
		}
		record := stored[random.IntN(len(stored))]
		row, err := f.rows.read(app, collection, record.Id, compiler.fields)
		if err != nil {
			t.Fatal(err)
		}
		for _, auth := range []*core.Record{nil, user} {
			id := ""
			if auth != nil {
				id = auth.Id
			}
			want, err := app.CanAccessRecord(record, &core.RequestInfo{Context: core.RequestInfoContextRealtime, Auth: auth}, &text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if got := compiled(row, id); got != want {
				t.Errorf("%s for %q on userId %q, category %q, title %q: got %t, want %t", text, id,
					record.GetString("userId"), record.GetString("category"), record.GetString("title"), got, want)
			}
			if want {
				allowed++
			}
		}
	}
	if allowed < 100 || allowed > 700 {
		t.Errorf("%d of 800 checks allow: the rules do not tell viewers apart", allowed)
	}
	for _, text := range []string{
		`title ~ "x"`, `data.x = "1"`, `@request.auth.email = ""`, `created = ""`, `title = 1`, `userId = null`,
		`title = "x" && data.y = 1`, `(title > "x")`, `@collection.users.id ?= userId`, `title:lower = "x"`,
	} {
		groups, err := fexpr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if (&ruleCompiler{collection: collection}).rule(groups) != nil {
			t.Errorf("%s: compiled, though only PocketBase can tell", text)
		}
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

// Rules that ask the database are asked when the record is saved, not when its turn comes.
func TestBroadcastAsksAtOnce(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, f := newTest(t)
		content, err := app.FindCollectionByNameOrId(collectionName)
		if err != nil {
			t.Fatal(err)
		}
		content.ListRule = types.Pointer(`body ~ "public"`)
		if err := app.Save(content); err != nil {
			t.Fatal(err)
		}
		server := apptest.Serve(t, app)
		server.Client = client
		guest := server.Subscribe(t, "", "aiContent/*")
		earlier := new(core.Record) // whose hooks still run
		f.Committed([]*core.Record{earlier})
		record := core.NewRecord(content)
		record.Set("title", "T")
		for _, body := range []string{"public one", "SECRET", "public again"} {
			record.Set("body", body)
			if err := app.Save(record); err != nil {
				t.Fatal(err)
			}
		}
		f.Settled([]*core.Record{earlier})
		for _, want := range []string{"public one", "public again"} {
			if event := <-guest.Events; !strings.Contains(event, want) {
				t.Errorf("a guest got %s, want %s", event, want)
			}
		}
	})
}

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

package hooks

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

var timestamps = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z`)

// Every subscriber must get what PocketBase's own broadcast would send it: the same
// app, viewers and changes, once with the plugin's fan-out and once without.
func TestBroadcastEqualsPocketBase(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, over *http.Client) {
		for name, rule := range map[string]*string{
			"the shipped rule":               types.Pointer(`userId = "" || userId = @request.auth.id`),
			"public":                         types.Pointer(""),
			"superusers only":                nil,
			"signed in only":                 types.Pointer(`@request.auth.id != "" && userId = @request.auth.id`),
			"a rule that needs the database": types.Pointer(`data.public = true || @request.auth.email ~ "owner"`),
			"a rule with a join":             types.Pointer(`userId = "" || @collection.users.id ?= userId && @request.auth.id != ""`),
			"and binds closer than or":       types.Pointer(`userId = "" && category = "general" || userId = @request.auth.id && title != "x"`),
			"alternatives in parentheses":    types.Pointer(`(userId = "" || userId = @request.auth.id) && (category = "general" || category = "b")`),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var received [2]map[string][]string
				var streams [2]map[string]*stream
				for i, own := range []bool{true, false} {
					received[i] = map[string][]string{}
					streams[i] = playBroadcast(t, over, rule, own)
				}
				equal := func() bool {
					for key := range streams[0] {
						for i := range streams {
							received[i][key] = append(received[i][key], streams[i][key].take()...)
						}
						if !slices.Equal(sorted(received[0][key]), sorted(received[1][key])) {
							return false
						}
					}
					return true
				}
				for deadline := time.Now().Add(20 * time.Second); !equal() || !ended(received[0]) || !ended(received[1]); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						for key := range streams[0] {
							if a, b := sorted(received[0][key]), sorted(received[1][key]); !slices.Equal(a, b) {
								t.Errorf("%s: ours\n%s\nPocketBase's\n%s", key, strings.Join(a, "\n"), strings.Join(b, "\n"))
							}
						}
						t.Fatal("not the same within 20 s")
					}
				}
				total := 0
				for _, events := range received[0] {
					total += len(events)
				}
				if total < 20 {
					t.Errorf("got %d events in all: the comparison has nothing to compare", total)
				}
			})
		}
	})
}

// ended reports whether the superuser, who sees everything, has seen the last change.
func ended(received map[string][]string) bool {
	for _, event := range received["superuser aiContent/*"] {
		if strings.Contains(event, "the end") {
			return true
		}
	}
	return false
}

func sorted(events []string) []string {
	events = slices.Clone(events)
	slices.Sort(events)
	return events
}

// take returns what has arrived since.
func (s *stream) take() []string {
	var taken []string
	for {
		select {
		case event := <-s.events:
			taken = append(taken, timestamps.ReplaceAllString(event, "TIME"))
		default:
			return taken
		}
	}
}

// playBroadcast makes the same changes on a new app before the same viewers, and
// returns their streams by viewer and topic.
func playBroadcast(t *testing.T, over *http.Client, rule *string, own bool) map[string]*stream {
	app, p := newTestApp(t, testConfig())
	if !own {
		app.OnRealtimeConnectRequest().Unbind("modelriverRealtime")
	}
	collection, err := app.FindCollectionByNameOrId(contentCollection)
	if err != nil {
		t.Fatal(err)
	}
	collection.ListRule, collection.ViewRule = rule, rule
	collection.Fields.Add(&core.TextField{Name: "secretNote", Hidden: true})
	if err := app.Save(collection); err != nil {
		t.Fatal(err)
	}
	server := serve(t, app, p)
	server.streams = over

	users, err := app.FindCollectionByNameOrId("users")
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{"guest": "", "superuser": superuserToken(t, app)}
	for _, name := range []string{"owner", "other"} {
		user := core.NewRecord(users)
		user.Id = name + "0000000000"
		user.SetEmail(name + "@example.com")
		user.SetPassword("correct horse battery")
		if err := app.Save(user); err != nil {
			t.Fatal(err)
		}
		if tokens[name], err = user.NewAuthToken(); err != nil {
			t.Fatal(err)
		}
	}
	first := recordId(mustParse(t, generated("c1", `{}`, "")), nil)
	streams := map[string]*stream{}
	for viewer, token := range tokens {
		for _, topic := range []string{
			"aiContent/*", "aiContent", collection.Id + "/*", "aiContent/" + first, collection.Id + "/" + first,
			`aiContent/*?options={"query":{"fields":"id,title"}}`, "users/*",
		} {
			streams[viewer+" "+topic] = subscribe(t, server, token, topic)
		}
	}

	// A rule is checked against the database as it is then, so each change waits until
	// the one before it has been broadcast.
	created := make(chan struct{}, 10)
	app.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
		defer func() { created <- struct{}{} }()
		return e.Next()
	})
	settle := func() {
		eventually(t, "the change is broadcast", func() bool {
			p.fanOut.mu.Lock()
			defer p.fanOut.mu.Unlock()
			return !p.fanOut.draining && len(p.fanOut.changes) == 0
		})
	}
	for i, user := range []string{"", "owner0000000000", "other0000000000", ""} {
		server.mustPost(t, fmt.Sprintf(`{"type":"task.ai_generated","event":"new_content","channel_id":"c%d","ai_response":{"data":{"title":"T%[1]d","public":%t}},"customer_data":{"user_id":%q}}`, i, i%2 == 0, user))
		<-created
		settle()
	}
	change := func(channel string, set map[string]any) {
		record, err := app.FindFirstRecordByData(contentCollection, "channelId", channel)
		if err != nil {
			t.Fatal(err)
		}
		record.Load(set)
		if err := app.Save(record); err != nil {
			t.Fatal(err)
		}
		settle()
	}
	change("c1", map[string]any{"title": "changed", "secretNote": "for superusers"})
	change("c1", map[string]any{"userId": "other0000000000"}) // leaves the owner's list
	change("c2", map[string]any{"userId": ""})                // everyone's now
	for _, channel := range []string{"c1", "c3"} {
		record, err := app.FindFirstRecordByData(contentCollection, "channelId", channel)
		if err != nil {
			t.Fatal(err)
		}
		if err := app.Delete(record); err != nil {
			t.Fatal(err)
		}
		settle()
	}
	// What is undone is nobody's business.
	_ = app.RunInTransaction(func(tx core.App) error {
		record, err := tx.FindFirstRecordByData(contentCollection, "channelId", "c0")
		if err != nil {
			return err
		}
		record.Set("title", "undone")
		if err := tx.Save(record); err != nil {
			return err
		}
		if err := tx.Delete(record); err != nil {
			return err
		}
		return fmt.Errorf("undo")
	})
	server.mustPost(t, generated("last", `{"title":"the end","public":true}`, ""))
	return streams
}

func mustParse(t *testing.T, payload string) *modelriver.Event {
	t.Helper()
	event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestBroadcastKeepsOrder(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, over *http.Client) {
		app, p := newTestApp(t, testConfig())
		server := serve(t, app, p)
		server.streams = over
		streams := []*stream{subscribe(t, server, "", "aiContent/*"), subscribe(t, server, "", "aiContent/*")}
		const n = 300
		for i := range n {
			go func() {
				server.tryPost(generated(fmt.Sprint("order-", i), `{}`, ""), nil)
			}()
		}
		var orders [2][]string
		for i, s := range streams {
			for len(orders[i]) < n {
				select {
				case event := <-s.events:
					var decoded struct{ Record struct{ Id string } }
					if err := json.Unmarshal([]byte(event), &decoded); err != nil {
						t.Fatal(err)
					}
					orders[i] = append(orders[i], decoded.Record.Id)
				case <-time.After(20 * time.Second):
					t.Fatalf("got %d of %d events", len(orders[i]), n)
				}
			}
		}
		var want []string
		if err := app.DB().NewQuery("SELECT id FROM aiContent ORDER BY rowid").Column(&want); err != nil {
			t.Fatal(err)
		}
		for i, order := range orders {
			if !slices.Equal(order, want) {
				t.Errorf("subscriber %d: order differs from the order of the commits", i)
			}
		}
	})
}

// With enrich hooks every viewer may get another record, so PocketBase's broadcast
// stays in charge.
func TestBroadcastLeavesEnrichHooksToPocketBase(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		app.OnRecordEnrich(contentCollection).BindFunc(func(e *core.RecordEnrichEvent) error {
			e.Record.Hide("metadata")
			return e.Next()
		})
		server := serve(t, app, p)
		server.streams = streams
		s := subscribe(t, server, "", "aiContent/*")
		server.mustPost(t, generated("enriched", `{"title":"T"}`, ""))
		if event := <-s.events; strings.Contains(event, "metadata") {
			t.Errorf("event has what the hook hides: %s", event)
		}
	})
}

// What the broadcaster doesn't send, PocketBase does: to a client that has both kinds of
// topic, to one that the app made, and to one that has subscribed since the last change.
func TestBroadcastSharesClientsWithPocketBase(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		type appsClient struct{ subscriptions.Client }
		var own atomic.Bool
		app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
			if own.Load() {
				e.Client = appsClient{e.Client}
			}
			return e.Next()
		})
		server := serve(t, app, p)
		server.streams = streams
		const all, titles = "aiContent/*", `aiContent/*?options={"query":{"fields":"title"}}`
		events := func(s *stream, want ...string) {
			t.Helper()
			for range want {
				select {
				case event := <-s.events:
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
		const whole, title = `"channelId"`, `"record":{"title"`

		plain := subscribe(t, server, "", all)
		server.mustPost(t, generated("1", `{}`, ""))
		events(plain, whole)
		both := subscribe(t, server, "", all, titles)
		server.mustPost(t, generated("2", `{}`, ""))
		events(plain, whole)
		events(both, whole, title)
		own.Store(true)
		foreign := subscribe(t, server, "", all)
		server.mustPost(t, generated("3", `{}`, ""))
		events(plain, whole)
		events(both, whole, title)
		events(foreign, whole)
		if n := len(plain.events) + len(both.events) + len(foreign.events); n > 0 {
			t.Errorf("%d events came twice", n)
		}
	})
}

// A hook that does not call e.Next() stops the broadcast, as in PocketBase.
func TestBroadcastIsBehindTheAppsHooks(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		app.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
			if e.Record.GetString("title") == "quiet" {
				return nil
			}
			return e.Next()
		})
		server := serve(t, app, p)
		server.streams = streams
		s := subscribe(t, server, "", "aiContent/*")
		server.mustPost(t, generated("quiet", `{"title":"quiet"}`, ""))
		server.mustPost(t, generated("loud", `{"title":"loud"}`, ""))
		if event := <-s.events; !strings.Contains(event, "loud") {
			t.Errorf("event: got %s", event)
		}
	})
}

func TestBroadcastSendsThroughRealtimeHooks(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		app.OnRealtimeMessageSend().BindFunc(func(e *core.RealtimeMessageEvent) error {
			e.Message.Data = []byte(strings.ReplaceAll(string(e.Message.Data), "plain", "hooked"))
			return e.Next()
		})
		server := serve(t, app, p)
		server.streams = streams
		s := subscribe(t, server, "", "aiContent/*")
		server.mustPost(t, generated("hooked", `{"title":"plain"}`, ""))
		if event := <-s.events; !strings.Contains(event, `"title":"hooked"`) {
			t.Errorf("event: got %s", event)
		}
	})
}

// A subscriber that stopped reading is cut, and costs nobody else anything.
func TestBroadcastCutsStalledSubscribers(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		server := serve(t, app, p)
		server.streams = streams
		healthy := subscribe(t, server, "", "aiContent/*")

		stalled, err := streams.Get(server.url + "/api/realtime")
		if err != nil {
			t.Fatal(err)
		}
		defer stalled.Body.Close()
		var id string
		for scanner := bufio.NewScanner(stalled.Body); id == "" && scanner.Scan(); {
			id, _ = strings.CutPrefix(scanner.Text(), "id:")
		}
		postTopics(t, server, id, "", "aiContent/*")
		eventually(t, "both subscribe", func() bool { return len(p.fanOut.all()) == 2 })

		// More than the queue and the buffers on the way hold.
		const changes = maxQueued + 700
		all := make(chan struct{})
		go func() {
			for range changes {
				<-healthy.events
			}
			close(all)
		}()
		collection, err := app.FindCachedCollectionByNameOrId(contentCollection)
		if err != nil {
			t.Fatal(err)
		}
		record := core.NewRecord(collection)
		record.Set("body", strings.Repeat("x", 20_000))
		for range changes {
			p.fanOut.add(&change{action: "create", record: record, moment: 1, list: access{rule: types.Pointer("")}})
			time.Sleep(100 * time.Microsecond) // no faster than a healthy subscriber reads
		}
		select {
		case <-all:
		case <-time.After(60 * time.Second):
			t.Error("the healthy subscriber did not get every event")
		}
		eventually(t, "the stalled subscriber is gone", func() bool { return len(p.fanOut.all()) == 1 && server.SubscriptionsBroker().TotalClients() == 1 })
	})
}

// A stream on which nothing happens stays open past the time that a write may take.
func TestBroadcastKeepsIdleStreams(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		server := serve(t, app, p)
		server.streams = streams
		s := subscribe(t, server, "", "aiContent/*")
		server.mustPost(t, generated("before", `{"title":"before"}`, ""))
		<-s.events
		select {
		case <-s.ended:
			t.Fatal("an idle stream was ended")
		case <-time.After(2 * writeTimeout):
		}
		server.mustPost(t, generated("after", `{"title":"after"}`, ""))
		if event := <-s.events; !strings.Contains(event, "after") {
			t.Errorf("event: got %s", event)
		}
	})
}

func TestSubscriberQueue(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	s := &subscriber{DefaultClient: subscriptions.NewDefaultClient(), broadcaster: p.fanOut, ready: make(chan struct{}, 1)}
	s.topics.Store(&[]topic{})
	app.SubscriptionsBroker().Register(s)

	s.Subscribe("aiContent/*", "aiContent/x", `aiContent/*?options={"query":{"filter":"a=1"}}`, "users/*")
	if got := len(p.fanOut.all()); got != 1 {
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
	if got := len(p.fanOut.all()); got != 0 {
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
	app, _ := newTestApp(t, testConfig())
	user, _ := newUser(t, app, "u@example.com")
	collection, err := app.FindCachedCollectionByNameOrId(contentCollection)
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
		row, err := readRow(app, collection, record.Id, compiler.fields)
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
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		for name, set := range map[string]func(e *core.RealtimeConnectRequestEvent){
			"idle": func(e *core.RealtimeConnectRequestEvent) { e.IdleTimeout = 300 * time.Millisecond },
			"max":  func(e *core.RealtimeConnectRequestEvent) { e.MaxTimeout = 300 * time.Millisecond },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				app, p := newTestApp(t, testConfig())
				app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
					set(e)
					return e.Next()
				})
				server := serve(t, app, p)
				response, err := streams.Get(server.url + "/api/realtime")
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

// A hook after the commit that takes its time delays the broadcast of its own record
// only so long, and the order of the others not at all.
func TestBroadcastWaitsForHooks(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		for _, row := range []struct {
			name string
			hook func(e *core.RecordEvent) error // of the first record
			want []string
		}{
			{"a slow hook keeps the order", func(e *core.RecordEvent) error {
				time.Sleep(maxHookTime / 4)
				return e.Next()
			}, []string{"first", "second", "third"}},
			{"a hook that hangs lets the others pass", func(e *core.RecordEvent) error {
				time.Sleep(maxHookTime * 2)
				return e.Next()
			}, []string{"second", "third", "first"}},
			{"a hook that fails", func(e *core.RecordEvent) error { return errors.New("no") }, []string{"second", "third"}},
			{"a hook that panics", func(e *core.RecordEvent) error { panic("no") }, []string{"second", "third"}},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				app, p := newTestApp(t, testConfig())
				app.OnRecordAfterCreateSuccess(contentCollection).BindFunc(func(e *core.RecordEvent) error {
					if e.Record.GetString("title") == "first" {
						return row.hook(e)
					}
					return e.Next()
				})
				server := serve(t, app, p)
				server.streams = streams
				s := subscribe(t, server, "", "aiContent/*")
				for _, title := range []string{"first", "second", "third"} {
					server.mustPost(t, generated(title, `{"title":"`+title+`"}`, ""))
				}
				for i, want := range row.want {
					select {
					case event := <-s.events:
						if !strings.Contains(event, `"title":"`+want+`"`) {
							t.Fatalf("event %d: got %s, want %s", i, event, want)
						}
					case <-time.After(20 * time.Second):
						t.Fatalf("event %d: none, want %s", i, want)
					}
				}
			})
		}
	})
}

// A viewer never gets a state of a record that the rule hid from it when PocketBase asked.
func TestBroadcastHidesWhatItsTransactionHid(t *testing.T) {
	t.Parallel()
	const owner = "owner0000000000"
	save := func(app core.App, id string, set map[string]any) error {
		record, err := app.FindRecordById(contentCollection, id)
		if err != nil {
			content, err := app.FindCachedCollectionByNameOrId(contentCollection)
			if err != nil {
				return err
			}
			record = core.NewRecord(content)
			record.Id = id
		}
		record.Load(set)
		return app.Save(record)
	}
	hideAgain := func(app core.App) {
		app.OnRecordCreate(contentCollection).BindFunc(func(e *core.RecordEvent) error {
			if err := e.Next(); err != nil || e.Record.GetString("title") != "secret" {
				return err
			}
			return save(e.App, e.Record.Id, map[string]any{"userId": owner})
		})
	}
	const id = "r00000000000000"
	for _, row := range []struct {
		name string
		bind func(app core.App)
		do   func(server *testServer) error
	}{
		{"a hook hides what the app creates", hideAgain, func(server *testServer) error {
			return save(server, id, map[string]any{"title": "secret"})
		}},
		{"a hook hides what a webhook brings", hideAgain, func(server *testServer) error {
			_, _, err := server.tryPost(generated("hidden", `{"title":"secret"}`, ""), nil)
			return err
		}},
		{"created public and hidden in one transaction", nil, func(server *testServer) error {
			return server.RunInTransaction(func(tx core.App) error {
				return errors.Join(save(tx, id, map[string]any{"title": "secret"}), save(tx, id, map[string]any{"userId": owner}))
			})
		}},
		{"created and deleted in one transaction", nil, func(server *testServer) error {
			return server.RunInTransaction(func(tx core.App) error {
				if err := save(tx, id, map[string]any{"title": "secret"}); err != nil {
					return err
				}
				record, err := tx.FindRecordById(contentCollection, id)
				if err != nil {
					return err
				}
				return tx.Delete(record)
			})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			overEachProtocol(t, func(t *testing.T, streams *http.Client) {
				app, p := newTestApp(t, testConfig())
				if row.bind != nil {
					row.bind(app)
				}
				server := serve(t, app, p)
				server.streams = streams
				guest := subscribe(t, server, "", "aiContent/*")
				if err := row.do(server); err != nil {
					t.Fatal(err)
				}
				server.mustPost(t, generated("end", `{"title":"the end"}`, ""))
				for event := ""; !strings.Contains(event, "the end"); {
					if event = <-guest.events; strings.Contains(event, "secret") {
						t.Errorf("a guest got %s", event)
					}
				}
			})
		})
	}
}

// Rules that ask the database are asked when the record is saved, not when its turn comes.
func TestBroadcastAsksAtOnce(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		content, err := app.FindCollectionByNameOrId(contentCollection)
		if err != nil {
			t.Fatal(err)
		}
		content.ListRule = types.Pointer(`body ~ "public"`)
		if err := app.Save(content); err != nil {
			t.Fatal(err)
		}
		server := serve(t, app, p)
		server.streams = streams
		guest := subscribe(t, server, "", "aiContent/*")
		earlier := new(core.Record) // whose hooks still run
		p.fanOut.reserve([]*core.Record{earlier})
		record := core.NewRecord(content)
		record.Set("title", "T")
		for _, body := range []string{"public one", "SECRET", "public again"} {
			record.Set("body", body)
			if err := app.Save(record); err != nil {
				t.Fatal(err)
			}
		}
		p.fanOut.drop([]*core.Record{earlier})
		for _, want := range []string{"public one", "public again"} {
			if event := <-guest.events; !strings.Contains(event, want) {
				t.Errorf("a guest got %s, want %s", event, want)
			}
		}
	})
}

// Whoever changes its topics or signs in keeps what was on its way, and gets nothing of
// what was decided before.
func TestBroadcastKeepsToTheViewOfTheMoment(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		server := serve(t, app, p)
		server.streams = streams
		user, token := newUser(t, app, "u@example.com")
		s := subscribe(t, server, "", "aiContent/*")
		late := connect(t, server)
		earlier := new(core.Record)
		p.fanOut.reserve([]*core.Record{earlier})
		content, err := app.FindCachedCollectionByNameOrId(contentCollection)
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
		postTopics(t, server, s.id, token, "aiContent/*", "users/*")
		postTopics(t, server, late.id, token, "aiContent/*")
		create("own, after", user.Id)
		p.fanOut.drop([]*core.Record{earlier})
		for _, row := range []struct {
			name string
			*stream
			want []string
		}{
			{"a guest who signs in", s, []string{"public, before", "own, after"}},
			{"a subscriber who comes later", late, []string{"own, after"}},
		} {
			for _, want := range row.want {
				if event := <-row.events; !strings.Contains(event, want) {
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
	app, p := newTestApp(t, testConfig())
	server := serve(t, app, p)
	s := subscribe(t, server, "", "aiContent/*")
	var before subscriptions.Client
	for _, name := range []string{"first", "second", "third"} {
		server.mustPost(t, generated(name+" without", `{}`, "")) // the broadcast knows its clients now
		<-s.events
		own := subscriptions.NewDefaultClient()
		own.Subscribe("aiContent/*")
		if before != nil {
			server.SubscriptionsBroker().Unregister(before.Id())
		}
		server.SubscriptionsBroker().Register(own)
		before = own
		server.mustPost(t, generated(name, `{}`, ""))
		<-s.events
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

// Subscribers with options, whom PocketBase serves one after the other, take nothing from
// the order of those without.
func TestBroadcastKeepsOrderBesideOptions(t *testing.T) {
	t.Parallel()
	overEachProtocol(t, func(t *testing.T, streams *http.Client) {
		app, p := newTestApp(t, testConfig())
		server := serve(t, app, p)
		server.streams = streams
		plain := subscribe(t, server, "", `aiContent/*?options=%7B%22query%22%3A%7B%7D%7D`) // subscribe("*", fn, {})
		for range 150 {
			subscribe(t, server, "", `aiContent/*?options={"query":{"filter":"title%20!%3D%20'x'"}}`)
		}
		if got := len(p.fanOut.all()); got != 1 {
			t.Errorf("the fan-out serves %d subscribers, want the one whose options are empty", got)
		}
		const n = 200
		for i := range n {
			go server.tryPost(generated(fmt.Sprint("beside-", i), `{}`, ""), nil)
		}
		var order []string
		for range n {
			select {
			case event := <-plain.events:
				order = append(order, idOf(event))
			case <-time.After(60 * time.Second):
				t.Fatalf("got %d of %d events", len(order), n)
			}
		}
		var want []string
		if err := app.DB().NewQuery("SELECT id FROM aiContent ORDER BY rowid").Column(&want); err != nil {
			t.Fatal(err)
		}
		back := 0
		for i := 1; i < n; i++ {
			if slices.Index(want, order[i]) < slices.Index(want, order[i-1]) {
				back++
			}
		}
		if back > 0 {
			t.Errorf("%d steps back of %d", back, n)
		}
	})
}

// Only what comes thick and fast is shown in steps: a change that follows another soon
// after the first has been sent does not.
func TestBroadcastTellsABurst(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, testConfig())
	server := serve(t, app, p)
	s := subscribe(t, server, "", "aiContent/*")
	content, err := app.FindCachedCollectionByNameOrId(contentCollection)
	if err != nil {
		t.Fatal(err)
	}
	add := func(n int) {
		for range n {
			p.fanOut.add(&change{action: "create", record: core.NewRecord(content), moment: 1, list: access{rule: types.Pointer("")}})
		}
	}
	throttled := func() int {
		p.fanOut.mu.Lock()
		defer p.fanOut.mu.Unlock()
		return p.fanOut.throttled
	}
	idle := func() {
		eventually(t, "no round is under way", func() bool {
			p.fanOut.mu.Lock()
			defer p.fanOut.mu.Unlock()
			return !p.fanOut.rounding
		})
	}
	for range 20 { // each comes right behind the end of the rounds for the one before
		add(1)
		<-s.events
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
		<-s.events
	}
	if throttled() == 0 {
		t.Error("2,000 changes in a moment were not taken for a burst")
	}
}

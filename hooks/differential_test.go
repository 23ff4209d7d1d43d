package hooks

import (
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

var (
	differentialFor  = flag.Duration("differential", 0, "how long to compare the fan-out with PocketBase's, beyond a few runs")
	differentialSeed = flag.Uint64("differential.seed", 0, "the first seed; 0 takes one from the clock")
)

// Whatever is written, by whom, in which order and under which rules: each viewer gets
// from the fan-out what PocketBase alone would have sent. Two apps, one of them without
// the fan-out, do the same random things one after the other. A failure names the seed.
func TestBroadcastEqualsPocketBase(t *testing.T) {
	t.Parallel()
	seed := *differentialSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	began, events, changes := time.Now(), 0, 0
	for run := 0; run < 6 || time.Since(began) < *differentialFor; run++ {
		e, c := compareRun(t, seed+uint64(run))
		events, changes = events+e, changes+c
		if t.Failed() {
			return
		}
		if *differentialFor > 0 && run%20 == 19 {
			fmt.Printf("%s: %d runs from seed %d, %d operations, %d events\n", time.Since(began).Round(time.Second), run+1, seed, changes, events)
		}
	}
	if *differentialFor > 0 {
		fmt.Printf("%s: no difference from seed %d, %d operations, %d events\n", time.Since(began).Round(time.Second), seed, changes, events)
	}
	if events < 1000 {
		t.Errorf("seed %d: %d events in all: the comparison has nothing to compare", seed, events)
	}
}

var differentialRules = []*string{
	nil,
	types.Pointer(""),
	types.Pointer(`userId = "" || userId = @request.auth.id`),
	types.Pointer(`userId = "" || userId = @request.auth.id`),
	types.Pointer(`@request.auth.id != "" && userId = @request.auth.id`),
	types.Pointer(`category = "b" && userId != @request.auth.id`),
	types.Pointer(`approved = true && (userId = "" || userId = @request.auth.id)`),
	types.Pointer(`data.public = true`),
	types.Pointer(`data.public = true || @request.auth.email ~ "new"`),
	types.Pointer(`title ~ "open" || @request.auth.verified = true`),
	types.Pointer(`userId = "" || @collection.users.id ?= userId && @request.auth.id != ""`),
	types.Pointer(`secretNote = "" && userId = ""`),
}

// A world is one of the two apps.
type world struct {
	t        *testing.T
	own      bool
	app      core.App
	plugin   *plugin
	server   *testServer
	tokens   map[string]string
	streams  map[string]*apptest.Stream
	received map[string][]string
	kept     map[string]*core.Record // loaded earlier, and stale by now
	finished chan string             // ids whose after-success hooks have ended
	holds    int
	released atomic.Pointer[chan struct{}] // lets the hook end that holds the fan-out back; nil if none does

	// Ids whose rows were not there any more when PocketBase told superusers, and
	// everybody under an empty rule, of them: the fan-out tells nobody.
	vanished map[string]bool
}

var viewers = []string{"guest", "owner0000000000", "other0000000000", "superuser"}

func newWorld(t *testing.T, client *http.Client, own bool) *world {
	app, p := newTestApp(t, testConfig())
	w := &world{
		t: t, own: own, app: app, plugin: p,
		tokens: map[string]string{}, streams: map[string]*apptest.Stream{}, received: map[string][]string{},
		kept: map[string]*core.Record{}, finished: make(chan string, 1000), vanished: map[string]bool{},
	}
	if !own {
		app.OnRealtimeConnectRequest().Unbind("modelriverRealtime")
	}
	content, err := app.FindCollectionByNameOrId(store.Content)
	w.must(err)
	content.Fields.Add(&core.TextField{Name: "secretNote", Hidden: true}, &core.BoolField{Name: "approved"})
	w.must(app.Save(content))
	users, err := app.FindCollectionByNameOrId("users")
	w.must(err)
	w.tokens["superuser"] = superuserToken(t, app)
	for _, id := range viewers[1:3] {
		user := core.NewRecord(users)
		user.Id = id
		user.SetEmail(id + "@example.com")
		user.SetPassword("correct horse battery")
		w.must(app.Save(user))
		w.tokens[id], err = user.NewAuthToken()
		w.must(err)
	}

	// The hooks of a host: one saves what it was called for once more, within the
	// transaction; one does so behind it; one keeps a record quiet.
	app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if strings.Contains(e.Record.GetString("title"), "refuse") {
			return errors.New("refused")
		}
		if err := e.Next(); err != nil || !strings.Contains(e.Record.GetString("title"), "again") {
			return err
		}
		stored, err := e.App.FindRecordById(store.Content, e.Record.Id)
		if err != nil {
			return err
		}
		stored.Set("userId", viewers[1])
		stored.Set("category", "b")
		return e.App.Save(stored)
	})
	app.OnRecordAfterCreateSuccess(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "hold" {
			if released := w.released.Load(); w.own && released != nil {
				<-*released
			}
			return nil
		}
		if strings.Contains(e.Record.GetString("title"), "quiet") {
			return nil
		}
		if strings.Contains(e.Record.GetString("title"), "after") {
			if stored, err := e.App.FindRecordById(store.Content, e.Record.Id); err == nil {
				stored.Set("userId", viewers[2])
				if err := e.App.Save(stored); err != nil {
					return err
				}
			}
		}
		return e.Next()
	})
	finished := func(e *core.RecordEvent) error {
		defer func() { w.finished <- e.Record.Id }()
		return e.Next()
	}
	app.OnRecordAfterCreateSuccess(store.Content).Bind(&hook.Handler[*core.RecordEvent]{Func: finished, Priority: -20000})

	w.server = serve(t, app, p)
	w.server.Client = client
	for _, viewer := range viewers {
		for _, topic := range []string{
			"aiContent/*", content.Id, "aiContent/" + wellKnownId, content.Id + "/" + wellKnownId,
			`aiContent/*?options=%7B%22query%22%3A%7B%7D%7D`,
			`aiContent/*?options={"query":{"fields":"id,title,userId"}}`,
			`aiContent/*?options={"query":{"filter":"category%20%3D%20'b'"}}`,
		} {
			w.streams[viewer+" "+topic] = w.server.Subscribe(t, w.tokens[viewer], topic)
		}
	}
	for _, mover := range movers {
		w.streams[mover] = w.server.Subscribe(t, "", "aiContent/*")
	}
	return w
}

const wellKnownId = "r00000000000003"

var movers = []string{"mover 1", "mover 2", "mover 3"} // they sign in and change topics

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// A fields is what an operation writes into a record.
type fields struct {
	title, userId, category, note string
	public, approved              bool
}

func (f fields) set(record *core.Record) {
	record.Load(map[string]any{
		"title": f.title, "userId": f.userId, "category": f.category, "secretNote": f.note, "approved": f.approved,
		"data": fmt.Sprintf(`{"public":%t}`, f.public),
	})
}

// A write is create, update or delete of one record, within or without a transaction.
type randomWrite struct {
	action, id string
	fields     fields
	stale      bool // an instance that was loaded long ago
}

func (w *world) write(app core.App, op randomWrite) error {
	if op.action == "create" {
		content, err := app.FindCachedCollectionByNameOrId(store.Content)
		w.must(err)
		record := core.NewRecord(content)
		record.Id = op.id
		op.fields.set(record)
		return app.Save(record)
	}
	record, err := app.FindRecordById(store.Content, op.id)
	if op.stale && w.kept[op.id] != nil {
		w.vanished[op.id] = w.vanished[op.id] || err != nil
		record, err = w.kept[op.id], nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return nil // in both worlds
	}
	w.must(err)
	if w.kept[op.id] == nil {
		w.kept[op.id] = record.Fresh()
	}
	if op.action == "delete" {
		return app.Delete(record)
	}
	op.fields.set(record)
	return app.Save(record)
}

// compareRun does the same random things in both worlds and compares what arrived. It
// returns how many events and operations there were.
func compareRun(t *testing.T, seed uint64) (events, operations int) {
	random := rand.New(rand.NewPCG(seed, 1))
	pick := func(options ...string) string { return options[random.IntN(len(options))] }

	var failed bool
	t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
		over := apptest.Client(t, 1+int(seed%2))
		worlds := []*world{newWorld(t, over, true), newWorld(t, over, false)}
		both := func(do func(w *world)) {
			for _, w := range worlds {
				do(w)
			}
		}
		var log []string
		created := 0
		randomFields := func() fields {
			return fields{
				title:  pick("open", "plain", "plain", "plain", "open again", "plain again", "after", "quiet", "refuse"),
				userId: pick("", "", viewers[1], viewers[2]), category: pick("general", "b"), note: pick("", "", "hidden"),
				public: random.IntN(2) == 0, approved: random.IntN(2) == 0,
			}
		}
		randomOp := func() randomWrite {
			op := randomWrite{action: pick("create", "create", "update", "update", "update", "delete"), fields: randomFields()}
			if op.action == "create" {
				op.id = fmt.Sprintf("r%014d", created)
				created++
			} else {
				op.id = fmt.Sprintf("r%014d", random.IntN(created+1))
				op.stale = random.IntN(5) == 0
			}
			return op
		}
		hold := 0
		for range 90 {
			operations++
			kind := random.IntN(22)
			switch {
			case kind < 5:
				f, channel := randomFields(), fmt.Sprint("c", random.IntN(60))
				log = append(log, fmt.Sprintf("webhook %s %+v", channel, f))
				both(func(w *world) { w.webhook(channel, f) })
			case kind < 10:
				op := randomOp()
				log = append(log, fmt.Sprintf("%+v", op))
				both(func(w *world) { _ = w.write(w.app, op) }) // refused, in both
			case kind < 14:
				var ops []randomWrite
				for range 2 + random.IntN(3) {
					op := randomOp()
					if len(ops) > 0 && op.action != "create" && random.IntN(2) == 0 {
						op.id = ops[random.IntN(len(ops))].id
					}
					ops = append(ops, op)
				}
				undone := random.IntN(5) == 0
				log = append(log, fmt.Sprintf("transaction, undone: %t: %+v", undone, ops))
				for i, op := range ops {
					if op.action == "delete" && slices.ContainsFunc(ops[:i], func(o randomWrite) bool { return o.id == op.id }) {
						both(func(w *world) { w.vanished[op.id] = true })
					}
				}
				both(func(w *world) {
					_ = w.app.RunInTransaction(func(tx core.App) error {
						for _, op := range ops {
							if err := w.write(tx, op); err != nil {
								return err
							}
						}
						if undone {
							return errors.New("undo")
						}
						return nil
					})
				})
			case kind < 16:
				list, view := differentialRules[random.IntN(len(differentialRules))], differentialRules[random.IntN(len(differentialRules))]
				log = append(log, fmt.Sprintf("rules %v %v", text(list), text(view)))
				both(func(w *world) {
					content, err := w.app.FindCollectionByNameOrId(store.Content)
					w.must(err)
					content.ListRule, content.ViewRule = list, view
					w.must(w.app.Save(content))
				})
			case kind == 16:
				user, what := pick(viewers[1:3]...), pick("email", "verified", "password")
				log = append(log, "change "+what+" of "+user)
				email := fmt.Sprintf("new%d@example.com", operations)
				both(func(w *world) { w.changeUser(user, what, email) })
			case kind < 20:
				mover, viewer := pick(movers...), pick(viewers...)
				topics := [][]string{{"aiContent/*"}, {}, {"aiContent/" + wellKnownId}, {"aiContent/*", "users/*"}, {`aiContent/*?options={"query":{"fields":"id"}}`}}[random.IntN(5)]
				log = append(log, fmt.Sprint(mover, " as ", viewer, ": ", topics))
				both(func(w *world) { w.server.SetTopics(w.t, w.streams[mover].ID, w.tokens[viewer], topics...) })
			case kind == 20:
				hold = 12
				log = append(log, "hold")
				both((*world).hold)
			default:
				log = append(log, "reconnect")
				mover := pick(movers...)
				both(func(w *world) {
					before := fmt.Sprint(mover, " before ", operations)
					w.streams[before], w.received[before] = w.streams[mover], w.received[mover]
					w.received[mover] = nil
					w.streams[mover] = w.server.Subscribe(t, "", "aiContent/*")
				})
			}
			if hold--; hold == 0 {
				both((*world).release)
			}
		}
		both((*world).release)
		both((*world).end)

		// What the fan-out sent is known by now; PocketBase sends from goroutines.
		equal := func(report bool) bool {
			same := true
			both((*world).gather)
			for name := range worlds[0].streams {
				ours, stocks := worlds[0].received[name], worlds[1].received[name]
				surplus, missing := difference(ours, stocks), difference(stocks, ours)
				missing = slices.DeleteFunc(missing, func(event string) bool { return worlds[0].vanished[idOf(event)] })
				if len(surplus)+len(missing) == 0 {
					continue
				}
				same = false
				if report {
					t.Errorf("seed %d, %s:\nonly from the fan-out:\n%s\nonly from PocketBase:\n%s", seed, name, strings.Join(surplus, "\n"), strings.Join(missing, "\n"))
				}
			}
			return same
		}
		for deadline := time.Now().Add(20 * time.Second); !equal(time.Now().After(deadline)) && !t.Failed(); {
			time.Sleep(10 * time.Millisecond)
		}
		if failed = t.Failed(); failed {
			t.Log(strings.Join(log, "\n"))
		}
		for _, received := range worlds[0].received {
			events += len(received)
		}
	})
	return events, operations
}

// webhook receives one, and waits for the hooks behind its commit.
func (w *world) webhook(channel string, f fields) {
	payload := fmt.Sprintf(`{"type":"task.ai_generated","event":"new_content","channel_id":%q,"ai_response":{"data":{"title":%q,"public":%t}},"customer_data":{"user_id":%q,"category":%q}}`,
		channel, f.title, f.public, f.userId, f.category)
	id := recordId(mustParse(w.t, payload), nil)
	_, err := w.app.FindRecordById(store.Content, id)
	duplicate := err == nil
	w.server.mustPost(w.t, payload)
	if duplicate {
		return
	}
	if _, err := w.app.FindRecordById(store.Content, id); err != nil {
		return // refused
	}
	for done := ""; done != id; {
		select {
		case done = <-w.finished:
		case <-time.After(20 * time.Second):
			w.t.Fatal("the hooks behind a webhook's commit did not end within 20 s")
		}
	}
}

func (w *world) changeUser(id, what, email string) {
	user, err := w.app.FindRecordById("users", id)
	w.must(err)
	switch what {
	case "email":
		user.SetEmail(email)
	case "verified":
		user.SetVerified(!user.Verified())
	case "password":
		user.SetPassword("correct horse battery 2")
	}
	w.must(w.app.Save(user))
	w.tokens[id], err = user.NewAuthToken()
	w.must(err)
}

// hold has a webhook's hooks go on behind its commit, so that the fan-out sends nothing
// of what follows, until release.
func (w *world) hold() {
	w.release()
	released := make(chan struct{})
	w.released.Store(&released)
	w.holds++
	w.server.mustPost(w.t, generated(fmt.Sprint("hold ", w.holds), `{"title":"hold"}`, ""))
}

func (w *world) release() {
	if released := w.released.Swap(nil); released != nil {
		close(*released)
	}
}

// end waits until everybody has got everything: what everybody gets is the last.
func (w *world) end() {
	content, err := w.app.FindCollectionByNameOrId(store.Content)
	w.must(err)
	content.ListRule, content.ViewRule = types.Pointer(""), types.Pointer("")
	w.must(w.app.Save(content))
	for _, client := range w.server.SubscriptionsBroker().Clients() {
		client.Subscribe("aiContent/" + wellKnownId)
	}
	w.must(w.write(w.app, randomWrite{action: "delete", id: wellKnownId}))
	w.must(w.write(w.app, randomWrite{action: "create", id: wellKnownId, fields: fields{title: "the end", category: "b"}}))
	for name, s := range w.streams {
		eventually(w.t, "the end arrives", func() bool {
			w.gather()
			select {
			case <-s.Ended:
				return true
			default:
				return slices.ContainsFunc(w.received[name], func(event string) bool { return strings.Contains(event, "the end") })
			}
		})
	}
}

func (w *world) gather() {
	for name, s := range w.streams {
		for _, event := range s.Take() {
			w.received[name] = append(w.received[name], timestamps.ReplaceAllString(event, "TIME"))
		}
	}
}

// difference returns what a has more than b.
func difference(a, b []string) []string {
	b = slices.Clone(b)
	var more []string
	for _, event := range a {
		if i := slices.Index(b, event); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			more = append(more, event)
		}
	}
	return more
}

func idOf(event string) string {
	var decoded struct{ Record struct{ Id string } }
	_ = json.Unmarshal([]byte(event), &decoded)
	return decoded.Record.Id
}

var timestamps = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z`)

func mustParse(t *testing.T, payload string) *modelriver.Event {
	t.Helper()
	event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func text(rule *string) string {
	if rule == nil {
		return "superusers only"
	}
	return *rule
}

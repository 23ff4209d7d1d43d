package hooks

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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

func newWorld(t *testing.T, client *http.Client, own bool, topics []string, rule *string) *world {
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
	content.Fields.Add(&core.TextField{Name: "secretNote", Hidden: true}, &core.BoolField{Name: "approved"},
		&core.NumberField{Name: "rank"}, &core.DateField{Name: "due"}, &core.SelectField{Name: "kind", Values: []string{"5", "memo"}})
	if rule != nil {
		content.ListRule, content.ViewRule = rule, rule
	}
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
	p.outbox.Stop() // which gives refused callbacks up at moments of its own
	w.server.Client = client
	for _, viewer := range viewers {
		for _, topic := range append([]string{
			"aiContent/*", content.Id, "aiContent/" + wellKnownId, content.Id + "/" + wellKnownId,
			`aiContent/*?options=%7B%22query%22%3A%7B%7D%7D`,
			`aiContent/*?options={"query":{"fields":"id,title,userId"}}`,
			"modelriverCallbacks/*", `modelriverCallbacks/*?options={"query":{"filter":"attempts>1&&lastError!='a'"}}`,
		}, topics...) {
			w.streams[viewer+" "+topic] = w.server.Subscribe(t, w.tokens[viewer], topic)
		}
	}
	for _, mover := range movers {
		w.streams[mover] = w.server.Subscribe(t, "", "aiContent/*")
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// A fields is what an operation writes into a record.
type fields struct {
	title, userId, category, note, due, kind string
	public, approved                         bool
	rank                                     float64
}

func (f fields) set(record *core.Record) {
	record.Load(map[string]any{
		"title": f.title, "userId": f.userId, "category": f.category, "secretNote": f.note, "approved": f.approved,
		"rank": f.rank, "due": f.due, "kind": f.kind,
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

// writeCallback changes the callback of that id as the dashboard does, beside a content of
// the same id.
func (w *world) writeCallback(app core.App, id, lastError string, attempts int, remove bool) error {
	record, err := app.FindRecordById(store.Callbacks, id)
	switch {
	case errors.Is(err, sql.ErrNoRows) && remove:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		callbacks, err := app.FindCachedCollectionByNameOrId(store.Callbacks)
		w.must(err)
		record = core.NewRecord(callbacks)
		record.Id = id
	default:
		w.must(err)
	}
	if remove {
		return app.Delete(record)
	}
	record.Load(map[string]any{"state": store.Failed, "lastError": lastError, "attempts": attempts})
	return app.Save(record)
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

func idOf(event string) string {
	var decoded struct{ Record struct{ Id string } }
	_ = json.Unmarshal([]byte(event), &decoded)
	return decoded.Record.Id
}

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

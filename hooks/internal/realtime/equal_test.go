package realtime

import (
	"bytes"
	"context"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func await(t *testing.T, s *apptest.Stream, want string) {
	t.Helper()
	select {
	case event := <-s.Events:
		if !strings.Contains(event, want) {
			t.Errorf("got %s, want %s", event, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("got no event, want %s", want)
	}
}

// A content is a model of the app's own, which is no record.
type content struct {
	core.BaseModel
	Title string `db:"title" json:"title"`
}

func (*content) TableName() string { return collectionName }

// A model of the app's own for the collection is broadcast as the record it is.
func TestBroadcastResolvesModels(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	s, live := server.Subscribe(t, "", "aiContent/*"), server.Subscribe(t, "", liveTopic("aiContent/*", `title = "created"`))
	model := &content{Title: "created"}
	model.Id = "model0000000000"
	if err := app.Save(model); err != nil {
		t.Fatal(err)
	}
	await(t, s, `"created"`)
	await(t, live, `"action":"live"`)
	await(t, live, `"created"`)
	model.Title = "updated"
	if err := app.Save(model); err != nil {
		t.Fatal(err)
	}
	await(t, s, `"updated"`)
	await(t, live, `"leave"`)
	if err := app.Delete(model); err != nil {
		t.Fatal(err)
	}
	await(t, s, `"action":"delete"`)
}

// A client that a hook kept from before the connection was ours still takes messages.
func TestSubscriberTakesWhatItsClientIsSent(t *testing.T) {
	t.Parallel()
	apptest.OverEachProtocol(t, func(t *testing.T, client *http.Client) {
		app, _ := newTest(t)
		kept := make(chan subscriptions.Client, 1)
		app.OnRealtimeConnectRequest().BindFunc(func(e *core.RealtimeConnectRequestEvent) error {
			kept <- e.Client
			return e.Next()
		})
		server := apptest.Serve(t, app)
		server.Client = client
		s := server.Subscribe(t, "", "aiContent/*")
		early := <-kept
		sent := make(chan struct{})
		go func() {
			early.Send(subscriptions.Message{Name: "aiContent/*", Data: []byte(`"by the hook"`)})
			close(sent)
		}()
		await(t, s, `"by the hook"`)
		<-sent
	})
}

// A hook that alters a message in place alters that of one client.
func TestMessagesAreEachClientsOwn(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	masked := server.Subscribe(t, "", "aiContent/*")
	app.OnRealtimeMessageSend().BindFunc(func(e *core.RealtimeMessageEvent) error {
		if i := bytes.Index(e.Message.Data, []byte("secret")); i >= 0 && e.Client.Id() == masked.ID {
			copy(e.Message.Data[i:], "xxxxxx")
		}
		return e.Next()
	})
	create(t, app, "the secret")
	await(t, masked, "xxxxxx")
	other := server.Subscribe(t, "", "aiContent/*")
	for range 5 {
		create(t, app, "the secret")
		await(t, masked, "xxxxxx")
		await(t, other, "secret")
	}
}

// Two connections of one user are asked for each on its own: a hook may give either
// another auth record, and one that is older may know less.
func TestBroadcastAsksForEachAuthRecord(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	collection, err := app.FindCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	collection.ListRule = types.Pointer(`@request.auth.verified = true || title ~ "end"`)
	if err := app.Save(collection); err != nil {
		t.Fatal(err)
	}
	user, token := apptest.NewUser(t, app, "u@example.com")
	server := apptest.Serve(t, app)
	set := func(verified bool) { // as another process does
		if _, err := app.NonconcurrentDB().Update("users", dbx.Params{"verified": verified}, dbx.HashExp{"id": user.Id}).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	yes := server.Subscribe(t, token, "aiContent/*")
	set(false)
	no := server.Subscribe(t, token, "aiContent/*")
	for range 10 {
		create(t, app, "for the verified")
		create(t, app, "the end")
		await(t, yes, "for the verified")
		await(t, yes, "the end")
		await(t, no, "the end")
	}
}

// A hook that leaves the app of an ended transaction in its event takes nothing from the
// broadcast.
func TestBroadcastBehindAnEndedTransaction(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	app.OnRecordCreate(collectionName).BindFunc(func(e *core.RecordEvent) error {
		return e.App.RunInTransaction(func(tx core.App) error {
			e.App = tx
			return e.Next()
		})
	})
	collection, err := app.FindCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	collection.ListRule = types.Pointer("")
	if err := app.Save(collection); err != nil {
		t.Fatal(err)
	}
	server := apptest.Serve(t, app)
	s := server.Subscribe(t, "", "aiContent/*")
	create(t, app, "in a transaction")
	await(t, s, "in a transaction")
}

// What a hook's panic cut off leaves nothing behind.
func TestDeleteThatPanics(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		bind func(app core.App)
		do   func(app core.App, record *core.Record)
	}{
		{"within the delete", func(app core.App) {
			app.OnRecordDeleteExecute(collectionName).BindFunc(func(*core.RecordEvent) error { panic("no") })
		}, func(app core.App, record *core.Record) { _ = app.Delete(record) }},
		{"later in its transaction", func(core.App) {}, func(app core.App, record *core.Record) {
			_ = app.RunInTransaction(func(tx core.App) error {
				if err := tx.Delete(record); err != nil {
					return err
				}
				panic("no")
			})
		}},
		{"behind it", func(app core.App) {
			app.OnRecordAfterDeleteSuccess(collectionName).BindFunc(func(*core.RecordEvent) error { panic("no") })
		}, func(app core.App, record *core.Record) { _ = app.Delete(record) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			app, f := newTest(t)
			server := apptest.Serve(t, app)
			server.Subscribe(t, "", "aiContent/*")
			create(t, app, "kept")
			record, err := app.FindFirstRecordByData(collectionName, "title", "kept")
			if err != nil {
				t.Fatal(err)
			}
			row.bind(app)
			for range 3 {
				func() {
					defer func() { _ = recover() }()
					row.do(app, record)
				}()
			}
			apptest.Eventually(t, "nothing is left of the deletes", func() bool {
				runtime.GC()
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.underway)+len(f.ofRow)+len(f.decided) == 0
			})
		})
	}
}

// A record that was inserted twice in a batch has one place.
func TestOneRecordHasOnePlace(t *testing.T) {
	t.Parallel()
	app, f := newTest(t)
	server := apptest.Serve(t, app)
	s := server.Subscribe(t, "", "aiContent/*")
	collection, err := app.FindCachedCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	record := core.NewRecord(collection)
	record.Set("title", "twice")
	f.Committed([]*core.Record{record, record})
	if err := app.SaveWithContext(context.Background(), record); err != nil {
		t.Fatal(err)
	}
	f.Settled([]*core.Record{record})
	f.mu.Lock()
	for _, c := range f.changes {
		if c.record == nil && !c.dropped {
			t.Error("a place is left that nobody gives up")
		}
	}
	f.mu.Unlock()
	await(t, s, "twice")
}

// Who subscribes by the collection's id hears of it under another name too.
func TestBroadcastFollowsTheCollectionsId(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	server := apptest.Serve(t, app)
	collection, err := app.FindCollectionByNameOrId(collectionName)
	if err != nil {
		t.Fatal(err)
	}
	s := server.Subscribe(t, "", collection.Id+"/*")
	create(t, app, "before")
	await(t, s, "before")
	collection.Name = "posts"
	if err := app.Save(collection); err != nil {
		t.Fatal(err)
	}
	record := core.NewRecord(collection)
	record.Set("title", "after")
	if err := app.Save(record); err != nil {
		t.Fatal(err)
	}
	await(t, s, "after")
}

// A hook of the broadcast's priority that ends the chain leaves the event its app.
func TestHooksKeepTheirApp(t *testing.T) {
	t.Parallel()
	app, _ := newTest(t)
	clients := make(chan int, 1)
	app.OnRecordAfterCreateSuccess(collectionName).BindFunc(func(e *core.RecordEvent) error {
		err := e.Next()
		clients <- e.App.SubscriptionsBroker().TotalClients()
		return err
	})
	app.OnModelAfterCreateSuccess(collectionName).Bind(&hook.Handler[*core.ModelEvent]{
		Func: func(*core.ModelEvent) error { return nil }, Priority: -99,
	})
	server := apptest.Serve(t, app)
	server.Subscribe(t, "", "aiContent/*")
	create(t, app, "T")
	if got := <-clients; got != 1 {
		t.Errorf("clients that the app has behind the broadcast: got %d, want 1", got)
	}
}

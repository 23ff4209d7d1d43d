package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A record that exists is never called refused, whoever stored it.
func TestRefusalOfWhatIsStored(t *testing.T) {
	t.Parallel()
	t.Run("by another delivery in the batch", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		var calls atomic.Int32
		server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
			if calls.Add(1) == 1 {
				return errors.New("the other service is down")
			}
			return e.Next()
		})
		payload := generated("same", `{"title":"flaky"}`, rec.callbackURL("same"))
		for _, status := range server.postTogether(t, payload, payload, payload) {
			if status != 200 {
				t.Errorf("got %d, want 200", status)
			}
		}
		awaitHealed(t, server, rec)
		for _, received := range rec.all() {
			if strings.Contains(received.body, "processing_failed") {
				t.Errorf("callback: got %s", received.body)
			}
		}
	})
	t.Run("by another process while the hook ran", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		payload := generated("same", `{"title":"flaky"}`, rec.callbackURL("same"))
		event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) (err error) {
			refuse := false
			once.Do(func() { refuse = true })
			if !refuse {
				return e.Next()
			}
			e.App.TxInfo().OnComplete(func(error) error {
				cb := &store.Callback{Id: recordId(event, []byte(payload)), URL: event.CallbackURL, Host: "127.0.0.1", Expires: store.DateTime(time.Now().Add(time.Minute))}
				return server.RunInTransaction(func(tx core.App) error {
					_, err := server.plugin.store(tx, event, cb, time.Now())
					return err
				})
			})
			return errors.New("the other service is down")
		})
		server.mustPost(t, payload)
		awaitHealed(t, server, rec)
		for _, received := range rec.all() {
			if strings.Contains(received.body, "processing_failed") {
				t.Errorf("callback: got %s", received.body)
			}
		}
	})

	// What an older version left: its row says refused, and the record is there.
	errorBody := string(modelriver.ErrorCallbackBody("refused: no"))
	for name, row := range map[string]struct {
		left  dbx.Params
		again func(t *testing.T, server *testServer, payload string, header http.Header)
	}{
		"failed, by another webhook": {dbx.Params{"state": store.Failed, "body": errorBody}, func(t *testing.T, server *testServer, payload string, _ http.Header) {
			server.mustPost(t, payload)
		}},
		"failed, by setting the row pending":    {dbx.Params{"state": store.Failed, "body": errorBody}, setPending},
		"pending, its error callback not sent":  {dbx.Params{"state": store.Pending, "body": errorBody, "nextAttempt": store.DateTime(time.Now())}, nil},
		"pending, ingested again and for ever":  {dbx.Params{"state": store.Pending, "body": "", "nextAttempt": store.DateTime(time.Now())}, nil},
		"pending, by another webhook meanwhile": {dbx.Params{"state": store.Pending, "body": errorBody, "nextAttempt": store.DateTime(time.Now().Add(time.Minute)), "attempts": 2}, func(t *testing.T, server *testServer, payload string, _ http.Header) { server.mustPost(t, payload) }},
	} {
		for _, owed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, a callback is owed: %t", name, owed), func(t *testing.T) {
				t.Parallel()
				rec := newReceiver(t, nil)
				server := newTestServer(t, testConfig())
				url := ""
				if owed {
					url = rec.callbackURL("left")
				}
				payload := generated("left", `{"title":"left","n":1.0}`, url)
				server.mustPost(t, payload)
				id := only(t, server, store.Content).Id
				if owed {
					awaitState(t, server, store.Delivered)
				} else {
					insertTestCallback(t, server, server.plugin, id, "")
				}
				before := len(rec.all())
				left := dbx.Params{"record": "", "payload": payload, "lastError": "refused: no", "deliveredAt": "", "attempts": 1, "lastStatus": 200}
				for field, value := range row.left {
					left[field] = value
				}
				setCallback(t, server, id, left)
				if row.again != nil {
					row.again(t, server, payload, nil)
				} else {
					server.plugin.outbox.Wake()
				}
				if !owed {
					eventually(t, "no row is left", func() bool { return len(records(t, server, store.Callbacks)) == 0 })
					return
				}
				awaitHealed(t, server, rec)
				received := rec.all()[before:]
				if len(received) != 1 || !strings.HasPrefix(received[0].body, `{"data":{"title":"left","n":1.0,"id":"`+id+`"`) {
					t.Errorf("callbacks: got %v, want one with the content", received)
				}
			})
		}
	}
}

func awaitHealed(t *testing.T, server *testServer, rec *receiver) {
	t.Helper()
	row := awaitState(t, server, store.Delivered)
	record := only(t, server, store.Content)
	if row.GetString("record") != record.Id || row.GetString("payload") != "" || row.GetString("lastError") != "" {
		t.Errorf("row: got record %q, payload %q, error %q", row.GetString("record"), row.GetString("payload"), row.GetString("lastError"))
	}
}

func TestIngestRefusals(t *testing.T) {
	t.Parallel()
	refuse := func(app core.App, err error) {
		app.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return err })
	}
	for _, row := range []struct {
		name   string
		bind   func(app core.App)
		reason string
	}{
		{"a hook returns an error", func(app core.App) { refuse(app, errors.New("no thanks")) }, "refused: no thanks"},
		{"a hook returns an API error", func(app core.App) { refuse(app, apis.NewBadRequestError("Not suitable.", nil)) }, "refused: Not suitable."},
		{"a hook panics", func(app core.App) {
			app.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { panic("oops") })
		}, "refused: panic: oops"},
		{"a hook changes its mind after the insert", func(app core.App) {
			app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
				if err := e.Next(); err != nil {
					return err
				}
				return errors.New("second thoughts")
			})
		}, "refused: second thoughts"},
		{"validation", func(app core.App) {
			app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
				e.Record.Set("category", strings.Repeat("x", 2000))
				return e.Next()
			})
		}, "refused: category: Must be no more than 1000 character(s)."},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			row.bind(server)
			stream := server.Subscribe(t, "", "aiContent/*")
			payload := generated("refused", `{"title":"T"}`, rec.callbackURL("refused"))
			server.mustPost(t, payload)

			if got := len(records(t, server, store.Content)); got != 0 {
				t.Errorf("records: got %d, want 0", got)
			}
			want, _ := json.Marshal(map[string]string{"error": "processing_failed", "message": row.reason})
			if got := rec.await(t, 1)[0].body; got != string(want) {
				t.Errorf("callback: got %s, want %s", got, want)
			}
			callback := awaitState(t, server, store.Failed)
			if callback.GetString("payload") != payload || callback.GetString("lastError") != row.reason {
				t.Errorf("row: got payload %q and error %q", callback.GetString("payload"), callback.GetString("lastError"))
			}
			if callback.GetDateTime("deliveredAt").IsZero() {
				t.Error("deliveredAt: got none, though the error callback was accepted")
			}
			select {
			case event := <-stream.Events:
				t.Errorf("a subscriber got an event of what was refused: %s", event)
			default:
			}
		})
	}
}

// A refused event is kept, and stored once the hook lets it pass: by the same webhook
// again, or by setting its row back to pending.
func TestIngestRefusedAgain(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, callback string
		header         bool
		again          func(t *testing.T, server *testServer, payload string, header http.Header)
	}{
		{"by another webhook", "yes", false, func(t *testing.T, server *testServer, payload string, header http.Header) {
			server.post(t, payload, header)
		}},
		{"by setting the row pending", "yes", false, setPending},
		{"by setting the row pending, channel and callback known from headers", "yes", true, setPending},
		{"by another webhook, nobody waits for a callback", "", false, func(t *testing.T, server *testServer, payload string, header http.Header) {
			server.post(t, payload, header)
		}},
		{"by setting the row pending, nobody waits for a callback", "", false, setPending},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			refusing := true
			var mu sync.Mutex
			server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
				mu.Lock()
				defer mu.Unlock()
				if refusing {
					return errors.New("not yet")
				}
				return e.Next()
			})

			callbackURL := ""
			if row.callback != "" {
				callbackURL = rec.callbackURL("other-than-the-channel")
			}
			payload := generated("again", `{"title":"Later"}`, callbackURL)
			header := http.Header{}
			if row.header {
				payload = `{"type":"task.ai_generated","ai_response":{"data":{"title":"Later"}}}`
				header.Set("mr-channel-id", "again")
				header.Set("X-ModelRiver-Callback-Url", callbackURL)
			}
			if err := modelriver.Sign(header, "body", testSecret, time.Now(), []byte(payload)); err != nil {
				t.Fatal(err)
			}
			if status, _ := server.post(t, payload, header); status != 200 {
				t.Fatalf("got %d", status)
			}
			id := awaitState(t, server, store.Failed).Id
			mu.Lock()
			refusing = false
			mu.Unlock()
			row.again(t, server, payload, header)

			eventually(t, "the record is stored", func() bool { return len(records(t, server, store.Content)) == 1 })
			record := only(t, server, store.Content)
			if record.Id != id || record.GetString("channelId") != "again" || record.GetString("title") != "Later" {
				t.Errorf("record: got id %s, channel %q, title %q", record.Id, record.GetString("channelId"), record.GetString("title"))
			}
			if row.callback == "" {
				eventually(t, "no row is left", func() bool { return len(records(t, server, store.Callbacks)) == 0 })
				return
			}
			callback := awaitState(t, server, store.Delivered)
			if callback.GetString("payload") != "" || callback.GetString("lastError") != "" || callback.GetString("record") != id {
				t.Errorf("row: got payload %q, error %q, record %q", callback.GetString("payload"), callback.GetString("lastError"), callback.GetString("record"))
			}
			received := rec.await(t, 2)
			if !strings.Contains(received[1].body, `"task_id":"pocketbase_`+id) {
				t.Errorf("second callback: got %s", received[1].body)
			}
		})
	}
}

func setPending(t *testing.T, server *testServer, _ string, _ http.Header) {
	record := only(t, server, store.Callbacks)
	record.Set("state", store.Pending)
	if err := server.Save(record); err != nil {
		t.Fatal(err)
	}
}

// A refused payload that is ingested again, without its headers, is the same event.
func TestKeptPayloadIsTheSameEvent(t *testing.T) {
	t.Parallel()
	header := http.Header{}
	header.Set(modelriver.HeaderXSignature, "00")
	header.Set(modelriver.HeaderChannelID, "c1")
	header.Set(modelriver.HeaderCallbackURL, "https://api.modelriver.com/v1/callback/c2")
	for _, payload := range []string{
		`{"data":{"n":1.0}}`,
		`{"channel_id":"c3","data":{"n":1.0}}`,
		`{"channel_id":"","callback_url":null,"ai_response":{"data":{"n":1.0}}}`,
		`{"data":{"n":1.0},"ai_response":{"data":"not signed"}}`,
		`{"data":{"type":"task.completed","channel_id":"","data":{"n":1.0}},"ai_response":{"data":"not signed"}}`,
	} {
		event, err := modelriver.ParseEvent(header, []byte(payload))
		if err != nil || string(event.Data) != `{"n":1.0}` {
			t.Fatalf("%s: got %s, %v", payload, event.Data, err)
		}
		again, err := modelriver.ParseEvent(nil, []byte(keptPayload(event, []byte(payload))))
		if err != nil || !reflect.DeepEqual(event, again) {
			t.Errorf("%s: got %+v, %v, want %+v", payload, again, err, event)
		}
	}
}

// A callback that ModelRiver waits for is not left out because there is no AI data: the
// user's page would wait for it in vain.
func TestIngestWithoutData(t *testing.T) {
	t.Parallel()
	const reason = "refused: the webhook carries no AI data"
	for _, row := range []struct {
		name, aiResponse, more string
		called                 bool
	}{
		{"no ai_response", ``, ``, true},
		{"an empty ai_response", `,"ai_response":{}`, ``, true},
		{"an error", `,"ai_response":{"data":null}`, `,"error":{"message":"the provider is down"}`, true},
		{"no callback URL", ``, ``, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			event := func(aiResponse, more string) string {
				callback := ""
				if row.called {
					callback = fmt.Sprintf(`,"callback_url":%q,"callback_required":true`, rec.callbackURL("none"))
				}
				return `{"type":"task.ai_generated","event":"new_content","channel_id":"none"` + aiResponse + more + callback + `}`
			}
			payload := event(row.aiResponse, row.more)
			server.mustPost(t, payload)
			if got := len(records(t, server, store.Content)); got != 0 {
				t.Errorf("records: got %d, want 0", got)
			}
			if !row.called {
				if got := len(records(t, server, store.Callbacks)); got != 0 {
					t.Errorf("callback rows: got %d, want 0", got)
				}
				return
			}
			if got, want := rec.await(t, 1)[0].body, `{"error":"processing_failed","message":"`+reason+`"}`; got != want {
				t.Errorf("callback: got %s, want %s", got, want)
			}
			failed := awaitState(t, server, store.Failed)
			if failed.GetString("lastError") != reason || failed.GetString("payload") != payload {
				t.Errorf("row: got error %q and payload %s", failed.GetString("lastError"), failed.GetString("payload"))
			}
			out, err := runCommand(server.plugin, "status")
			wantError(t, err, "1 callback failed")
			wantLines(t, out, `^received +1 `, `^refused +1$`)

			// It is refused again, and stored once it has data.
			setPending(t, server, "", nil)
			awaitState(t, server, store.Failed)
			server.mustPost(t, event(`,"ai_response":{"data":{"title":"There now"}}`, ""))
			awaitState(t, server, store.Delivered)
			if got := only(t, server, store.Content).GetString("title"); got != "There now" {
				t.Errorf("title: got %s", got)
			}
			server.mustPost(t, payload) // and stays stored
			if got := only(t, server, store.Content).GetString("title"); got != "There now" {
				t.Errorf("title after another one without data: got %s", got)
			}
			if got := only(t, server, store.Callbacks).GetString("state"); got != store.Delivered {
				t.Errorf("state after another one without data: got %s", got)
			}
		})
	}
}

// A refused event whose row is deleted, or set to failed again, in the moment before it is
// ingested once more is not.
func TestReingestOfWhatIsNotWanted(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]func(app core.App, id string) error{
		"deleted": func(app core.App, id string) error {
			_, err := app.NonconcurrentDB().Delete(store.Callbacks, dbx.HashExp{"id": id}).Execute()
			return err
		},
		"set to failed": func(app core.App, id string) error {
			_, err := app.NonconcurrentDB().Update(store.Callbacks, dbx.Params{"state": "failed"}, dbx.HashExp{"id": id}).Execute()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, testConfig())
			refuseSome(server)
			payload := generated("c", `{"title":"Refused"}`, "")
			server.mustPost(t, payload)
			row := awaitState(t, server, store.Failed)
			armed := &store.Callback{Id: row.Id, Attempts: 1, Expires: store.DateTime(time.Now().Add(time.Minute)), Refused: true}
			setCallback(t, server, row.Id, dbx.Params{"state": "pending", "attempts": 1, "expires": armed.Expires, "nextAttempt": armed.Expires})
			if err := cancel(server, row.Id); err != nil {
				t.Fatal(err)
			}
			err := server.RunInTransaction(func(tx core.App) error {
				return server.plugin.reingest(tx, armed, strings.Replace(payload, "Refused", "Taken", 1))
			})
			if rows := records(t, server, store.Content); err != nil || len(rows) != 0 {
				t.Errorf("got %v, %v, want nothing stored", rows, err)
			}
		})
	}
}

package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

func TestIngestFillsTheRecord(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 200_000)
	for _, row := range []struct {
		name    string
		payload string
		want    map[string]string
	}{
		{
			"the guide's event",
			`{"type":"task.ai_generated","event":"new_movie","channel_id":"c1","ai_response":{"data":{"title":"Inception","description":"A dream","year":2010}},"customer_data":{"category":"films","user_id":"u1"},"meta":{"model":"gpt-4o","provider":"openai"}}`,
			map[string]string{
				"title": "Inception", "body": "A dream", "category": "films", "channelId": "c1", "eventName": "new_movie",
				"userId": "u1", "source": "modelriver", "data": `{"title":"Inception","description":"A dream","year":2010}`,
				"metadata": `{"category":"films","user_id":"u1","ai_model":"gpt-4o","ai_provider":"openai"}`,
			},
		},
		{
			"nothing but data",
			`{"data":{}}`,
			map[string]string{
				"title": "Untitled", "body": "", "category": "general", "channelId": "", "eventName": "", "userId": "",
				"data": `{}`, "metadata": `{}`,
			},
		},
		{
			"plain text",
			`{"type":"task.completed","channel_id":"c2","data":"The whole answer."}`,
			map[string]string{"title": "Untitled", "body": "The whole answer.", "data": `"The whole answer."`},
		},
		{
			"numbers and white space as sent",
			`{"type":"task.completed","channel_id":"c3","data":{ "big":12345678901234567890, "one":1.0, "tiny":1e-400 }}`,
			map[string]string{"data": `{ "big":12345678901234567890, "one":1.0, "tiny":1e-400 }`},
		},
		{
			"a body beyond PocketBase's default limits",
			`{"type":"task.completed","channel_id":"c4","data":{"body":"` + long + `"}}`,
			map[string]string{"body": long},
		},
		{
			"a title beyond its limit is cut",
			`{"type":"task.completed","channel_id":"c5","data":{"title":"` + long + `"}}`,
			map[string]string{"title": long[:2*500]},
		},
		{
			"a blank title",
			`{"type":"task.completed","channel_id":"c6","data":{"title":" \n"}}`,
			map[string]string{"title": "Untitled"},
		},
		{
			"NUL and half a surrogate pair",
			`{"type":"task.completed","channel_id":"c7","data":{"title":"a\u0000b\ud800c"}}`,
			map[string]string{"title": "a\uFFFDb\uFFFDc", "data": `{"title":"a\u0000b\ud800c"}`},
		},
		{
			"invalid UTF-8 becomes valid",
			"{\"type\":\"task.completed\",\"channel_id\":\"c8\",\"data\":{\"title\":\"a\xffb\"}}",
			map[string]string{"title": "a\uFFFDb", "data": "{\"title\":\"a\uFFFDb\"}"},
		},
		{
			"a user id that is a number",
			`{"type":"task.completed","channel_id":"c9","data":{},"customer_data":{"metadata.user_id":12345678901234567890}}`,
			map[string]string{"userId": "12345678901234567890"},
		},
		{
			"a user id that is neither text nor number makes nothing public",
			`{"type":"task.completed","channel_id":"c10","data":{},"customer_data":{"user_id":{"id":1}}}`,
			map[string]string{"userId": `{"id":1}`},
		},
		{
			"customer_data that has the names of the model's metadata",
			`{"type":"task.completed","channel_id":"c11","data":{},"customer_data":{"ai_model":"theirs","n":1.0},"meta":{"used_model":"ours"}}`,
			map[string]string{"metadata": `{"n":1.0,"ai_model":"ours"}`},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := newTestServer(t, testConfig())
			server.mustPost(t, row.payload)
			record := only(t, server, store.Content)
			for field, want := range row.want {
				if got := record.GetString(field); got != want {
					t.Errorf("%s: got %.200q, want %.200q", field, got, want)
				}
			}
			// The API's answer must be JSON that a browser takes.
			status, body := server.get(t, "/api/collections/aiContent/records/"+record.Id, superuserToken(t, server))
			if status != 200 || body["id"] != record.Id {
				t.Errorf("API: got %d %v", status, body["id"])
			}
		})
	}
}

func TestIngestIdIsDeterministic(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		payload string
		want    string // computed with Node: BigInt("0x"+sha256).toString(36).slice(0, 15)
	}{
		{"channel, type and event", `{"type":"task.ai_generated","event":"new_content","channel_id":"550e8400-e29b-41d4-a716-446655440000","ai_response":{"data":{}}}`, "2dd9sjbzooswux2"},
		{"payload where there is no channel", `{"type":"task.completed","data":{}}`, "29v4l593ankcs96"},
	} {
		event, err := modelriver.ParseEvent(http.Header{}, []byte(row.payload))
		if err != nil {
			t.Fatal(err)
		}
		if got := recordId(event, []byte(row.payload)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

func TestIngestDuplicates(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	first := generated("dup", `{"title":"First"}`, rec.callbackURL("dup"))
	for _, row := range []struct {
		name    string
		payload string
		want    int
	}{
		{"the same bytes", first, 1},
		{"other content for the same channel, type and event", generated("dup", `{"title":"Second"}`, rec.callbackURL("dup")), 1},
		{"another channel with the same content", generated("dup2", `{"title":"First"}`, ""), 2},
		{"another event of the same channel", strings.Replace(first, "new_content", "summary", 1), 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := newTestServer(t, testConfig())
			server.mustPost(t, first)
			server.mustPost(t, row.payload)
			server.mustPost(t, first)
			rows := records(t, server, store.Content)
			if len(rows) != row.want || rows[0].GetString("title") != "First" {
				t.Errorf("records: got %d, the first %q; want %d, %q", len(rows), rows[0].GetString("title"), row.want, "First")
			}
		})
	}
}

func TestIngestConcurrentDuplicates(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	payload := generated("race", `{"title":"Once"}`, rec.callbackURL("race"))

	var group sync.WaitGroup
	failures := make(chan string, 100)
	for range 20 {
		group.Go(func() {
			for range 5 {
				if status, body, err := server.tryPost(payload, nil); err != nil || status != 200 {
					failures <- fmt.Sprint(status, body, err)
				}
			}
		})
	}
	group.Wait()
	close(failures)
	for failure := range failures {
		t.Error(failure)
	}
	only(t, server, store.Content)
	row := awaitState(t, server, store.Delivered)
	if got := len(rec.all()); got != 1 || row.GetInt("attempts") != 1 {
		t.Errorf("callbacks: got %d with %d attempts on the row, want 1", got, row.GetInt("attempts"))
	}
}

// Many different webhooks at once share transactions: each must still get its own row,
// its own callback, and one answer.
func TestIngestConcurrentWebhooks(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if strings.HasSuffix(e.Record.GetString("channelId"), "-refuse") {
			return apis.NewBadRequestError("not this one", nil)
		}
		return e.Next()
	})
	const n = 200
	var group sync.WaitGroup
	places := make(chan struct{}, 32) // on a slow machine, more would wait for longer than the committer lets them
	for i := range n {
		group.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			channel := fmt.Sprintf("many-%d", i)
			if i%10 == 0 {
				channel += "-refuse"
			}
			status, body, err := server.tryPost(generated(channel, fmt.Sprintf(`{"title":"T","n":%d}`, i), rec.callbackURL(channel)), nil)
			if err != nil || status != 200 {
				t.Errorf("%s: %d %s %v", channel, status, body, err)
			}
		})
	}
	group.Wait()
	if got, want := len(records(t, server, store.Content)), n-n/10; got != want {
		t.Errorf("records: got %d, want %d", got, want)
	}
	eventually(t, "no callback is pending", func() bool {
		pending, err := server.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Pending})
		return err == nil && pending == 0
	})
	delivered, _ := server.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Delivered})
	failed, _ := server.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Failed})
	if delivered != n-n/10 || failed != n/10 {
		t.Errorf("callback rows: got %d delivered and %d failed, want %d and %d", delivered, failed, n-n/10, n/10)
	}
	paths := map[string]int{}
	for _, received := range rec.all() {
		paths[received.path]++
	}
	if len(paths) != n || len(rec.all()) != n {
		t.Errorf("callbacks: got %d to %d channels, want %d to each once", len(rec.all()), len(paths), n)
	}
}

func TestIngestHookEnriches(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		var data map[string]json.RawMessage
		if err := e.Record.UnmarshalJSONField("data", &data); err != nil {
			return err
		}
		data["price"] = json.RawMessage(`12.50`)
		e.Record.Set("data", data)
		e.Record.Set("title", "Shaped")
		return e.Next()
	})
	server.mustPost(t, generated("enrich", `{"title":"Raw"}`, rec.callbackURL("enrich")))

	record := only(t, server, store.Content)
	if got := record.GetString("title"); got != "Shaped" {
		t.Errorf("title: got %q, want %q", got, "Shaped")
	}
	body := rec.await(t, 1)[0].body
	if !strings.Contains(compact(t, body), `"price":12.50`) || !strings.Contains(record.GetString("data"), `"price":12.50`) {
		t.Errorf("the hook's field is missing in the callback %s or the record %s", body, record.GetString("data"))
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

// A database that cannot write is not a refusal: ModelRiver must send again.
func TestIngestDatabaseFailure(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	if _, err := server.NonconcurrentDB().NewQuery("PRAGMA query_only = 1").Execute(); err != nil {
		t.Fatal(err)
	}
	payload := generated("readonly", `{"title":"T"}`, rec.callbackURL("readonly"))
	if status, body := server.post(t, payload, nil); status != 503 || body != `{"error":"The database cannot store this now"}` {
		t.Errorf("got %d %s, want 503", status, body)
	}
	if _, err := server.NonconcurrentDB().NewQuery("PRAGMA query_only = 0").Execute(); err != nil {
		t.Fatal(err)
	}
	if got := len(records(t, server, store.Content)) + len(records(t, server, store.Callbacks)); got != 0 {
		t.Errorf("rows after a failure: got %d, want 0", got)
	}
	server.mustPost(t, payload)
	awaitState(t, server, store.Delivered)
	if got := len(rec.all()); got != 1 {
		t.Errorf("callbacks: got %d, want 1", got)
	}
}

// What a hook after the commit does cannot take back the answer: the record is stored.
func TestIngestAfterCommitHooks(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]func(e *core.RecordEvent) error{
		"returns an error": func(e *core.RecordEvent) error { return errors.New("mail server is down") },
		"panics":           func(e *core.RecordEvent) error { panic("nil map") },
		"hangs for a while": func(e *core.RecordEvent) error {
			time.Sleep(500 * time.Millisecond)
			return e.Next()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			server.OnRecordAfterCreateSuccess(store.Content).BindFunc(hook)
			for i := range 3 {
				channel := fmt.Sprint("after-", i)
				server.mustPost(t, generated(channel, `{}`, rec.callbackURL(channel)))
			}
			rec.await(t, 3)
			if got := len(records(t, server, store.Content)); got != 3 {
				t.Errorf("records: got %d, want 3", got)
			}
		})
	}
}

func TestPrivacy(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	owner, ownerToken := newUser(t, server, "owner@example.com")
	_, otherToken := newUser(t, server, "other@example.com")
	super := superuserToken(t, server)

	viewers := []struct {
		name, token string
		seesPrivate bool
	}{
		{"guest", "", false}, {"another user", otherToken, false}, {"owner", ownerToken, true}, {"superuser", super, true},
	}
	streams := map[string]*apptest.Stream{}
	for _, viewer := range viewers {
		streams[viewer.name] = server.Subscribe(t, viewer.token, "aiContent/*")
	}
	server.mustPost(t, fmt.Sprintf(`{"type":"task.completed","channel_id":"private","data":{"title":"Private"},"customer_data":{"user_id":%q}}`, owner.Id))
	private := only(t, server, store.Content)
	server.mustPost(t, `{"type":"task.completed","channel_id":"public","data":{"title":"Public"}}`)

	for _, viewer := range viewers {
		want := 1
		if viewer.seesPrivate {
			want = 2
		}
		_, list := server.get(t, "/api/collections/aiContent/records", viewer.token)
		if got := len(list["items"].([]any)); got != want {
			t.Errorf("%s lists %d records, want %d", viewer.name, got, want)
		}
		_, list = server.get(t, "/api/collections/aiContent/records?filter="+url.QueryEscape(`title ~ "Priv" || data.title = "Private" || channelId = "private"`), viewer.token)
		if got := len(list["items"].([]any)); got != want-1 {
			t.Errorf("%s filters %d private records, want %d", viewer.name, got, want-1)
		}
		status, _ := server.get(t, "/api/collections/aiContent/records/"+private.Id, viewer.token)
		if got := status == 200; got != viewer.seesPrivate {
			t.Errorf("%s views the private record: got %d", viewer.name, status)
		}
		// The public event comes after the private one, so once it is there the other
		// would have been.
		titles := []string{}
		for len(titles) == 0 || titles[len(titles)-1] != "Public" {
			select {
			case event := <-streams[viewer.name].Events:
				var decoded struct{ Record struct{ Title string } }
				if err := json.Unmarshal([]byte(event), &decoded); err != nil {
					t.Fatal(err)
				}
				titles = append(titles, decoded.Record.Title)
			case <-time.After(time.Minute):
				t.Fatalf("%s: no public event", viewer.name)
			}
		}
		if got := len(titles); got != want {
			t.Errorf("%s gets %v in realtime, want %d events", viewer.name, titles, want)
		}
		status, _ = server.get(t, "/api/collections/modelriverCallbacks/records", viewer.token)
		if got := status == 200; got != (viewer.name == "superuser") {
			t.Errorf("%s lists callbacks: got %d", viewer.name, status)
		}
	}
	for _, viewer := range viewers[:3] {
		for _, method := range []string{http.MethodPatch, http.MethodDelete} {
			request, _ := http.NewRequest(method, server.url+"/api/collections/aiContent/records/"+private.Id, strings.NewReader(`{"title":"Mine"}`))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Authorization", viewer.token)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusForbidden {
				t.Errorf("%s: %s answered %d, want 403", viewer.name, method, response.StatusCode)
			}
		}
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

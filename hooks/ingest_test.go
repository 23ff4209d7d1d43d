package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

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

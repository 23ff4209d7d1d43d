package hooks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// signed is the header of a webhook in a scheme, with others.
func signed(t testing.TB, scheme, payload string, others ...string) http.Header {
	t.Helper()
	header := http.Header{}
	if err := modelriver.Sign(header, scheme, testSecret, time.Now(), []byte(payload)); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(others); i += 2 {
		header.Add(others[i], others[i+1])
	}
	return header
}

// Each webhook is kept as it came, byte for byte, under the id of its delivery.
func TestPayloadIsKept(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, scheme, payload string
		refused               bool
	}{
		{"in the documented scheme", "body", generated("c", `{"title":"T", "n":1.0}`, ""), false},
		{"in the scheme of the servers", "data", `{ "channel_id":"c","data":{"type":"task.completed","ai_response":{"data":{"title":"T"}}} }`, false},
		{"with a byte order mark", "timestamped-body", "\ufeff" + generated("c", `{"title":"T"}`, ""), false},
		{"refused", "body", generated("c", `{"title":"Refused"}`, ""), true},
		{"refused, with a callback", "body", generated("c", `{"title":"Refused"}`, "https://api.modelriver.com/v1/callback/c"), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := testConfig()
			config.APIKey = "" // callbacks wait
			server := newTestServer(t, config)
			refuseSome(server)
			header := signed(t, row.scheme, row.payload, "User-Agent", "ModelRiver/1", "Authorization", "Bearer other")
			if status, body := server.post(t, row.payload, header); status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			kept := onlyPayload(t, server)
			if kept.Payload != row.payload || kept.Size != len(row.payload) || kept.Scheme != row.scheme {
				t.Errorf("got %d bytes in scheme %q: %q, want %q", kept.Size, kept.Scheme, kept.Payload, row.payload)
			}
			of := store.Content
			if row.refused {
				of = store.Callbacks
			}
			if row := only(t, server, of); row.Id != kept.Id || row.GetDateTime("created").Sub(kept.Created).Abs() > 10*time.Second {
				t.Errorf("got %s of %s, want the id of %s", kept.Id, kept.Created, row.Id)
			}
			if headers := kept.Headers; !strings.Contains(headers, `"User-Agent":"ModelRiver/1"`) || strings.Contains(headers, "other") {
				t.Errorf("headers: got %s", headers)
			}
		})
	}
}

// One delivery has one payload, the first, and what is no delivery has none.
func TestPayloadIsKeptOnce(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	refusing := true
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if refusing {
			return errors.New("not yet")
		}
		return e.Next()
	})
	server.mustPost(t, `{"type":"task.started","channel_id":"c"}`) // ignored
	server.post(t, `{"a":1}`, signed(t, "body", `{"a":2}`))        // not ModelRiver's
	if n := len(payloadsOf(t, server)); n != 0 {
		t.Fatalf("of no delivery: got %d payloads", n)
	}
	server.mustPost(t, generated("c", `{"title":"First"}`, ""))
	refusing = false
	stored := generated("c", `{"title":"Second"}`, "")
	server.mustPost(t, stored)
	server.mustPost(t, generated("c", `{"title":"Third"}`, "")) // a duplicate
	if got := only(t, server, store.Content).GetString("title"); got != "Second" {
		t.Fatalf("title: got %q", got)
	}
	if got := onlyPayload(t, server).Payload; got != stored {
		t.Errorf("got %s, want what the record was made of", got)
	}
	if _, err := server.AuxNonconcurrentDB().NewQuery("DELETE FROM modelriverPayloads").Execute(); err != nil {
		t.Fatal(err)
	}
	server.mustPost(t, stored)
	if n := len(payloadsOf(t, server)); n != 0 {
		t.Errorf("of a duplicate: got %d payloads, want none", n)
	}
}

func TestKeptHeaders(t *testing.T) {
	t.Parallel()
	many := http.Header{}
	for i := range 50 {
		many.Set(fmt.Sprintf("mr-%02d", i), "x")
	}
	for _, row := range []struct {
		name   string
		header http.Header
		want   string
	}{
		{"none", http.Header{}, `{}`},
		{"in the spelling of the documentation", http.Header{"Mr-Timestamp": {"1"}, "X-Modelriver-Callback-Url": {"u"}, "Content-Type": {"application/json"}},
			`{"Content-Type":"application/json","mr-timestamp":"1","X-ModelRiver-Callback-Url":"u"}`},
		{"no others", http.Header{"Cookie": {"c"}, "Authorization": {"a"}, "X-Forwarded-For": {"f"}, "Mrs": {"m"}}, `{}`},
		{"8 characters of a signature", http.Header{"Mr-Signature": {"0123456789abcdef"}, "X-Modelriver-Signature": {"fedcba9876543210"}, "Mr-Old-Signature": {"0123456789"}},
			`{"mr-old-signature":"01234567…","mr-signature":"01234567…","X-ModelRiver-Signature":"fedcba98…"}`},
		{"twice", http.Header{"Mr-A": {"1", "2"}}, `{"mr-a":"1, 2"}`},
		{"long values and names", http.Header{"Mr-A": {strings.Repeat("é", 600)}, "Mr-" + strings.Repeat("b", 200): {"x"}},
			`{"mr-a":"` + strings.Repeat("é", 512) + `…"}`},
		{"no text", http.Header{"Mr-A": {"\xff<"}}, `{"mr-a":"\ufffd<"}`},
	} {
		if got := keptHeaders(row.header); got != row.want && got != strings.ReplaceAll(row.want, `\ufffd`, "\ufffd") {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
	if got := strings.Count(keptHeaders(many), ":"); got != maxHeaders {
		t.Errorf("of 50: got %d, want %d", got, maxHeaders)
	}
}

func TestPayloadRetention(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for _, row := range []struct {
		name      string
		retention time.Duration
		ages      []time.Duration // of payloads
		stay      int
	}{
		{"by default for 7 days", 0, []time.Duration{time.Hour, 7*day - time.Hour, 7*day + time.Hour, 90 * day}, 2},
		{"as set", 2 * time.Hour, []time.Duration{time.Hour, 3 * time.Hour}, 1},
		{"none when they are switched off", KeepNoPayloads, []time.Duration{time.Minute, day}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := testConfig()
			config.PayloadRetention = row.retention
			server := newTestServer(t, config)
			server.mustPost(t, generated("c", `{}`, ""))
			server.plugin.payloads.write()
			for i, age := range row.ages {
				insertPayload(t, server, fmt.Sprintf("payload%08d", i), time.Now().Add(-age))
			}
			want := row.stay
			if row.retention != KeepNoPayloads {
				want++
			}
			deleteOld(server)
			if got := len(payloadsOf(t, server)); got != want {
				t.Errorf("got %d payloads, want %d", got, want)
			}
			if got, want := len(records(t, server, store.Content)), len(row.ages)+1; got != want {
				t.Errorf("got %d records, want %d", got, want)
			}
		})
	}
}

// insertPayload inserts a payload that came at a time, and its record.
func insertPayload(t testing.TB, app core.App, id string, came time.Time) {
	t.Helper()
	if _, err := app.NonconcurrentDB().Insert(store.Content, dbx.Params{"id": id}).Execute(); err != nil {
		t.Fatal(err)
	}
	if err := store.InsertPayloads(app, []*store.Payload{{Id: id, Came: came, Payload: []byte("{}"), Headers: "{}", Scheme: "body"}}); err != nil {
		t.Fatal(err)
	}
}

// A payloadRow is what is kept of one webhook.
type payloadRow struct {
	Id      string         `db:"id"`
	Scheme  string         `db:"scheme"`
	Size    int            `db:"size"`
	Created types.DateTime `db:"created"`
	Headers string         `db:"headers"`
	Payload string         `db:"payload"`
}

// payloadsOf returns what is kept of all webhooks that were answered, oldest first.
func payloadsOf(t testing.TB, server *testServer) (rows []payloadRow) {
	t.Helper()
	server.plugin.payloads.write() // however long that takes
	if !server.AuxHasTable(store.Payloads) {
		return nil
	}
	if err := server.AuxConcurrentDB().NewQuery("SELECT * FROM modelriverPayloads ORDER BY created, id").All(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func onlyPayload(t testing.TB, server *testServer) payloadRow {
	t.Helper()
	rows := payloadsOf(t, server)
	if len(rows) != 1 {
		t.Fatalf("got %d payloads, want 1", len(rows))
	}
	return rows[0]
}

// In a batch each webhook keeps its own, also when one of them is refused.
func TestPayloadsOfABatch(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	refuseSome(server)
	payloads := []string{generated("a", `{"title":"A"}`, ""), generated("b", `{"title":"Refused"}`, ""), generated("c", `{"title":"C"}`, "")}
	server.postTogether(t, payloads...)
	kept := map[string]string{}
	for _, row := range payloadsOf(t, server) {
		kept[row.Id] = row.Payload
	}
	for _, payload := range payloads {
		event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
		if err != nil || kept[recordId(event, []byte(payload))] != payload {
			t.Errorf("got %q, want %s", kept[recordId(event, []byte(payload))], payload)
		}
	}
}

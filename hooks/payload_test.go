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
	refuse := func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "Refused" {
			return errors.New("not this one")
		}
		return e.Next()
	}
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
			server.OnRecordCreate(store.Content).BindFunc(refuse)
			header := signed(t, row.scheme, row.payload, "User-Agent", "ModelRiver/1", "Authorization", "Bearer other")
			if status, body := server.post(t, row.payload, header); status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			kept := only(t, server, store.Payloads)
			if kept.GetString("payload") != row.payload || kept.GetInt("size") != len(row.payload) || kept.GetString("scheme") != row.scheme {
				t.Errorf("got %d bytes in scheme %q: %q, want %q", kept.GetInt("size"), kept.GetString("scheme"), kept.GetString("payload"), row.payload)
			}
			of := store.Content
			if row.refused {
				of = store.Callbacks
			}
			if row := only(t, server, of); row.Id != kept.Id || row.GetDateTime("created").Sub(kept.GetDateTime("created")).Abs() > 10*time.Second {
				t.Errorf("got %s of %s, want the id of %s", kept.Id, kept.GetString("created"), row.Id)
			}
			if headers := kept.GetString("headers"); !strings.Contains(headers, `"User-Agent":"ModelRiver/1"`) || strings.Contains(headers, "other") {
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
	if n := len(records(t, server, store.Payloads)); n != 0 {
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
	kept := only(t, server, store.Payloads)
	if got := kept.GetString("payload"); got != stored {
		t.Errorf("got %s, want what the record was made of", got)
	}
	if err := server.Delete(kept); err != nil {
		t.Fatal(err)
	}
	server.mustPost(t, stored)
	if n := len(records(t, server, store.Payloads)); n != 0 {
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
			for i, age := range row.ages {
				insertPayload(t, server, fmt.Sprintf("payload%08d", i), 10, time.Now().Add(-age))
			}
			server.mustPost(t, generated("c", `{}`, ""))
			want := row.stay
			if row.retention != KeepNoPayloads {
				want++
			}
			deleteOld(server)
			if got := len(records(t, server, store.Payloads)); got != want {
				t.Errorf("got %d payloads, want %d", got, want)
			}
			if got := len(records(t, server, store.Content)); got != 1 {
				t.Errorf("got %d records, want 1", got)
			}
		})
	}
}

func insertPayload(t testing.TB, app core.App, id string, size int, created time.Time) {
	t.Helper()
	_, err := app.NonconcurrentDB().Insert(store.Payloads, dbx.Params{
		"id": id, "scheme": "body", "size": size, "created": store.DateTime(created), "headers": "{}", "payload": strings.Repeat("x", size),
	}).Execute()
	if err != nil {
		t.Fatal(err)
	}
}

// Whoever deletes content deletes all of it, in every way that PocketBase has.
func TestPayloadGoesWithItsRecord(t *testing.T) {
	t.Parallel()
	truncate := func(collection string) func(*testing.T, *testServer) {
		return func(t *testing.T, server *testServer) {
			path := "/api/collections/" + collection + "/truncate"
			if status, body := server.call(t, superuserToken(t, server), http.MethodDelete, path, ""); status != 204 {
				t.Fatalf("truncate: got %d %s", status, body)
			}
		}
	}
	remove := func(collection string) func(*testing.T, *testServer) {
		return func(t *testing.T, server *testServer) {
			if err := server.Delete(only(t, server, collection)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name    string
		refused bool
		remove  func(*testing.T, *testServer)
		stay    [2]int // payloads and attempts
	}{
		{"a record is deleted", false, remove(store.Content), [2]int{0, 0}},
		{"all records are deleted", false, truncate(store.Content), [2]int{0, 0}},
		{"the callback of a record is deleted", false, remove(store.Callbacks), [2]int{1, 0}},
		{"all callbacks are deleted", false, truncate(store.Callbacks), [2]int{1, 0}},
		{"a refused event is deleted", true, remove(store.Callbacks), [2]int{0, 0}},
		{"the payloads are deleted", false, truncate(store.Payloads), [2]int{0, 1}},
		{"the attempts are deleted", false, truncate(store.Attempts), [2]int{1, 0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
				if row.refused {
					return errors.New("no")
				}
				return e.Next()
			})
			payload := generated("c", `{"title":"Secret"}`, rec.callbackURL("c"))
			server.mustPost(t, payload)
			awaitState(t, server, map[bool]string{true: store.Failed, false: store.Delivered}[row.refused])
			server.plugin.payloads.flush()
			row.remove(t, server)
			got := [2]int{len(records(t, server, store.Payloads)), len(attemptsOf(t, server))}
			if got != row.stay {
				t.Errorf("got %v payloads and attempts, want %v", got, row.stay)
			}
			server.mustPost(t, payload) // and webhooks are taken all the same
		})
	}
	t.Run("a deletion is undone", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		_ = server.RunInTransaction(func(tx core.App) error {
			if err := tx.Delete(only(t, tx, store.Content)); err != nil {
				t.Error(err)
			}
			return errors.New("undo")
		})
		only(t, server, store.Payloads)
	})
	t.Run("callbacks are deleted past the hooks", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("a", `{}`, rec.callbackURL("a")))
		awaitState(t, server, store.Delivered)
		if err := server.UnsafeWithoutHooks().Delete(only(t, server, store.Callbacks)); err != nil {
			t.Fatal(err)
		}
		server.mustPost(t, generated("b", `{}`, rec.callbackURL("b")))
		kept := awaitState(t, server, store.Delivered)
		deleteOld(server)
		if got := attemptsOf(t, server); len(got) != 1 || got[0].GetString("callback") != kept.Id {
			t.Errorf("got %d attempts, want that of %s", len(got), kept.Id)
		}
	})
	t.Run("a callback is too old", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
		row := awaitState(t, server, store.Delivered)
		setCallback(t, server, row.Id, dbx.Params{"deliveredAt": store.DateTime(time.Now().Add(-46 * 24 * time.Hour))})
		deleteOld(server)
		if got := [2]int{len(attemptsOf(t, server)), len(records(t, server, store.Payloads))}; got != [2]int{0, 1} {
			t.Errorf("got %v attempts and payloads, want none and 1", got)
		}
	})
}

// In a batch each webhook keeps its own, also when one of them is refused.
func TestPayloadsOfABatch(t *testing.T) {
	t.Parallel()
	server := newTestServer(t, testConfig())
	server.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "Refused" {
			return errors.New("no")
		}
		return e.Next()
	})
	payloads := []string{generated("a", `{"title":"A"}`, ""), generated("b", `{"title":"Refused"}`, ""), generated("c", `{"title":"C"}`, "")}
	server.postTogether(t, payloads...)
	kept := map[string]string{}
	for _, row := range records(t, server, store.Payloads) {
		kept[row.Id] = row.GetString("payload")
	}
	for _, payload := range payloads {
		event, err := modelriver.ParseEvent(http.Header{}, []byte(payload))
		if err != nil || kept[recordId(event, []byte(payload))] != payload {
			t.Errorf("got %q, want %s", kept[recordId(event, []byte(payload))], payload)
		}
	}
}

// Payloads are written behind the answers: by and by, for who looks at one, and when the server
// ends. What was deleted meanwhile is not kept.
func TestPayloadsAreWrittenBehind(t *testing.T) {
	t.Parallel()
	count := func(server *testServer) (n int) {
		if err := server.NonconcurrentDB().NewQuery("SELECT COUNT(*) FROM modelriverPayloads").Row(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Run("by and by", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		eventually(t, "they are written", func() bool { return count(server) == 1 })
	})
	t.Run("many at once", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		for i := range 3 {
			server.mustPost(t, generated(fmt.Sprint(i), `"`+strings.Repeat("x", payloadsSize)+`"`, ""))
		}
		eventually(t, "they are written", func() bool { return count(server) == 3 })
	})
	t.Run("for who looks", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		token := superuserToken(t, server)
		server.mustPost(t, generated("c", `{}`, ""))
		id := only(t, server, store.Content).Id
		if status, body := server.call(t, token, http.MethodGet, "/api/modelriver/deliveries/"+id, ""); status != 200 || !strings.Contains(body, `"payload":"{\"type`) {
			t.Errorf("got %d %s", status, body)
		}
	})
	t.Run("when the server ends", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		server.mustPost(t, generated("c", `{}`, ""))
		server.plugin.payloads.stop()
		if n := count(server); n != 1 {
			t.Errorf("got %d payloads, want 1", n)
		}
	})
	t.Run("not of what was deleted", func(t *testing.T) {
		t.Parallel()
		server := newTestServer(t, testConfig())
		release := hold(server.plugin.commits)
		server.plugin.payloads.add(&store.Payload{Id: "gone", Payload: []byte("{}"), Headers: "{}"})
		release()
		if n := len(records(t, server, store.Payloads)); n != 0 {
			t.Errorf("got %d payloads, want none", n)
		}
	})
}

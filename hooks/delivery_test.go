package hooks

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

type wholeDelivery struct {
	Delivery struct {
		Id, Title, State, Record string
		Attempts                 int
		Took                     *int64
	}
	Payload          *string
	Headers          map[string]string
	Scheme           string
	Size             int
	PayloadRetention int
	Callback         *struct{ URL, Host, Body, Created, Expires, State string }
	Timeline         []struct {
		At               string
		Status, Duration int
		Error, Answer    string
		ErrorCallback    bool
	}
	TimelineMissing int
}

// delivery returns the answer of the API, and its JSON.
func (s *testServer) delivery(t testing.TB, root, id string) (whole wholeDelivery, body string) {
	t.Helper()
	status, body := s.call(t, root, http.MethodGet, "/api/modelriver/deliveries/"+id, "")
	if status != 200 {
		t.Fatalf("got %d %s", status, body)
	}
	if err := json.Unmarshal([]byte(body), &whole); err != nil {
		t.Fatal(err)
	}
	return whole, body
}

// One delivery is told whole: what came, what was sent, and each attempt.
func TestDelivery(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerText(410, "gone"))
	server := newTestServer(t, testConfig())
	payload := generated("c", `{"title":"T"}`, rec.callbackURL("c"))
	if status, body := server.post(t, payload, signed(t, "body", payload, "User-Agent", "ModelRiver/1")); status != 200 {
		t.Fatalf("got %d %s", status, body)
	}
	row := awaitState(t, server, store.Failed)
	got, body := server.delivery(t, superuserToken(t, server), row.Id)
	if d := got.Delivery; d.Id != row.Id || d.Title != "T" || d.State != store.Failed || d.Record != row.Id || d.Attempts != 1 || d.Took != nil {
		t.Errorf("delivery: got %+v", d)
	}
	if got.Payload == nil || *got.Payload != payload || got.Size != len(payload) || got.Scheme != "body" || got.Headers["User-Agent"] != "ModelRiver/1" || got.PayloadRetention != 7*24*60*60 {
		t.Errorf("payload: got %s", body)
	}
	if cb := got.Callback; cb == nil || cb.URL != rec.callbackURL("c") || cb.Host != row.GetString("host") || cb.State != store.Failed ||
		cb.Body != rec.all()[0].body || cb.Created != row.GetString("created") || cb.Expires != row.GetString("expires") {
		t.Errorf("callback: got %s", body)
	}
	if len(got.Timeline) != 2 || got.TimelineMissing != 0 {
		t.Fatalf("timeline: got %s", body)
	}
	for i, attempt := range got.Timeline {
		if _, err := time.Parse("2006-01-02 15:04:05.000Z", attempt.At); err != nil || attempt.Status != 410 ||
			attempt.Error != "answered 410 Gone" || attempt.Answer != "gone" || attempt.ErrorCallback != (i == 1) {
			t.Errorf("attempt %d: got %+v", i, attempt)
		}
	}
	for _, field := range []string{`"delivery":{`, `"payload":"`, `"headers":{`, `"timelineMissing":0`, `"took":null`} {
		if !strings.Contains(body, field) {
			t.Errorf("got %s, want %s in it", body, field)
		}
	}
}

// What is not there is told as such.
func TestDeliveryLacks(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.PayloadRetention = KeepNoPayloads
	server := newTestServer(t, config)
	root := superuserToken(t, server)
	refuseSome(server)
	server.mustPost(t, generated("stored", `{}`, ""))
	record := only(t, server, store.Content)
	got, body := server.delivery(t, root, record.Id)
	if got.Payload != nil || got.Callback != nil || got.Delivery.State != store.Stored ||
		!strings.Contains(body, `"payload":null,"headers":null,"scheme":"","size":0,"callback":null,"timeline":[],"timelineMissing":0,"payloadRetention":0`) {
		t.Errorf("without payload and callback: got %s", body)
	}
	if err := server.Delete(record); err != nil {
		t.Fatal(err)
	}
	if got, body := server.delivery(t, root, record.Id); got.Callback != nil || got.Delivery.State != store.Deleted {
		t.Errorf("deleted: got %s", body)
	}

	refused := generated("refused", `{"title":"Refused"}`, "")
	server.mustPost(t, refused)
	row := records(t, server, store.Callbacks)[1]
	eventually(t, "there was nobody to tell", func() bool {
		row, _ = server.FindRecordById(store.Callbacks, row.Id)
		return row.GetString("state") == store.Failed
	})
	got, body = server.delivery(t, root, row.Id)
	if got.Payload == nil || *got.Payload != refused || got.Size != len(refused) || got.Headers != nil || got.Delivery.State != store.Refused || len(got.Timeline) != 0 || got.TimelineMissing != 0 {
		t.Errorf("refused: got %s, want the payload that is kept to be ingested again", body)
	}

	if status, body := server.call(t, root, http.MethodGet, "/api/modelriver/deliveries/nosuchdelivery0", ""); status != 404 || !strings.Contains(body, "no delivery") {
		t.Errorf("no such delivery: got %d %s", status, body)
	}
	_, token := newUser(t, server, "user@example.com")
	for name, token := range map[string]string{"a guest": "", "a user": token} {
		if status, body := server.call(t, token, http.MethodGet, "/api/modelriver/deliveries/"+row.Id, ""); status != 401 && status != 403 {
			t.Errorf("%s: got %d %s", name, status, body)
		}
	}
	if logs := logRows(t, server); strings.Contains(logs, "/api/modelriver/deliveries/"+record.Id) {
		t.Error("a look at a delivery is in the activity log")
	}
}

// What ModelRiver was told of a refused event are its attempts.
func TestDeliveryOfARefusedEvent(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	server := newTestServer(t, testConfig())
	server.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("no") })
	server.mustPost(t, generated("c", `{"title":"Refused"}`, rec.callbackURL("c")))
	row := awaitState(t, server, store.Failed)
	got, body := server.delivery(t, superuserToken(t, server), row.Id)
	if got.Delivery.State != store.Refused || got.Delivery.Title != "Refused" || got.Scheme != "body" || len(got.Headers) == 0 ||
		len(got.Timeline) != 1 || !got.Timeline[0].ErrorCallback || got.TimelineMissing != 0 {
		t.Errorf("got %s", body)
	}
}

// Attempts without a row are counted, those of this sending only, and not the one under way.
func TestDeliveryCountsMissingAttempts(t *testing.T) {
	t.Parallel()
	soon := store.DateTime(time.Now().Add(time.Hour))
	for _, row := range []struct {
		name string
		set  dbx.Params // on a row with one attempt that was delivered
		want int
	}{
		{"none", nil, 0},
		{"before an upgrade", dbx.Params{"attempts": 3}, 2},
		{"cut off by a crash, then failed", dbx.Params{"attempts": 2, "state": store.Failed}, 1},
		{"under way", dbx.Params{"attempts": 2, "state": store.Pending, "nextAttempt": soon}, 0},
		{"under way, and cut off before", dbx.Params{"attempts": 3, "state": store.Pending, "nextAttempt": soon}, 1},
		{"armed again, not sent yet", dbx.Params{"attempts": 0, "expires": soon, "state": store.Pending, "nextAttempt": soon}, 0},
		{"armed again, cut off", dbx.Params{"attempts": 1, "expires": soon, "state": store.Failed}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, nil)
			server := newTestServer(t, testConfig())
			server.mustPost(t, generated("c", `{}`, rec.callbackURL("c")))
			id := awaitState(t, server, store.Delivered).Id
			server.plugin.outbox.Stop()
			if row.set != nil {
				setCallback(t, server, id, row.set)
			}
			if got, body := server.delivery(t, superuserToken(t, server), id); got.TimelineMissing != row.want || len(got.Timeline) != 1 {
				t.Errorf("got %d missing of %s, want %d", got.TimelineMissing, body, row.want)
			}
		})
	}
}

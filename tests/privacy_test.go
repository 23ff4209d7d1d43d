package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pocketbase/dbx"
)

const (
	contentRecords  = "/api/collections/aiContent/records"
	callbackRecords = "/api/collections/modelriverCallbacks/records"

	privateMarker = "PRIVATE-c0ffee" // in all that others must not see
)

// A privacyRun is a server with a private and a public record, and those who look at it.
type privacyRun struct {
	*server
	db      *dbx.DB
	tokens  map[string]string // of "guest", "owner" and "other"
	owner   string            // the owner's id
	streams map[string]*stream
	records map[string]string // the ids of "private" and "public"
}

// What was made for a user is seen by that user alone, and callbacks by superusers.
func TestOthersSeeNothing(t *testing.T) {
	t.Parallel()
	run := startPrivacyRun(t)
	for _, who := range []string{"guest", "other"} {
		run.readsNothing(who)
		run.infersNothing(who)
		run.writesNothing(who)
		await(t, who+" gets the public record live", func() bool { return strings.Contains(run.streams[who].all(), "PUBLIC") })
		if got := run.streams[who].all(); strings.Contains(got, privateMarker) {
			t.Errorf("%s gets another's content live: %s", who, got)
		}
	}
	if got := countRows(t, run.db, "aiContent WHERE title = 'Evil'"); got != 0 {
		t.Errorf("%d records were written from outside", got)
	}

	// The control: the owner sees it everywhere.
	if _, answer := run.request(run.tokens["owner"], http.MethodGet, contentRecords+"/"+run.records["private"], ""); !strings.Contains(answer, privateMarker) {
		t.Errorf("the owner does not see their content: %s", answer)
	}
	await(t, "the owner gets it live", func() bool { return strings.Contains(run.streams["owner"].all(), privateMarker) })
	if strings.Contains(run.streams["owner"].all(), "modelriverCallbacks\"") {
		t.Error("the owner gets callbacks live")
	}
}

func startPrivacyRun(t *testing.T) *privacyRun {
	t.Helper()
	s := startServer(t, "")
	root := s.Superuser()
	s.API(root, http.MethodPatch, "/api/settings", map[string]any{"batch": map[string]any{"enabled": true, "maxRequests": 10, "timeout": 10}}, nil)
	run := &privacyRun{
		server: s, db: openDatabase(t, s.Dir), owner: s.user(root, "owner@example.com"),
		tokens: map[string]string{"guest": ""}, streams: map[string]*stream{}, records: map[string]string{},
	}
	s.user(root, "other@example.com")
	for _, name := range []string{"owner", "other"} {
		run.tokens[name] = s.SignIn("users", name+"@example.com", testPassword)
	}
	topics := []string{"aiContent/*", "aiContent", "modelriverCallbacks/*", `aiContent/*?options={"query":{"filter":"userId='` + run.owner + `'","expand":"modelriverCallbacks_via_record"}}`}
	for name, token := range run.tokens {
		run.streams[name] = subscribe(t, s, token, topics...)
	}

	receiver := newModelRiver(t, "", 1).newReceiver(answersEmpty)
	s.mustSend(fmt.Appendf(nil, `{"type":"task.ai_generated","channel_id":"private","callback_url":%q,"ai_response":{"data":{"title":%q}},"customer_data":{"user_id":%q}}`,
		receiver.url+"/"+privateMarker, privateMarker, run.owner))
	s.mustSend(fmt.Appendf(nil, `{"type":"task.ai_generated","channel_id":"public","callback_url":%q,"ai_response":{"data":{"title":"PUBLIC"}}}`,
		receiver.url+"/"+privateMarker))
	var list struct {
		Items []struct{ ID, ChannelID string }
	}
	s.API(root, http.MethodGet, contentRecords, nil, &list)
	for _, item := range list.Items {
		run.records[item.ChannelID] = item.ID
	}
	await(t, "both are delivered", func() bool { return countRows(t, run.db, "modelriverCallbacks WHERE state = 'delivered'") == 2 })
	return run
}

// readsNothing lists, views, filters and expands.
func (run *privacyRun) readsNothing(who string) {
	run.t.Helper()
	token, private, public, q := run.tokens[who], run.records["private"], run.records["public"], url.QueryEscape
	for _, path := range []string{
		contentRecords, contentRecords + "?perPage=500&sort=-created,-id", contentRecords + "?sort=userId", contentRecords + "?expand=modelriverCallbacks_via_record,userId",
		contentRecords + "/" + private, contentRecords + "/" + private + "?expand=modelriverCallbacks_via_record",
		contentRecords + "?filter=" + q(`userId="`+run.owner+`"`), contentRecords + "?filter=" + q(`title~"PRIVATE"`), contentRecords + "?filter=" + q(`channelId="private" || 1=1`),
		contentRecords + "?filter=" + q(`id="`+private+`"`), contentRecords + "?fields=*,expand&skipTotal=1",
		contentRecords + "/" + public + "?expand=modelriverCallbacks_via_record", contentRecords + "?filter=" + q(`channelId="public"`) + "&expand=modelriverCallbacks_via_record",
		callbackRecords, callbackRecords + "/" + public, callbackRecords + "/" + private, callbackRecords + "?filter=" + q(`state="delivered"`), callbackRecords + "?expand=record",
	} {
		if _, answer := run.request(token, http.MethodGet, path, ""); strings.Contains(answer, privateMarker) {
			run.t.Errorf("%s sees another's content in %s: %s", who, path, answer)
		}
	}
	if status, answer := run.request(token, http.MethodGet, contentRecords+"/"+private, ""); status != 404 {
		run.t.Errorf("%s: view: got %d %s, want 404", who, status, answer)
	}
	if status, answer := run.request(token, http.MethodGet, callbackRecords, ""); status != 403 {
		run.t.Errorf("%s: callbacks: got %d %s, want 403", who, status, answer)
	}
}

// infersNothing looks whether a filter tells what exists.
func (run *privacyRun) infersNothing(who string) {
	run.t.Helper()
	for filter, atMost := range map[string]int{
		`userId="` + run.owner + `"`:                             0,
		`modelriverCallbacks_via_record.url ~ "c0ffee"`:          0,
		`modelriverCallbacks_via_record.state ?= "delivered"`:    0,
		`@collection.modelriverCallbacks.state ?= "delivered"`:   0,
		`@collection.aiContent.title ?= "` + privateMarker + `"`: 0,
		`channelId = "private"`:                                  0,
		`id != ""`:                                               1,
	} {
		status, answer := run.request(run.tokens[who], http.MethodGet, contentRecords+"?filter="+url.QueryEscape(filter), "")
		var got struct{ TotalItems int }
		json.Unmarshal([]byte(answer), &got)
		if status == 200 && got.TotalItems > atMost {
			run.t.Errorf("%s: filter %s: got %d items, want at most %d: %s", who, filter, got.TotalItems, atMost, answer)
		}
	}
}

// writesNothing tries one by one and in a batch.
func (run *privacyRun) writesNothing(who string) {
	run.t.Helper()
	private, public := run.records["private"], run.records["public"]
	for _, change := range []struct{ method, path string }{
		{http.MethodPost, contentRecords}, {http.MethodPatch, contentRecords + "/" + public}, {http.MethodDelete, contentRecords + "/" + private},
		{http.MethodPost, callbackRecords}, {http.MethodPatch, callbackRecords + "/" + public}, {http.MethodPut, contentRecords},
	} {
		for _, batch := range []bool{false, true} {
			method, path, body := change.method, change.path, `{"id":"aaaaaaaaaaaaaaa","title":"Evil","state":"pending"}`
			if batch {
				body = fmt.Sprintf(`{"requests":[{"method":%q,"url":%q,"body":%s}]}`, method, path, body)
				method, path = http.MethodPost, "/api/batch"
			}
			status, answer := run.request(run.tokens[who], method, path, body)
			if status < 400 || strings.Contains(answer, privateMarker) {
				run.t.Errorf("%s: %s %s (batch %t): got %d %s", who, change.method, change.path, batch, status, answer)
			}
		}
	}
}

package hooks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Requests that ended are deleted when they are older than the retention, and channels when
// no answer can come any more; nobody is told of an answer that a request still waits for.
func TestRequestRetention(t *testing.T) {
	t.Parallel()
	app, _ := newTestApp(t, testConfig())
	for i, state := range []string{store.Queued, store.Sent, store.Answered, store.Failed} {
		for age, days := range map[string]int{"old": 46, "new": 44} {
			request := core.NewRecord(mustFindCollection(t, app, store.Requests))
			id := fmt.Sprintf("request%d%s0000", i, age)
			request.Load(map[string]any{"id": id, "workflow": "w", "input": map[string]any{}, "state": state, "channelId": "c" + id, "attempts": 1})
			if err := app.Save(request); err != nil {
				t.Fatal(err)
			}
			setRow(t, app, store.Requests, id, dbx.Params{"created": store.DateTime(time.Now().AddDate(0, 0, -days))})
		}
	}
	deleteOld(app)
	left := map[string]bool{}
	for _, request := range records(t, app, store.Requests) {
		left[request.GetString("state")+" "+request.Id[8:11]] = true
	}
	want := []string{"queued old", "queued new", "sent old", "sent new", "answered new", "failed new"}
	for _, name := range want {
		if !left[name] {
			t.Errorf("%s is deleted", name)
		}
	}
	channels := records(t, app, store.Channels)
	if len(left) != len(want) || len(channels) != 2 {
		t.Fatalf("left: got %v and %d channels, want %v and 2", left, len(channels), want)
	}
	month := dbx.Params{"created": store.DateTime(time.Now().AddDate(0, 0, -31))}
	setRow(t, app, store.Channels, channels[0].Id, month)
	open := dbx.Params{"created": month["created"], "expires": store.DateTime(time.Now().Add(time.Hour))}
	setRow(t, app, store.Channels, channels[1].Id, open)
	deleteOld(app)
	if kept := only(t, app, store.Channels); kept.Id != channels[1].Id {
		t.Errorf("kept %v, want the one whose answer may come", kept)
	}
}

func setRow(t testing.TB, app core.App, table, id string, set dbx.Params) {
	t.Helper()
	if _, err := app.NonconcurrentDB().Update(table, set, dbx.HashExp{"id": id}).Execute(); err != nil {
		t.Fatal(err)
	}
}

// Status counts requests, and says nothing of them where nobody asks.
func TestStatusCountsRequests(t *testing.T) {
	t.Parallel()
	server, _ := newAskServer(t, answerChannels)
	_, token := newUser(t, server, "asker@example.com")
	if out := mustRun(t, server.plugin, "status"); strings.Contains(out, "requests") {
		t.Errorf("got %s", out)
	}
	var ids []string
	for range 3 {
		id := server.mustAsk(t, token)
		awaitRequest(t, server, id, store.Sent)
		ids = append(ids, id)
	}
	server.mustPost(t, completed("c-"+ids[0], "T", ""))
	server.mustPost(t, fmt.Sprintf(`{"channel_id":"c-%s","status":"error"}`, ids[1]))
	awaitRequest(t, server, ids[0], store.Answered)
	awaitRequest(t, server, ids[1], store.Failed)
	wantLines(t, mustRun(t, server.plugin, "status"), `^open requests +1$`, `^failed requests +1$`, `^answered requests +1 +the median within `)
	wantLines(t, mustRun(t, server.plugin, "status", "--json"), `"open": 1,`, `"answered": 1,`)
}

// The doctor says who may ask, and whether anything limits that.
func TestDoctorOnAsking(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		rule   *string
		limits []core.RateLimitRule
		want   string
	}{
		{nil, nil, `^ok +asking +closed`},
		{types.Pointer(`@request.auth.id != ""`), nil, `^warning +asking +open without a limit`},
		{types.Pointer(`@request.auth.id != ""`), []core.RateLimitRule{{Label: "/api/", MaxRequests: 300, Duration: 10}}, `^warning +asking +open without a limit`},
		{types.Pointer(`@request.auth.id != ""`), []core.RateLimitRule{{Label: "aiRequests:create", MaxRequests: 5, Duration: 60}}, `^ok +asking +open, to 5 requests in 60s`},
		{types.Pointer(""), nil, `^warning +asking +everybody may ask`},
	} {
		app, p := newTestApp(t, testConfig()) // before it serves: PocketBase changes its settings without a lock
		requests := mustFindCollection(t, app, store.Requests)
		requests.CreateRule = row.rule
		if err := app.Save(requests); err != nil {
			t.Fatal(err)
		}
		app.Settings().RateLimits.Rules = row.limits
		app.Settings().RateLimits.Enabled = row.limits != nil
		if err := app.Save(app.Settings()); err != nil {
			t.Fatal(err)
		}
		server := serve(t, app, p)
		wantLines(t, mustRun(t, doctorFor(t, server), "doctor", "--url", server.url+"/webhooks/modelriver"), row.want)
	}
}

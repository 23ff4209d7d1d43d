package hooks

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// newDeliveriesServer returns a server that has stored one webhook, whose callback was
// accepted, and then refused another.
func newDeliveriesServer(t *testing.T) *testServer {
	t.Helper()
	r := newReceiver(t, answerStatus(http.StatusOK))
	s := newTestServer(t, testConfig())
	s.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if strings.Contains(e.Record.GetString("title"), "Refuse") {
			return errors.New("not this one")
		}
		return e.Next()
	})
	for channel, data := range map[string]string{"stored": `{"title":"The River"}`, "refused": `{"title":"Refuse the 100% river"}`} {
		payload := generated(channel, data, r.callbackURL(channel))
		payload = strings.TrimSuffix(payload, "}") + `,"customer_data":{"category":"` + channel + `","user_id":"u1"}}`
		s.mustPost(t, payload)
	}
	eventually(t, "no callback is pending", func() bool {
		return !slices.ContainsFunc(records(t, s, store.Callbacks), func(row *core.Record) bool { return row.GetString("state") == store.Pending })
	})
	s.plugin.payloads.write()
	return s
}

// listed returns the titles that a query of the list answers with, and the rest of the
// answer.
func (s *testServer) listed(t *testing.T, token, query string) (titles []string, body map[string]any) {
	t.Helper()
	status, body := s.get(t, "/api/modelriver/deliveries?"+query, token)
	if status != http.StatusOK {
		t.Fatalf("%s: got %d %v", query, status, body)
	}
	for _, item := range body["items"].([]any) {
		titles = append(titles, item.(map[string]any)["title"].(string))
	}
	slices.Sort(titles)
	return titles, body
}

func TestDeliveriesRoute(t *testing.T) {
	t.Parallel()
	s := newDeliveriesServer(t)
	root := superuserToken(t, s)
	stored := only(t, s, store.Content)
	both, river, refused := "Refuse the 100% river,The River", "The River", "Refuse the 100% river"
	for query, want := range map[string]string{
		"": both, "limit=200": both, "state=delivered": river, "state=failed": refused, "state=refused": refused, "state=waiting": "",
		"event=new_content": both, "event=other": "", "category=refused": refused, "category=stored&state=failed": "", "user=u1": both,
		"search=RIVER": both, "search=%25": refused, "search=refused": refused, "search=stored": river, "search=" + stored.Id: river,
		"from=2020-01-01T00:00:00%2B02:00": both, "to=2020-01-01T00:00:00Z": "", "from=2999-01-01T00:00:00Z": "",
	} {
		if titles, _ := s.listed(t, root, query); strings.Join(titles, ",") != want {
			t.Errorf("%s: got %q, want %q", query, titles, want)
		}
	}

	_, body := s.listed(t, root, "state=delivered")
	item := body["items"].([]any)[0].(map[string]any)
	date := regexp.MustCompile(`^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z$`)
	for key, want := range map[string]any{
		"id": stored.Id, "title": "The River", "event": "new_content", "category": "stored", "userId": "u1", "channelId": "stored", "record": stored.Id,
		"state": "delivered", "attempts": 1.0, "lastStatus": 200.0, "lastError": "", "nextAttempt": "",
	} {
		if item[key] != want {
			t.Errorf("%s: got %v, want %v", key, item[key], want)
		}
	}
	took, isNumber := item["took"].(float64)
	if len(item) != 15 || !isNumber || took < 0 || !date.MatchString(item["created"].(string)) || !date.MatchString(item["deliveredAt"].(string)) {
		t.Errorf("got %v, want 15 members, dates and a time", item)
	}
	if body["next"] != "" || body["searchedTo"] != "" {
		t.Errorf("got %v, want no next page", body)
	}

	first, body := s.listed(t, root, "limit=1")
	second, last := s.listed(t, root, "limit=1&after="+url.QueryEscape(body["next"].(string)))
	if both := append(first, second...); len(both) != 2 || both[0] == both[1] || last["next"] != "" {
		t.Errorf("two pages of one: got %q, next %q", both, last["next"])
	}
}

func TestDeliveriesRouteRefuses(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	root := superuserToken(t, s)
	for query, remedy := range map[string]string{
		"state=pending": "waiting, delivered, failed or refused", "from=yesterday": "from must be a date as in 2026-01-31T00:00:00Z",
		"to=2026-01-01": "to must be a date as in", "limit=0": "from 1 to 200", "limit=201": "from 1 to 200", "limit=x": "from 1 to 200",
		"after=x": "next of the page before",
	} {
		status, body := s.get(t, "/api/modelriver/deliveries?"+query, root)
		if message, _ := body["message"].(string); status != 400 || body["status"] != 400.0 || body["data"] == nil || !strings.Contains(message, remedy) {
			t.Errorf("%s: got %d %v, want 400 in PocketBase's shape and %q", query, status, body, remedy)
		}
	}
	_, user := newUser(t, s, "ann@example.com")
	for token, want := range map[string]int{"": 401, "nonsense": 401, user: 403, root: 200} {
		if status, _ := s.get(t, "/api/modelriver/deliveries", token); status != want {
			t.Errorf("got %d, want %d", status, want)
		}
	}
}

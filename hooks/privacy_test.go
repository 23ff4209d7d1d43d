package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

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

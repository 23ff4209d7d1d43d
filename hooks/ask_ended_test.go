package hooks

import (
	"net/http"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// What ended a request by hand says nothing of other content: what is public stays public
// once it is known that no answer of unknown owner can come.
func TestRequestsEndedByHandHideNothing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		hangs bool // the request is ended while it is sent, and ModelRiver refuses it then
		end   func(app core.App, request *core.Record) error
	}{
		"a sent one is set to failed":           {end: fail},
		"one is set to failed while it is sent": {hangs: true, end: fail},
		"one is deleted while it is sent": {hangs: true, end: func(app core.App, request *core.Record) error {
			return app.Delete(request)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, refuse := make(chan struct{}, 1), make(chan struct{})
			server, _ := newAskServer(t, func(w http.ResponseWriter, r *http.Request) {
				if !row.hangs {
					answerChannels(w, r)
					return
				}
				asked <- struct{}{}
				<-refuse
				w.WriteHeader(http.StatusBadRequest)
			})
			_, token := newUser(t, server, "asker@example.com")
			id := server.mustAsk(t, token)
			if row.hangs {
				<-asked
			} else {
				awaitRequest(t, server, id, store.Sent)
			}
			request, err := server.FindRecordById(store.Requests, id)
			if err != nil {
				t.Fatal(err)
			}
			if err := row.end(server, request); err != nil {
				t.Fatal(err)
			}
			close(refuse)
			eventually(t, "nothing is open", func() bool {
				var open int
				err := server.DB().NewQuery(`SELECT (SELECT COUNT(*) FROM aiRequests WHERE state = 'failed' AND channelId = '' AND expires != '')
					+ (SELECT COUNT(*) FROM modelriverChannels WHERE channelId = '')`).Row(&open)
				return err == nil && open == 0
			})
			server.mustPost(t, completed("public", "Public", ""))
			if owner := contentOf(t, server, "public").GetString("userId"); owner != "" {
				t.Errorf("public content belongs to %q", owner)
			}
		})
	}
}

func fail(app core.App, request *core.Record) error {
	request.Set("state", store.Failed)
	return app.Save(request)
}

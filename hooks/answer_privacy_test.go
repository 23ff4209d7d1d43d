package hooks

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// secretMarker is in all that others than the asker must not see.
const secretMarker = "SECRET-c0ffee"

// A request and its answer are private at each moment: also while it is not known whose the
// answer is, as it has overtaken ModelRiver's own answer, and when that never came.
func TestAnswersArePrivateAtEachMoment(t *testing.T) {
	t.Parallel()
	echo := func(id string) string { return fmt.Sprintf(`,"customer_data":{"request_id":%q}`, id) }
	for name, row := range map[string]struct {
		customer func(id string) string // of the webhook; nil tells nothing
		status   int                    // the webhook is answered while the request is being sent
		outcome  http.HandlerFunc
		shown    bool // to the asker, in the end
	}{
		"overtaking":                   {nil, 503, func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c") }, true},
		"overtaking, with the id":      {echo, 200, func(w http.ResponseWriter, _ *http.Request) { answerChannel(w, "c") }, true},
		"outcome unknown":              {nil, 503, answerStatus(504), false},
		"outcome unknown, with the id": {echo, 200, answerStatus(504), true},
		"cut off":                      {nil, 503, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
		"refused, and answered all the same": {nil, 503, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, `{"channel_id":"c"}`)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer, began, let := held(t)
			server, _ := newAskServer(t, answer)
			looks := newSecretLooks(t, server)
			asker, token := newUser(t, server, "asker@example.com")
			status, body := server.call(t, token, http.MethodPost, requestsPath, `{"workflow":"story","input":{"q":"`+secretMarker+`"}}`)
			if status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			id := <-began
			looks.look("being sent")

			customer := ""
			if row.customer != nil {
				customer = row.customer(id)
			}
			webhook := fmt.Sprintf(`{"type":"task.completed","channel_id":"c","data":{"title":%q}%s}`, secretMarker, customer)
			if status, body := server.post(t, webhook, nil); status != row.status {
				t.Errorf("while it is sent: got %d %s, want %d", status, body, row.status)
			}
			looks.look("overtaken")
			let <- row.outcome
			awaitAttempts(t, server)
			server.mustPost(t, webhook)
			looks.look("stored")
			want := store.Unmatched // for superusers only
			if row.shown {
				want = asker.Id
				seenOnlyBy(t, server, "c", token)
			}
			if owner := contentOf(t, server, "c").GetString("userId"); owner != want {
				t.Errorf("the answer belongs to %q, want %q", owner, want)
			}
			looks.lookLive()
		})
	}
}

// secretLooks are those who must not see what somebody asked.
type secretLooks struct {
	t       *testing.T
	server  *testServer
	tokens  map[string]string
	streams map[string]*apptest.Stream
}

func newSecretLooks(t *testing.T, server *testServer) *secretLooks {
	t.Helper()
	_, other := newUser(t, server, "other@example.com")
	l := &secretLooks{t: t, server: server, tokens: map[string]string{"a guest": "", "another user": other}, streams: map[string]*apptest.Stream{}}
	for name, token := range l.tokens {
		l.streams[name] = server.Subscribe(t, token, "aiContent/*", "aiRequests/*", "modelriverChannels/*", "modelriverAttempts/*",
			`aiContent/*?options={"query":{"filter":"userId != ''","expand":"aiRequests_via_record"}}`)
	}
	return l
}

// look lists, filters, sorts and expands.
func (l *secretLooks) look(moment string) {
	l.t.Helper()
	q := url.QueryEscape
	for name, token := range l.tokens {
		for _, path := range []string{
			"aiContent/records?expand=aiRequests_via_record&sort=-created", "aiRequests/records?expand=record&sort=-userId",
			"aiContent/records?filter=" + q(`userId ~ "unmatched"`), "aiContent/records?filter=" + q(`channelId = "c" || 1 = 1`),
			"aiContent/records?filter=" + q(`aiRequests_via_record.state ?= "answered"`), "aiRequests/records?filter=" + q(`state != ""`),
			"aiRequests/records?filter=" + q(`record.title ~ "SECRET"`), "aiContent/records?filter=" + q(`@collection.aiRequests.input ~ "SECRET"`),
			"users/records?filter=" + q(`@collection.aiContent.title ~ "SECRET"`), "modelriverChannels/records", "modelriverCallbacks/records", "modelriverAttempts/records",
		} {
			status, list := l.server.get(l.t, "/api/collections/"+path, token)
			if items, _ := list["items"].([]any); status == 200 && len(items) > 0 || strings.Contains(fmt.Sprint(list), secretMarker) {
				l.t.Errorf("%s: %s sees in %s: %d %v", moment, name, path, status, list)
			}
		}
	}
}

// lookLive looks at what came live until something public has come.
func (l *secretLooks) lookLive() {
	l.t.Helper()
	l.server.mustPost(l.t, completed("someone", "Ends", `{"user_id":"someoneelse0000"}`))
	super := superuserToken(l.t, l.server)
	if status, body := l.server.call(l.t, super, http.MethodPost, "/api/collections/aiContent/records", `{"title":"PUBLIC"}`); status != 200 {
		l.t.Fatalf("got %d %s", status, body)
	}
	for name, stream := range l.streams {
		var seen string
		eventually(l.t, name+" gets what is public live", func() bool {
			seen += strings.Join(stream.Take(), "\n")
			return strings.Contains(seen, "PUBLIC")
		})
		if strings.Contains(seen, secretMarker) {
			l.t.Errorf("%s sees live: %s", name, seen)
		}
	}
}

package simulator

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// The webhook overtakes the answer that tells its channel, and does not wait for its own
// success: a server that cannot match it yet may want it again.
func TestEarlyWebhook(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			target := startTarget(t, status)
			sim := startSimulator(t, target.URL, func(s *simulator) {
				s.options.Event, s.options.Speed = "", 1
				s.options.Delay = 50 * time.Millisecond
				s.options.Answer = []string{"early"}
			})
			_, answer := sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
			taken := target.taken()
			if len(taken) != 1 || taken[0].ChannelID != answer["channel_id"] {
				t.Errorf("when the request was answered: got webhooks %v, want one of channel %v", taken, answer["channel_id"])
			}
		})
	}
}

func TestWebhookTwice(t *testing.T) {
	t.Parallel()
	for event, second := range map[string]string{"": "second", "written": "written_second"} {
		t.Run(second, func(t *testing.T) {
			t.Parallel()
			target := startTarget(t, http.StatusOK)
			sim := startSimulator(t, target.URL, func(s *simulator) {
				s.options.Event = event
				s.options.Answer = []string{"twice:every=2"}
			})
			sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
			_, answer := sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`)
			apptest.Eventually(t, "all webhooks come", func() bool { return len(target.taken()) == 4 })
			var names []string
			for _, got := range target.taken() {
				if got.ChannelID == answer["channel_id"] {
					names = append(names, got.Name)
				}
			}
			if want := fmt.Sprint([]string{event, event, second}); fmt.Sprint(names) != want {
				t.Errorf("events of the second request: got %q, want %s", names, want)
			}
		})
	}
}

func TestWebhookNever(t *testing.T) {
	t.Parallel()
	target := startTarget(t, http.StatusOK)
	sim := startSimulator(t, target.URL, func(s *simulator) { s.options.Answer = []string{"early", "never"} })
	if _, answer := sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`); answer["channel_id"] == nil {
		t.Errorf("got %v, want a channel", answer)
	}
	sim.await(t, ` unanswered +no webhook is sent`)
	sim.wantStatus(t, map[string]any{"posts": 1.0, "generations": 1.0, "unanswered": 1.0})
	if n := len(target.taken()); n != 0 {
		t.Errorf("webhooks: got %d, want none", n)
	}
}

// What tells of an error is signed in each scheme, holds no answer, and wants no callback.
func TestErrorWebhook(t *testing.T) {
	t.Parallel()
	for _, scheme := range modelriver.Schemes() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			target := startTarget(t, http.StatusOK)
			sim := startSimulator(t, target.URL, func(s *simulator) {
				s.options.Scheme = scheme
				s.options.Answer = []string{"error"}
			})
			sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w","user_id":"u1"}`)
			sim.await(t, ` error +the webhook tells of it`)
			got := target.taken()[0]
			if got.Stores() || got.CallbackURL != "" || got.ChannelID == "" || got.UserID != "u1" {
				t.Errorf("got %+v, want no AI data and no callback, but whose it is", got.Event)
			}
			signed := rawjson.OptionalMembers(got.payload)
			if scheme == "data" {
				signed = rawjson.OptionalMembers(signed["data"])
			}
			if rawjson.Text(signed["status"]) != "error" || rawjson.Text(rawjson.OptionalMembers(signed["error"])["message"]) == "" {
				t.Errorf("got %s, want a status and the error's message in what is signed", got.payload)
			}
			sim.wantStatus(t, map[string]any{"posts": 1.0, "generations": 1.0, "error": 1.0})
		})
	}
}

// Only what is posted costs money.
func TestOwnRequestsAreNoGenerations(t *testing.T) {
	t.Parallel()
	target := startTarget(t, http.StatusOK)
	sim := startSimulator(t, target.URL, func(s *simulator) {
		s.options.Event, s.options.Every = "", time.Hour
	})
	sim.await(t, ` completed `)
	sim.wantStatus(t, map[string]any{"posts": 0.0, "generations": 0.0, "completed": 1.0})
	sim.call(t, "/v1/ai/async", "nope", `{}`)
	sim.wantStatus(t, map[string]any{"posts": 1.0, "generations": 0.0, "completed": 1.0})
}

package simulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		rules []string
		want  string // of requests 1 to 6
	}{
		{nil, "[] [] [] [] [] []"},
		{[]string{"a"}, "[a] [a] [a] [a] [a] [a]"},
		{[]string{"a:first=2"}, "[a] [a] [] [] [] []"},
		{[]string{"a:every=3"}, "[] [] [a] [] [] [a]"},
		{[]string{"b:every=2", "a:first=2"}, "[a] [b a] [] [b] [] [b]"},
	} {
		var got []string
		for number := 1; number <= 6; number++ {
			got = append(got, fmt.Sprint(fitting(row.rules, number)))
		}
		if got := strings.Join(got, " "); got != row.want {
			t.Errorf("%q: got %s, want %s", row.rules, got, row.want)
		}
	}
	for text, problem := range map[string]string{
		"late": "use one of early, twice, never, error", "": "use one of", "never:": "never:first=2", "never:2": "never:first=2",
		"never:first=0": "never:first=2", "never:last=1": "never:first=2", "never:every=x": "never:every=3",
	} {
		if err := checkRules("--answer", []string{"early", text}, answerWays); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: got %v, want an error with %q", text, err, problem)
		}
	}
}

// A request that fails generates nothing, and the next one is as usual.
func TestFailingRequests(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		way        string
		status     int
		retryAfter string
	}{
		{"401", 401, ""}, {"402", 402, ""}, {"429", 429, "1"}, {"500", 500, ""}, {"503", 503, "1"}, {"error", 200, ""},
	} {
		t.Run(row.way, func(t *testing.T) {
			t.Parallel()
			target := startTarget(t, http.StatusOK)
			sim := startSimulator(t, target.URL, func(s *simulator) {
				s.options.Event = ""
				s.options.Fail = []string{row.way + ":first=1"}
			})
			response := sim.post(t)
			answer := decode(t, response)
			if object, _ := answer["error"].(map[string]any); object["message"] == "" || object["message"] == nil || answer["channel_id"] != nil {
				t.Errorf("answer: got %v, want an error with a message and no channel", answer)
			}
			if got := response.Header.Get("Retry-After"); response.StatusCode != row.status || got != row.retryAfter {
				t.Errorf("got %d, Retry-After %q; want %d, %q", response.StatusCode, got, row.status, row.retryAfter)
			}
			sim.await(t, fmt.Sprintf(` refused +%d: as --fail %s asks for$`, row.status, row.way))

			if _, answer := sim.call(t, "/v1/ai/async", testKey, `{"workflow":"w"}`); answer["channel_id"] == nil {
				t.Errorf("the second request: got %v, want a channel", answer)
			}
			sim.await(t, ` completed `)
			sim.wantStatus(t, map[string]any{"posts": 2.0, "generations": 1.0, "completed": 1.0})
			if n := len(target.taken()); n != 1 {
				t.Errorf("webhooks: got %d, want 1", n)
			}
		})
	}
}

// What cost the user money may have no answer.
func TestCutRequest(t *testing.T) {
	t.Parallel()
	target := startTarget(t, http.StatusOK)
	sim := startSimulator(t, target.URL, func(s *simulator) {
		s.options.Event = ""
		s.options.Fail = []string{"429:first=1", "cut"}
	})
	if response := sim.post(t); response.StatusCode != 429 {
		t.Errorf("the first rule that fits: got %d, want 429", response.StatusCode)
	}
	response, err := http.DefaultClient.Do(sim.request(t))
	if err == nil {
		t.Errorf("got %d, want no answer", response.StatusCode)
	}
	sim.await(t, ` completed `)
	sim.wantStatus(t, map[string]any{"posts": 2.0, "generations": 1.0, "completed": 1.0})
}

// The flags' help and errors name all that there is.
func TestFailWays(t *testing.T) {
	t.Parallel()
	if want := []string{"401", "402", "429", "500", "503", "error", "cut"}; !slices.Equal(failWays(), want) {
		t.Errorf("got %q, want %q", failWays(), want)
	}
}

package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// unsigned is the header of a webhook with another's signature.
var unsigned = http.Header{"Mr-Signature": {strings.Repeat("0", 64)}}

// loggedRejections returns the counts of the rows that the log has of rejected
// webhooks, oldest first.
func loggedRejections(t testing.TB, app core.App) []int {
	t.Helper()
	logRows(t, app) // writes what is held back
	var counts []int
	err := app.AuxDB().NewQuery("SELECT json_extract(data, '$.count') FROM _logs WHERE message = '" + store.RejectedMessage + "' ORDER BY created, rowid").Column(&counts)
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

// newRejectingServer returns a server that tells of rejections as often as every says,
// and has rejected n webhooks.
func newRejectingServer(t testing.TB, every time.Duration, n int) *testServer {
	t.Helper()
	app, p := newTestApp(t, testConfig())
	p.rejected.every = every
	app.Settings().Logs.MaxDays = 5 // the test app keeps none
	s := serve(t, app, p)
	for range n {
		if status, _ := s.post(t, "x", unsigned); status != 401 {
			t.Fatalf("answer: got %d, want 401", status)
		}
	}
	return s
}

func TestRejectionsAreCountedInTheLog(t *testing.T) {
	t.Parallel()
	t.Run("the first at once, the others not each", func(t *testing.T) {
		t.Parallel()
		s := newRejectingServer(t, time.Hour, 5)
		if got := fmt.Sprint(loggedRejections(t, s)); got != "[1]" {
			t.Errorf("counts: got %s, want [1]", got)
		}
	})
	t.Run("the others when their time ends, though no webhook comes", func(t *testing.T) {
		t.Parallel()
		s := newRejectingServer(t, 10*time.Millisecond, 5)
		eventually(t, "5 are counted", func() bool {
			sum := 0
			for _, n := range loggedRejections(t, s) {
				sum += n
			}
			return sum == 5
		})
	})
	t.Run("the others when the server ends", func(t *testing.T) {
		t.Parallel()
		s := newRejectingServer(t, time.Hour, 5)
		event := &core.TerminateEvent{App: s}
		if err := s.OnTerminate().Trigger(event, func(*core.TerminateEvent) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(loggedRejections(t, s)); got != "[1 4]" {
			t.Errorf("counts: got %s, want [1 4]", got)
		}
	})
	t.Run("nothing when there was none", func(t *testing.T) {
		t.Parallel()
		s := newRejectingServer(t, time.Millisecond, 0)
		s.mustPost(t, generated("c", `{"title":"T"}`, ""))
		s.plugin.rejected.stop(s)
		if got := loggedRejections(t, s); len(got) != 0 {
			t.Errorf("counts: got %v, want none", got)
		}
	})
}

// Whatever keeps a webhook out unread, the operator learns why, and what to do.
func TestRejectionsSayWhy(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		config  func(*Config)
		payload string
		header  http.Header
		answer  int
		wants   []string
	}{
		{"another secret", nil, "x", unsigned, 401, []string{"signature does not match", "MODELRIVER_WEBHOOK_SECRET"}},
		{"no signature", nil, "x", http.Header{}, 401, []string{"no signature header", "proxy"}},
		{"no secret", func(c *Config) { c.WebhookSecrets = nil }, "x", unsigned, 503, []string{"no webhook secret", "MODELRIVER_WEBHOOK_SECRET"}},
		{"too large", func(c *Config) { c.MaxBodySize = 10 }, strings.Repeat("x", 11), unsigned, 413, []string{"larger than 10 bytes", "MaxBodySize"}},
		{"compressed", nil, "x", http.Header{"Content-Encoding": {"gzip"}}, 415, []string{"compressed", "proxy"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			config := testConfig()
			if row.config != nil {
				row.config(&config)
			}
			s := newTestServer(t, config)
			s.Settings().Logs.MaxDays = 5
			if status, body := s.post(t, row.payload, row.header); status != row.answer {
				t.Fatalf("answer: got %d %s, want %d", status, body, row.answer)
			}
			s.plugin.rejected.settle(t, s)
			logs := logRows(t, s)
			out := mustRun(t, s.plugin, "status")
			_, stats := s.get(t, "/api/modelriver/stats", superuserToken(t, s))
			shown, _ := json.Marshal(stats["rejected"])
			for _, want := range row.wants {
				for where, text := range map[string]string{"the log": logs, "status": out, "the dashboard": string(shown)} {
					if !strings.Contains(text, want) {
						t.Errorf("%s lacks %q: %s", where, want, text)
					}
				}
			}
			wantLines(t, out, `^rejected +1 +in the last 24 hours, last `)
			if !strings.Contains(string(shown), `"count":1`) {
				t.Errorf("the dashboard's figures: got %s, want a count of 1", shown)
			}
		})
	}
}

func TestStatusOfRejections(t *testing.T) {
	t.Parallel()
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		out := mustRun(t, newRejectingServer(t, time.Hour, 0).plugin, "status")
		wantLines(t, out, `^rejected +0$`)
		if strings.Contains(out, "Rejected webhooks:") {
			t.Errorf("got %s", out)
		}
	})
	t.Run("only of the last day", func(t *testing.T) {
		t.Parallel()
		s := newRejectingServer(t, time.Hour, 1)
		s.plugin.rejected.settle(t, s)
		old := store.DateTime(time.Now().Add(-25 * time.Hour))
		if _, err := s.NonconcurrentDB().NewQuery("UPDATE modelriverRejections SET last = '" + old.String() + "'").Execute(); err != nil {
			t.Fatal(err)
		}
		wantLines(t, mustRun(t, s.plugin, "status"), `^rejected +0$`)
	})
	for name, change := range map[string]func(*core.Settings){
		"while the log is off":              func(s *core.Settings) { s.Logs.MaxDays = 0 },
		"while the log leaves warnings out": func(s *core.Settings) { s.Logs.MinLevel = 8 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRejectingServer(t, time.Hour, 0)
			change(s.Settings())
			s.post(t, "x", unsigned)
			s.plugin.rejected.settle(t, s)
			wantLines(t, mustRun(t, s.plugin, "status"), `^rejected +1 +in the last 24 hours, last `)
		})
	}
	t.Run("unknown beside the server of an earlier release", func(t *testing.T) {
		t.Parallel()
		s := newRejectingServer(t, time.Hour, 0)
		if _, err := s.NonconcurrentDB().NewQuery("DROP TABLE modelriverRejections").Execute(); err != nil {
			t.Fatal(err)
		}
		wantLines(t, mustRun(t, s.plugin, "status"), `^rejected +- +unknown: `)
		var report map[string]any
		if err := json.Unmarshal([]byte(mustRun(t, s.plugin, "status", "--json")), &report); err != nil {
			t.Fatal(err)
		}
		if got, ok := report["rejected"]; !ok || got != nil {
			t.Errorf("rejected: got %v, want null", got)
		}
	})
}

// settle writes what was counted.
func (r *rejections) settle(t testing.TB, app core.App) {
	t.Helper()
	for range 2 {
		select {
		case <-r.write(app):
		case <-time.After(10 * time.Second):
			t.Fatal("the counts are not written")
		}
	}
	if left := r.unwrittenYet(); len(left) > 0 {
		t.Fatalf("not written: %v", left)
	}
}

// unwrittenYet returns what was counted and is not in the table.
func (r *rejections) unwrittenYet() []store.Rejection {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.writing, r.unwritten)
}

package tests

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Whoever looks at the terminal, or asks for the status beside the server or after it,
// learns that webhooks are rejected, why, and what to do.
func TestRejectedWebhooksAreTold(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, secret string
		answer       int
		wants        []string
	}{
		{"a wrong secret", "another", 401, []string{"signature does not match", "MODELRIVER_WEBHOOK_SECRET", "modelriver doctor"}},
		{"a secret in quotes", `"another"`, 401, []string{"signature does not match", "MODELRIVER_WEBHOOK_SECRET", "in quotes"}},
		{"no secret", "", 503, []string{"no webhook secret", "MODELRIVER_WEBHOOK_SECRET"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET="+row.secret)
			run := func(args ...string) string {
				out, err := exec.Command(s.binary, append([]string{"modelriver", "status", "--dev=false", "--dir", s.Dir}, args...)...).CombinedOutput()
				if err != nil {
					t.Fatalf("status: %v\n%s", err, out)
				}
				return string(out)
			}
			for range 3 {
				if got := s.sendUnsigned(); got != row.answer {
					t.Fatalf("answer: got %d, want %d", got, row.answer)
				}
			}
			checkTerminal(s, row.wants)
			await(t, "status beside the server tells", func() bool { return strings.Contains(run(), row.wants[0]) })

			s.Stop() // what the log has not told yet, it tells now
			out := run()
			for _, want := range append(row.wants, "in the last 24 hours") {
				if !strings.Contains(out, want) {
					t.Errorf("status lacks %q: %s", want, out)
				}
			}
			var report struct {
				Rejected struct {
					Count        int
					Last, Reason string
				}
			}
			if err := json.Unmarshal([]byte(run("--json")), &report); err != nil {
				t.Fatal(err)
			}
			if got := report.Rejected; got.Count != 3 || got.Last == "" || !strings.Contains(got.Reason, row.wants[0]) {
				t.Errorf("status --json: got %+v, want 3 and why", got)
			}
			if text := fmt.Sprint(s.output, out); row.secret != "" && strings.Contains(text, row.secret) {
				t.Errorf("a secret is told: %s", text)
			}
		})
	}
}

// checkTerminal looks that a rejected webhook is told on the terminal, once.
func checkTerminal(s *server, wants []string) {
	s.t.Helper()
	const told = "Rejected 1 ModelRiver webhook, "
	await(s.t, "the terminal tells", func() bool { return strings.Contains(s.output.String(), told) })
	for _, want := range wants {
		if !strings.Contains(s.output.String(), want) {
			s.t.Errorf("the terminal lacks %q: %s", want, s.output)
		}
	}
	if got := strings.Count(s.output.String(), told); got != 1 {
		s.t.Errorf("lines on the terminal within a minute: got %d, want 1\n%s", got, s.output)
	}
}

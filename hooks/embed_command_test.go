package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testHostCommands runs the plugin's commands in a host that fills in the Config itself:
// they end with status 1 when they fail, say why once, and name what the host has.
func testHostCommands(h *host) {
	typo := filepath.Join(h.t.TempDir(), "pb_dta")
	for _, row := range []struct {
		name   string
		env    string
		args   []string
		failed bool
		output string // on either stream, once
	}{
		{"what works ends with 0", "", []string{"modelriver", "callbacks"}, false, "ID\tSTATE"},
		{"an unknown callback", "", []string{"modelriver", "retry", "nope"}, true, "nope: there is no such callback"},
		{"arguments that are missing", "", []string{"modelriver", "retry"}, true, "name the callbacks to retry"},
		{"an unknown flag", "", []string{"modelriver", "status", "--bogus"}, true, "unknown flag: --bogus"},
		{"an unknown command", "", []string{"modelriver", "bogus"}, true, `unknown command "bogus"`},
		{"no server", "", []string{"modelriver", "send", "--url", "http://127.0.0.1:1/"}, true, "is the server running there?"},
		{"problems that are found", "", []string{"modelriver", "doctor", "--url", "http://127.0.0.1:1/"}, true, "problems found"},
		{"a directory with a typo", "", []string{"modelriver", "status", "--dir", typo}, true, "no data was found in " + typo},
		{"no secret to send with", "HOST_SECRET=", []string{"modelriver", "send"}, true, "set hooks.Config.WebhookSecrets"},
		{"no secret to simulate with", "HOST_SECRET=", []string{"modelriver", "simulate"}, true, "set hooks.Config.WebhookSecrets"},
		{"no secret to check", "HOST_SECRET=", []string{"modelriver", "doctor", "--url", h.url + "/in/ai"}, true, "Set hooks.Config.WebhookSecrets"},
		{"help", "", []string{"modelriver", "send", "--help"}, false, "with hooks.Config.WebhookSecrets"},
		{"help of simulate", "", []string{"modelriver", "simulate", "--help"}, false, "signed with hooks.Config.WebhookSecrets"},
		{"help with a key that is none", "HOST_KEY=first\nsecond", []string{"--help"}, false, "modelriver"},
		{"status with a key that is none", "HOST_KEY=first\nsecond", []string{"modelriver", "status"}, false, "received   1"},
		{"serve with a key that is none", "HOST_KEY=first\nsecond", []string{"serve", "--http", "127.0.0.1:0"}, true, "hooks.Config.APIKey: "},
		{"several secrets, of which the first is tried", "HOST_SECRET=another-secret-of-some-length," + testSecret + "\n", []string{"modelriver", "doctor", "--url", h.url + "/in/ai"}, true, "problem  webhook      " + h.url + "/in/ai has another secret"},
		{"a secret from a file", "HOST_SECRET=" + testSecret + "\n", []string{"modelriver", "doctor", "--url", h.url + "/in/ai"}, true, "ok       webhook "},
	} {
		h.t.Run(row.name, func(t *testing.T) {
			cmd := h.command(false, row.args...)
			cmd.Env = append(cmd.Env, row.env)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.Success() == row.failed {
				t.Errorf("failed: got %v, want %t", err, row.failed)
			}
			if got := strings.Count(string(out), row.output); got == 0 || row.failed && got > 1 || strings.Contains(string(out), "MODELRIVER_") || strings.Contains(string(out), "panic") {
				t.Errorf("want %q, and no variable that the host does not read, in:\n%s", row.output, out)
			}
		})
	}
	if _, err := os.Stat(typo); err == nil {
		h.t.Error("a command made a data directory")
	}
}

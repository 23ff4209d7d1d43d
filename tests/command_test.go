package tests

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		args   []string
		env    string
		failed bool
		output string
	}{
		{"help", []string{"--help"}, "", false, "modelriver"},
		{"version", []string{"--version"}, "", false, "PocketBase v0."},
		{"migrate without secrets", []string{"migrate", "up"}, "MODELRIVER_WEBHOOK_SECRET=", false, "Applied"},
		{"unknown command", []string{"bogus"}, "", true, "unknown command"},
		{"unknown subcommand flag", []string{"serve", "--bogus"}, "", true, "unknown flag"},
		{"a command that fails", []string{"superuser", "create", "nobody"}, "", true, "missing email"},
		{"too many arguments", []string{"modelriver", "send", "a", "b"}, "", true, "accepts at most 1"},
		{"serve on a taken port", []string{"serve", "--http", "TAKEN"}, "", true, "address already in use"},
		{"send without a secret", []string{"modelriver", "send"}, "MODELRIVER_WEBHOOK_SECRET=", true, "set MODELRIVER_WEBHOOK_SECRET"},
		{"blank secret", []string{"serve", "--http", "TAKEN"}, "MODELRIVER_WEBHOOK_SECRET=a,,b", true, "secret 2 of 3 is blank"},
		{"host that is none", []string{"serve", "--http", "TAKEN"}, "MODELRIVER_CALLBACK_HOSTS=https://x", true, "use host or host:port"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			taken := httptest.NewServer(http.NotFoundHandler())
			defer taken.Close()
			args := append([]string{"--dir", filepath.Join(t.TempDir(), "pb_data")}, row.args...)
			for i := range args {
				args[i] = strings.Replace(args[i], "TAKEN", taken.Listener.Addr().String(), 1)
			}
			cmd := exec.Command(buildBinary(t), args...)
			cmd.Env = append(os.Environ(), row.env)
			output, err := cmd.CombinedOutput()
			if failed := err != nil; failed != row.failed || !strings.Contains(string(output), row.output) {
				t.Errorf("failed: got %t (%v), want %t with %q in:\n%s", failed, err, row.failed, row.output, output)
			}
		})
	}
}

// A command that reads a server's data makes none where there is none: a directory with a
// typo in it, or a service's before its first start, where root would leave files that the
// service can't write.
func TestCommandsMakeNoData(t *testing.T) {
	t.Parallel()
	binary := buildBinary(t)
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"callbacks"}, {"deliveries"}, {"deliveries", "7h2kq0v1mz4x9ab"}, {"retry", "--all-failed"}, {"retry"}, {"cancel", "7h2kq0v1mz4x9ab"}, {"doctor", "--url", "http://127.0.0.1:1/"},
	} {
		for _, name := range []string{"missing", "empty", "other"} {
			t.Run(strings.Join(args, " ")+" in a directory that is "+name, func(t *testing.T) {
				t.Parallel()
				parent := t.TempDir()
				dir := filepath.Join(parent, "pb_dta")
				want := 0
				if name != "missing" {
					want++
					if err := os.Mkdir(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				if name == "other" {
					want++
					if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				stdout, stderr, ok := runOn(t, binary, dir, nil, append([]string{"modelriver"}, args...)...)
				if ok || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "no data was found in "+dir+": give the server's data directory with --dir") {
					t.Errorf("success: got %t, output %q, error %q", ok, stdout, stderr)
				}
				left := 0
				filepath.WalkDir(parent, func(string, os.DirEntry, error) error { left++; return nil })
				if left != want+1 {
					t.Errorf("files and directories: got %d, want %d", left, want+1)
				}
			})
		}
	}
}

// The commands need no server, no secrets and no webhook before them.
func TestCommandsOnAFreshDataDirectory(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args   []string
		failed bool
		output string
	}{
		{[]string{"status"}, false, "received   0"},
		{[]string{"callbacks"}, false, "ID\tSTATE"},
		{[]string{"deliveries"}, false, "ID\tSTATE"},
		{[]string{"deliveries", "7h2kq0v1mz4x9ab"}, true, "7h2kq0v1mz4x9ab: there is no such delivery"},
		{[]string{"retry", "--all-failed"}, false, "No callback has failed."},
		{[]string{"retry"}, true, "name the callbacks to retry"},
		{[]string{"cancel"}, true, "name the requests to cancel"},
		{[]string{"cancel", "7h2kq0v1mz4x9ab"}, true, "7h2kq0v1mz4x9ab: there is no such request: \"modelriver requests\" lists them"},
		{[]string{"doctor", "--url", "http://127.0.0.1:1/webhooks/modelriver"}, true, "problem  secret       none is set"},
		{[]string{"simulate"}, true, "set MODELRIVER_WEBHOOK_SECRET"},
		{[]string{"bogus"}, true, "unknown command"},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "pb_data")
			if out, err := exec.Command(buildBinary(t), "--dev=false", "--dir", dir, "migrate", "up").CombinedOutput(); err != nil {
				t.Fatalf("migrate: %v\n%s", err, out)
			}
			cmd := exec.Command(buildBinary(t), append([]string{"--dev=false", "--dir", dir, "modelriver"}, row.args...)...)
			cmd.Env = append(os.Environ(), "MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY=", "MODELRIVER_API_URL=http://127.0.0.1:1")
			output, err := cmd.CombinedOutput()
			if failed := err != nil; failed != row.failed || !strings.Contains(string(output), row.output) {
				t.Errorf("failed: got %t, want %t with %q in:\n%s", failed, row.failed, row.output, output)
			}
		})
	}
}

// The error of a command is printed once, on standard error, with what it says on standard
// output whole.
func TestCommandErrorsAreTold(t *testing.T) {
	t.Parallel()
	s := startServer(t, "")
	for _, row := range []struct {
		args   []string
		error  string
		output bool
	}{
		{[]string{"retry", "nope"}, "nope: there is no such callback", false},
		{[]string{"retry"}, "name the callbacks to retry", false},
		{[]string{"cancel"}, "name the requests to cancel", false},
		{[]string{"cancel", "nope"}, "nope: there is no such request", false},
		{[]string{"stauts"}, `unknown command "stauts" for "pocketriver modelriver": did you mean status?`, false},
		{[]string{"send", "--scheme", "hmac"}, `--scheme "hmac": use one of body, data, timestamped-body`, false},
		{[]string{"send", "--user", "ann@example.com"}, "use the user's id", false},
		{[]string{"callbacks", "--bogus"}, "unknown flag: --bogus", false},
		{[]string{"callbacks", "--limit", "0"}, "--limit 0: use at least 1", false},
		{[]string{"send", "--url", "http://127.0.0.1:1/"}, "is the server running there?", true},
		{[]string{"doctor", "--url", "http://127.0.0.1:1/"}, "problems found", true},
	} {
		stdout, stderr, ok := runOn(t, s.binary, s.Dir, s.env, append([]string{"modelriver"}, row.args...)...)
		if ok || strings.Count(stderr, row.error) != 1 || !strings.HasPrefix(stderr, "Error: ") || (stdout != "") != row.output || strings.Contains(stdout, row.error) {
			t.Errorf("%v: success %t, output %q, error %q", row.args, ok, stdout, stderr)
		}
	}
}

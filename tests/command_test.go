package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runOn runs the binary on a data directory in an environment and returns what it wrote,
// both streams apart, and whether it ended with status 0.
func runOn(t testing.TB, binary, dir string, env []string, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--dev=false", "--dir", dir}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out, errors strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errors
	err := cmd.Run()
	return out.String(), errors.String(), err == nil
}

// A command that reads a server's data makes none where there is none: a directory with a
// typo in it, or a service's before its first start, where root would leave files that the
// service can't write.
func TestCommandsMakeNoData(t *testing.T) {
	t.Parallel()
	binary := buildBinary(t)
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"callbacks"}, {"retry", "--all-failed"}, {"retry"}, {"doctor", "--url", "http://127.0.0.1:1/"},
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

// What a secret, a key, a URL or a host can't be is told by what needs it, once, and by
// nothing else.
func TestUnusableEnvironment(t *testing.T) {
	t.Parallel()
	binary := buildBinary(t)
	dir := filepath.Join(t.TempDir(), "pb_data")
	if _, stderr, ok := runOn(t, binary, dir, nil, "migrate", "up"); !ok {
		t.Fatal(stderr)
	}
	for i, row := range []struct{ name, variable, value, problem string }{
		{"a secret with a line break", "MODELRIVER_WEBHOOK_SECRET", "first-half\nsecond-half", "MODELRIVER_WEBHOOK_SECRET: secret 1 of 1 has a line break"},
		{"a blank secret among several", "MODELRIVER_WEBHOOK_SECRET", "first-half,,second-half", "MODELRIVER_WEBHOOK_SECRET: secret 2 of 3 is blank"},
		{"a key with a line break", "MODELRIVER_API_KEY", "first-half\nsecond-half", "MODELRIVER_API_KEY: the API key has white space"},
		{"a key with a blank", "MODELRIVER_API_KEY", "first-half second-half", "MODELRIVER_API_KEY: the API key has white space"},
		{"a URL in quotes", "MODELRIVER_API_URL", `"https://api.modelriver.com"`, "MODELRIVER_API_URL: "},
		{"a host that is none", "MODELRIVER_CALLBACK_HOSTS", "https://x", "MODELRIVER_CALLBACK_HOSTS: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			env := []string{"MODELRIVER_WEBHOOK_SECRET=a-secret-of-some-length", row.variable + "=" + row.value}
			unmade := filepath.Join(t.TempDir(), "pb_data")
			for _, args := range [][]string{{"serve", "--http", "127.0.0.1:0"}, {"modelriver", "send"}, {"modelriver", "simulate"}} {
				_, stderr, ok := runOn(t, binary, unmade, env, args...)
				if ok || !strings.HasPrefix(stderr, "Error: "+row.problem) || strings.Count(stderr, "\n") != 1 {
					t.Errorf("%v: success %t, error %q, want %q once", args, ok, stderr, row.problem)
				}
				if strings.Contains(stderr, "half") {
					t.Errorf("%v: the error shows the value: %q", args, stderr)
				}
				if _, err := os.Stat(unmade); args[0] == "serve" && err == nil {
					t.Error("serve made a data directory")
				}
			}
			if stdout, _, ok := runOn(t, binary, dir, env, "modelriver", "doctor", "--url", "http://127.0.0.1:1/"); ok || !strings.Contains(stdout, "problem  settings     "+row.problem) {
				t.Errorf("doctor: success %t\n%s", ok, stdout)
			}
			for _, args := range [][]string{{"--help"}, {"modelriver", "send", "--help"}, {"migrate", "up"}, {"superuser", "upsert", fmt.Sprintf("u%d@example.com", i), "1234567890"}, {"modelriver", "status"}, {"modelriver", "retry", "--all-failed"}} {
				if stdout, stderr, ok := runOn(t, binary, dir, env, args...); !ok {
					t.Errorf("%v: failed: %s%s", args, stdout, stderr)
				}
			}
		})
	}
}

// A value that is a secret with something around it is that secret.
func TestSecretsAreTidied(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{testSecret + "\n", " \t" + testSecret + "\r\n", "another-secret-of-some-length, " + testSecret + "\n"} {
		s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET="+secret, "MODELRIVER_API_KEY=key\n", "MODELRIVER_API_URL= http://127.0.0.1:1\n", "MODELRIVER_CALLBACK_HOSTS=127.0.0.1 ,example.com\n")
		if status := s.Send([]byte(`{"type":"task.completed","channel_id":"c","data":{}}`)); status != 200 {
			t.Errorf("secret %q: webhook: got %d, want 200", secret, status)
		}
	}
}

func TestDoctorHintsAtQuotes(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", `MODELRIVER_WEBHOOK_SECRET="`+testSecret+`"`, "MODELRIVER_API_KEY='key'") // as docker --env-file leaves them
	out, ok := s.run("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver")
	if ok || !strings.Contains(out, "problem  secret       one is in quotes") || !strings.Contains(out, "problem  key          is in quotes") || !strings.Contains(out, "--env-file") {
		t.Errorf("doctor: success %t\n%s", ok, out)
	}
	for _, want := range []string{"Warning: MODELRIVER_WEBHOOK_SECRET is in quotes", "Warning: MODELRIVER_API_KEY is in quotes"} {
		if !strings.Contains(s.output.String(), want) {
			t.Errorf("the terminal lacks %q: %s", want, s.output)
		}
	}
}

// What is missing at the start is told where the start is seen.
func TestStartWarnsOfMissingSettings(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY=")
	for _, want := range []string{"Set MODELRIVER_WEBHOOK_SECRET.\n", "Set MODELRIVER_API_KEY.\n"} {
		if strings.Count(s.output.String(), want) != 1 {
			t.Errorf("the terminal lacks %q: %s", want, s.output)
		}
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

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
		{"a short token for metrics", "MODELRIVER_METRICS_TOKEN", "first-half", "MODELRIVER_METRICS_TOKEN: use at least 16 characters"},
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
	out, ok := s.runCommand("modelriver", "doctor", "--url", s.URL+"/webhooks/modelriver")
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

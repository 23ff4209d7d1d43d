package tests

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// startMake runs a make target that goes on, as a terminal does, until the returned
// function ends it as Ctrl-C does.
func startMake(t *testing.T, args ...string) (log *output, interrupt func()) {
	t.Helper()
	cmd := inRepository("make", append([]string{"-s", "-o", "pocketriver"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log = &output{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	return log, func() {
		t.Helper()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		await(t, "make ends after Ctrl-C", func() bool {
			select {
			case <-ended:
				return true
			default:
				return false
			}
		})
	}
}

// make run serves with the options that ARGS gives.
func TestMakeRun(t *testing.T) {
	t.Parallel()
	dir, address := filepath.Join(t.TempDir(), "pb_data"), freeAddress(t)
	log, interrupt := startMake(t, "run", "BINARY="+buildBinary(t), "ARGS=--dev=false --dir "+dir+" --http "+address)
	await(t, "the server answers", func() bool {
		response, err := http.Get("http://" + address + "/api/health")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
	interrupt()
	if _, err := os.Stat(filepath.Join(dir, "data.db")); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// The binary that make builds says which commit it was built from.
func TestMakeVersion(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "pocketriver")
	// As if main.go had just been changed.
	if out, err := inRepository("make", "-s", "-W", "main.go", "-o", "pb_public/vendor/pocketbase.es.mjs", "pocketriver", "BINARY="+binary).CombinedOutput(); err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	want := "pocketriver version (untracked) (PocketBase v0." // of an archive, which has no history
	if commit, err := inRepository("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		want = " " + strings.TrimSpace(string(commit)) + " (PocketBase v0."
	}
	if out, err := exec.Command(binary, "--version").CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("--version: %v, want %q in %q", err, want, out)
	}
}

// make test brings what the tests need, or says how to get it, before anything else.
func TestMakeTools(t *testing.T) {
	t.Parallel()
	const (
		debian = "ID=debian\n"
		ubuntu = "ID=ubuntu\nID_LIKE=debian\n"
		fedora = "ID=fedora\n"
	)
	const all = "chromium firefox-esr strace python3 cc"
	for _, row := range []struct {
		name   string
		system string
		has    string // commands; a name with ! is one that fails
		uid    string
		failed bool
		output string // what it says
		ran    string // what was run
	}{
		{"nothing is missing", debian, all, "0", false, "", ""},
		{"Chrome is a browser too", fedora, "google-chrome firefox strace python3 cc", "1000", false, "", ""},
		{"root", debian, "apt-get", "0", false, "Installing strace python3 gcc libc6-dev chromium firefox-esr",
			"apt-get update\napt-get install -y --no-install-recommends strace python3 gcc libc6-dev chromium firefox-esr\n"},
		{"sudo", debian, "apt-get sudo cc", "1000", false, "Installing strace python3 chromium firefox-esr",
			"sudo apt-get update\nsudo apt-get install -y --no-install-recommends strace python3 chromium firefox-esr\n"},
		{"neither", debian, "apt-get chromium firefox-esr cc", "1000", true,
			"As root: apt-get update && apt-get install -y --no-install-recommends strace python3\n", ""},
		{"apt-get fails", debian, "!apt-get chromium firefox-esr cc", "0", true, "", "apt-get update\n"},
		{"Ubuntu has no package of a browser", ubuntu, "apt-get sudo cc", "1000", true, "google-chrome-stable_current_", ""},
		{"Ubuntu's package points to a snap that is not there", ubuntu, "apt-get !chromium-browser google-chrome !firefox strace python3 cc", "0", true, " chromium-browser-\n", ""},
		{"Ubuntu's Firefox is a snap too", ubuntu, "apt-get sudo google-chrome !firefox cc", "1000", true,
			" && sudo ln -s /opt/firefox/firefox /usr/local/bin/firefox\nsudo apt-get update && sudo apt-get install -y --no-install-recommends strace python3\n", ""},
		{"Ubuntu with browsers", ubuntu, "apt-get google-chrome firefox cc", "0", false, "Installing strace python3",
			"apt-get update\napt-get install -y --no-install-recommends strace python3\n"},
		{"root without mounts", debian, all + " !sh", "0", true, "--cap-add SYS_ADMIN", ""},
		{"a user without name spaces", debian, all + " !unshare", "1000", true, "unprivileged_userns", ""},
		{"another system", fedora, "cc", "1000", true, "strace python3 chromium firefox-esr", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bin, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
			for _, name := range strings.Fields("id find sh unshare mktemp rmdir " + row.has) {
				status := "exit 0"
				if failing, ok := strings.CutPrefix(name, "!"); ok {
					name, status = failing, "exit 1"
				}
				script := map[string]string{
					"id":      "echo " + row.uid,
					"sudo":    "echo sudo \"$@\" >>" + log,
					"apt-get": "echo apt-get \"$@\" >>" + log,
				}[name]
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"+status+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			release := filepath.Join(t.TempDir(), "os-release")
			if err := os.WriteFile(release, []byte(row.system), 0o644); err != nil {
				t.Fatal(err)
			}
			make, err := exec.LookPath("make")
			if err != nil {
				t.Fatal(err)
			}
			cmd := inRepository(make, "-s", "tools", "OS_RELEASE="+release, "COMPILER=cc")
			cmd.Env = []string{"PATH=" + bin}
			out, err := cmd.CombinedOutput()
			if failed := err != nil; failed != row.failed || !strings.Contains(string(out), row.output) || row.output == "" && !failed && len(out) > 0 {
				t.Errorf("failed: got %t, want %t with %q in:\n%s", failed, row.failed, row.output, out)
			}
			if ran, _ := os.ReadFile(log); string(ran) != row.ran {
				t.Errorf("ran: got %q, want %q", ran, row.ran)
			}
		})
	}
}

package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// buildHost builds an app from the source of its main.go and returns its path.
func buildHost(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(repository, "readme", "main.go"): filepath.Join(dir, "main.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"main.go": source, "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := inRepository("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "app"), "./readme")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "app")
}

// The README's embedding example builds, reads the variables, and its commands work before
// they are set.
func TestReadmeEmbeds(t *testing.T) {
	t.Parallel()
	app, data := buildHost(t, snippet(t, "README.md", "Embed it in your PocketBase app")), filepath.Join(t.TempDir(), "pb_data")
	unset := []string{"MODELRIVER_WEBHOOK_SECRET=", "MODELRIVER_API_KEY="}
	if _, stderr, ok := runOn(t, app, data, unset, "modelriver", "status"); ok || strings.Count(stderr, "no data was found in "+data) != 1 {
		t.Errorf("status before the first start: success %t, error %q", ok, stderr)
	}
	if stdout, _, ok := runOn(t, app, data, unset, "superuser", "upsert", testEmail, testPassword); !ok {
		t.Fatalf("superuser: %s", stdout)
	}
	if stdout, stderr, ok := runOn(t, app, data, unset, "modelriver", "status"); !ok || !strings.Contains(stdout, "received   0") {
		t.Errorf("status: success %t\n%s%s", ok, stdout, stderr)
	}
	if _, stderr, ok := runOn(t, app, data, unset, "modelriver", "send"); ok || strings.Count(stderr, "set MODELRIVER_WEBHOOK_SECRET") != 1 {
		t.Errorf("send: success %t, error %q", ok, stderr)
	}
	broken := []string{"MODELRIVER_API_KEY=first\nsecond"}
	if _, stderr, ok := runOn(t, app, data, broken, "serve", "--http", "127.0.0.1:0"); ok || strings.Count(stderr, "MODELRIVER_API_KEY: ") != 1 || strings.Contains(stderr, "panic") {
		t.Errorf("serve with a key that is none: success %t, error %q", ok, stderr)
	}
	if stdout, stderr, ok := runOn(t, app, data, broken, "--help"); !ok || stderr != "" || !strings.Contains(stdout, "modelriver") {
		t.Errorf("--help with a key that is none: success %t, error %q\n%s", ok, stderr, stdout)
	}

	s := startServerBinary(t, app, "", "MODELRIVER_WEBHOOK_SECRET=another-secret, "+testSecret+"\n", "MODELRIVER_API_KEY=key\n", "MODELRIVER_CALLBACK_HOSTS=127.0.0.1\n")
	callback, received := receivePosts(t, 200)
	s.mustSend(userPayload("c1", "T", "B", "", callback))
	wantBody(t, received, `"title":"T"`)
}

// An app as in the README runs the README's pb_hooks, once it has what the README says
// they need, and serves live-query.js where the README says.
func TestReadmeEmbedsHooksAndPage(t *testing.T) {
	t.Parallel()
	readme := repositoryFile(t, "README.md")
	find := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(readme)
		if found == nil {
			t.Fatalf("README.md has no %s", pattern)
		}
		return found[1]
	}
	source := snippet(t, "README.md", "Embed it in your PocketBase app")
	for old, with := range map[string]string{
		"import (\n":          "import (\n\t\"" + find("`(github.com/pocketbase/pocketbase/plugins/jsvm)`") + "\"\n",
		"	config, _ := hooks": "\t" + find("`(jsvm.MustRegister[^`]+)`") + "\n\tconfig, _ := hooks",
	} {
		if !strings.Contains(source, old) {
			t.Fatalf("the example has no %q", old)
		}
		source = strings.Replace(source, old, with, 1)
	}
	dir := filepath.Join(t.TempDir(), "pb_data")
	writeBeside(t, dir, "pb_hooks/main.pb.js", find("(?s)\n```js\n(// Shape or enrich.*?)\n```"))
	s := startServerBinary(t, buildHost(t, source), dir)
	s.mustSend([]byte(`{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":{"body":"B"}}}`))
	s.mustSend([]byte(`{"type":"task.ai_generated","channel_id":"c2","ai_response":{"data":{"title":"T"}},"customer_data":{"category":"NEWS"}}`))
	var list struct {
		Items []struct{ Title, Category string }
	}
	s.API("", http.MethodGet, "/api/collections/aiContent/records", nil, &list)
	if got := fmt.Sprint(list.Items); got != "[{T news}]" {
		t.Errorf("stored: got %s, want [{T news}]", got)
	}

	response, err := http.Get(s.URL + find("your own app[^`]*`(/[^`]+/live-query.js)`"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := repositoryFile(t, "pb_public/live-query.js")
	if response.StatusCode != http.StatusOK || string(got) != want {
		t.Errorf("live-query.js: got %s, %d bytes, want %d", response.Status, len(got), len(want))
	}
}

// The quick start's refusal, and its callback that fails and is sent again.
func TestReadmeFailures(t *testing.T) {
	t.Parallel()
	s := startServer(t, "", "MODELRIVER_WEBHOOK_SECRET=dev-secret", "MODELRIVER_API_KEY=dev-key")
	target := func(name, args string) *exec.Cmd {
		args += " --dev=false --dir " + t.TempDir()
		cmd := inRepository("make", "-s", name, "-o", "pocketriver", "BINARY="+s.binary, "ARGS="+args)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	if out, err := target("send", "--tamper --url "+s.URL+"/webhooks/modelriver").CombinedOutput(); err != nil || !strings.Contains(string(out), "401 Unauthorized") {
		t.Errorf("make send: %v\n%s", err, out)
	}

	simulate := target("simulate", "--every 1h --refuse-callbacks 1 --delay 1ms --listen "+freeAddress(t)+" --target "+s.URL+"/webhooks/modelriver")
	log := &output{}
	simulate.Stdout, simulate.Stderr = log, log
	if err := simulate.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-simulate.Process.Pid, syscall.SIGKILL)
		simulate.Wait()
	})
	await(t, "the callback has failed", func() bool {
		out, ok := s.runCommand("modelriver", "status")
		return !ok && strings.Contains(out, "failed     1")
	})
	if out, ok := s.runCommand("modelriver", "retry", "--all-failed"); !ok {
		t.Errorf("retry: %s", out)
	}
	await(t, "it is accepted", func() bool {
		_, ok := s.runCommand("modelriver", "status")
		return ok && strings.Contains(log.String(), "completed")
	})
}

// What the README says is guaranteed names the test that proves it.
func TestReadmeNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	readme := repositoryFile(t, "README.md")
	var tests strings.Builder
	for _, folder := range []string{"tests", "hooks"} {
		err := filepath.WalkDir(filepath.Join(repository, folder), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			tests.Write(source)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(readme, -1)
	if len(named) < 10 {
		t.Fatalf("tests named: got %d", len(named))
	}
	for _, match := range named {
		if !strings.Contains(tests.String(), "func "+match[1]+"(") {
			t.Errorf("%s is named, but there is no such test", match[1])
		}
	}
}

package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// runCommand runs "modelriver args..." and returns what it wrote to standard output.
func runCommand(p *plugin, args ...string) (string, error) {
	root := &cobra.Command{Use: "app", SilenceErrors: true}
	p.addCommands(root)
	root.SetArgs(append([]string{"modelriver"}, args...))
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.Execute()
	return out.String(), err
}

func mustRun(t testing.TB, p *plugin, args ...string) string {
	t.Helper()
	out, err := runCommand(p, args...)
	if err != nil {
		t.Fatalf("modelriver %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func wantLines(t testing.TB, out string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile(`(?m)` + pattern).MatchString(out) {
			t.Errorf("output lacks %q:\n%s", pattern, out)
		}
	}
}

func wantError(t testing.TB, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error: got %v, want one with %q", err, part)
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		args    []string
		stored  int
		lines   []string
		problem string
	}{
		{"one with its callback", nil, 1, []string{`^200 OK in .*\{"received":true\}`, `with MODELRIVER_API_KEY as bearer key`, `"score": 0.87`}, ""},
		{"a duplicate changes nothing", []string{"--duplicate"}, 1, []string{`^Sent again\. 200 OK`, `^No second callback within 2s`}, ""},
		{"a tampered payload is refused", []string{"--tamper"}, 0, []string{`^401 Unauthorized`, `^Refused, as it should be`}, ""},
		{"a tampered envelope is refused", []string{"--tamper", "--scheme", "data"}, 0, []string{`^401 Unauthorized`}, ""},
		{"many", []string{"--count", "40", "--concurrency", "8"}, 40, []string{`200 OK +40$`, `answers +p50 .*, p99 `, `callbacks +40 of 40, p50 .*, p99 `}, ""},
		{"many at a rate", []string{"--count", "5", "--rate", "50", "--no-callback"}, 5, []string{`200 OK +5$`}, ""},
		{"many, each twice", []string{"--count", "10", "--duplicate"}, 10, []string{`200 OK +20$`, `callbacks +10 of 10`}, ""},
		{"many tampered", []string{"--count", "5", "--tamper"}, 0, []string{`401 Unauthorized +5$`}, ""},
		{"nobody there", []string{"--url", "http://127.0.0.1:1/"}, 0, nil, "is the server running there?"},
		{"another path", []string{"--url", "URL/elsewhere"}, 0, nil, "receives no webhooks at this URL"},
		{"channel of many", []string{"--count", "2", "--channel", "c"}, 0, nil, "--duplicate"},
		{"no count", []string{"--count", "0"}, 0, nil, "at least 1"},
		{"unknown scheme", []string{"--scheme", "x"}, 0, nil, "use one of body, data, timestamped-body"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, testConfig())
			args := append([]string{"send", "--url", s.url + s.plugin.config.Path}, row.args...)
			for i := range args {
				args[i] = strings.Replace(args[i], "URL", s.url, 1)
			}
			out, err := runCommand(s.plugin, args...)
			if row.problem != "" {
				wantError(t, err, row.problem)
			} else if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			wantLines(t, out, row.lines...)
			if got := len(records(t, s, store.Content)); got != row.stored {
				t.Errorf("stored: got %d, want %d", got, row.stored)
			}
		})
	}
}

// What send reports comes from the server, not from what it hopes for.
func TestSendReportsFailures(t *testing.T) {
	t.Parallel()
	_, p := newTestApp(t, testConfig())
	for _, row := range []struct {
		name    string
		status  int
		args    []string
		problem string
	}{
		{"another secret", 401, nil, "another MODELRIVER_WEBHOOK_SECRET"},
		{"refusing server", 503, nil, "503 Service Unavailable"},
		{"refusing server, many", 503, []string{"--count", "3"}, "503 Service Unavailable"},
		{"a server that does not verify", 200, []string{"--tamper"}, "did not refuse"},
		{"a server that does not verify, many", 200, []string{"--tamper", "--count", "3"}, "did not refuse"},
		{"a server that does not call back", 200, []string{"--wait", "100ms"}, "no callback within 100ms"},
		{"a server that does not call back, many", 200, []string{"--wait", "100ms", "--count", "3"}, "3 callbacks did not come"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(row.status) }))
			defer server.Close()
			_, err := runCommand(p, append([]string{"send", "--url", server.URL}, row.args...)...)
			wantError(t, err, row.problem)
		})
	}

	t.Run("a server that refuses", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var payload struct {
				CallbackURL string `json:"callback_url"`
			}
			json.NewDecoder(r.Body).Decode(&payload)
			http.Post(payload.CallbackURL, "application/json", bytes.NewReader(modelriver.ErrorCallbackBody("too long")))
		}))
		defer server.Close()
		out, err := runCommand(p, "send", "--url", server.URL)
		wantError(t, err, "refused this webhook")
		if !strings.Contains(out, "too long") {
			t.Errorf("output lacks the reason: %s", out)
		}
	})
	t.Run("a payload that the scheme cannot sign", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "payload.json")
		if err := os.WriteFile(file, []byte(`{"ai_response":{"data":{}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := runCommand(p, "send", "--url", "http://127.0.0.1:1/", "--scheme", "data", file)
		wantError(t, err, "data")
		if out != "" || strings.Contains(err.Error(), "server running") {
			t.Errorf("got %q, %v: nothing was sent", out, err)
		}
	})
	t.Run("a server that calls back twice", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var payload struct {
				CallbackURL string `json:"callback_url"`
			}
			json.NewDecoder(r.Body).Decode(&payload)
			go http.Post(payload.CallbackURL, "application/json", strings.NewReader("{}"))
		}))
		defer server.Close()
		_, err := runCommand(p, "send", "--url", server.URL, "--duplicate")
		wantError(t, err, "the duplicate got a callback of its own")
	})
}

// newFailedServer returns a server with one callback, which failed.
func newFailedServer(t *testing.T) (*testServer, *receiver) {
	t.Helper()
	r := newReceiver(t, answerStatus(http.StatusGone))
	s := newTestServer(t, testConfig())
	s.mustPost(t, generated("c1", `{"title":"A"}`, r.URL+"/v1/callback/c1"))
	awaitState(t, s, store.Failed)
	return s, r
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s, _ := newFailedServer(t)
	out, err := runCommand(s.plugin, "status")
	wantError(t, err, `1 callback failed: see them with "app modelriver deliveries --state failed"`)
	wantLines(t, out, `^received +1 +last `, `^stored +1$`, `^refused +0$`, `^waiting +0$`, `^failed +1$`, `^Last error: `+only(t, s, store.Callbacks).Id, `^  answered 410 Gone`)

	out, err = runCommand(s.plugin, "status", "--json")
	wantError(t, err, "1 callback failed")
	var report struct {
		store.Figures
		store.Latest
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if report.Received != 1 || report.Stored != 1 || report.Failed != 1 || report.Waiting != 0 || report.OldestWaiting != nil ||
		report.LastError == nil || report.LastError.Status != 410 || report.LastReceived == nil {
		t.Errorf("got %s", out)
	}
}

func TestStatusCountsWhatWaitsAndWhatWasRefused(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.APIKey = "" // callbacks wait
	s := newTestServer(t, config)
	s.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("title") == "No" {
			return fmt.Errorf("not here")
		}
		return e.Next()
	})
	s.mustPost(t, generated("c1", `{"title":"Yes"}`, "http://127.0.0.1:1/c1"))
	s.mustPost(t, generated("c2", `{"title":"No"}`, "http://127.0.0.1:1/c2"))
	s.mustPost(t, generated("c3", `{"title":"Alone"}`, ""))
	out := mustRun(t, s.plugin, "status")
	wantLines(t, out, `^received +3 `, `^stored +2$`, `^refused +1$`, `^waiting +2 +oldest [a-z0-9]{15}, `, `^failed +0$`)
}

func TestStatusOnAFreshDataDirectory(t *testing.T) {
	t.Parallel()
	_, p := newTestApp(t, Config{})
	out := mustRun(t, p, "status", "--json")
	var report map[string]any
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if report["received"] != 0.0 || report["lastError"] != nil || report["oldestWaiting"] != nil {
		t.Errorf("got %s", out)
	}
}

func TestCallbacks(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, Config{})
	for i, row := range []struct {
		state, created string
	}{
		{store.Failed, "2026-01-01 10:00:00.000Z"}, {store.Delivered, "2026-01-02 10:00:00.000Z"},
		{store.Pending, "2026-01-03 10:00:00.000Z"}, {store.Failed, "2026-01-04 10:00:00.000Z"},
	} {
		_, err := app.NonconcurrentDB().NewQuery(fmt.Sprintf(
			`INSERT INTO modelriverCallbacks (id, state, created, lastError, nextAttempt) VALUES ('callback000000%d', '%s', '%s', '%s', '%s')`,
			i+1, row.state, row.created, "first line\nsecond\tline", row.created)).Execute()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name string
		args []string
		want string // the last digits of the ids
	}{
		{"newest first", nil, "4321"},
		{"failed ones", []string{"--state", "failed"}, "41"},
		{"since a date", []string{"--since", "2026-01-03"}, "43"},
		{"since a time", []string{"--since", "2026-01-03T10:00:01Z"}, "4"},
		{"since a while ago", []string{"--since", "1m"}, ""},
		{"at most two", []string{"--limit", "2"}, "43"},
		{"all at once", []string{"--state", "failed", "--since", "2026-01-02", "--limit", "5"}, "4"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out := mustRun(t, p, append([]string{"callbacks"}, row.args...)...)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			got := ""
			for _, line := range lines[1:] {
				fields := strings.Split(line, "\t")
				if len(fields) != 7 || fields[6] != "first line second line" {
					t.Errorf("a line is not seven fields: %q", line)
				}
				got += fields[0][14:]
			}
			if got != row.want {
				t.Errorf("got %q, want %q in:\n%s", got, row.want, out)
			}
		})
	}
	for flag, value := range map[string]string{"--state": "gone", "--since": "yesterday", "--limit": "0"} {
		if _, err := runCommand(p, "callbacks", flag, value); err == nil || !strings.Contains(err.Error(), flag+" ") {
			t.Errorf("%s %s: got %v, want an error about it", flag, value, err)
		}
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	s, r := newFailedServer(t)
	row := only(t, s, store.Callbacks)
	r.setAnswer(nil) // accepts from now on

	out, err := runCommand(s.plugin, "retry", "missing00000000", row.Id)
	wantError(t, err, "missing00000000: there is no such callback")
	wantLines(t, out, `^1 callback to be sent again`)
	delivered := awaitState(t, s, store.Delivered)
	if delivered.GetInt("attempts") != 1 || !delivered.GetDateTime("expires").After(row.GetDateTime("expires")) {
		t.Errorf("a retried callback did not start anew: %d attempts, expires %s", delivered.GetInt("attempts"), delivered.GetDateTime("expires"))
	}

	_, err = runCommand(s.plugin, "retry", row.Id)
	wantError(t, err, "was delivered")
	if out := mustRun(t, s.plugin, "retry", "--all-failed"); !strings.Contains(out, "No callback has failed") {
		t.Errorf("got %s", out)
	}
	for _, args := range [][]string{{"retry"}, {"retry", row.Id, "--all-failed"}} {
		_, err := runCommand(s.plugin, args...)
		wantError(t, err, "name the callbacks to retry, or give --all-failed")
	}
}

func TestRetryIngestsARefusedEventAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	s := newTestServer(t, testConfig())
	refuse := s.OnRecordCreate(store.Content).BindFunc(func(*core.RecordEvent) error { return errors.New("not here") })
	s.mustPost(t, generated("c1", `{"title":"A"}`, r.URL+"/v1/callback/c1"))
	s.mustPost(t, generated("c2", `{"title":"B"}`, r.URL+"/v1/callback/c2"))
	eventually(t, "both are refused", func() bool {
		failed, err := s.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Failed})
		return err == nil && failed == 2
	})
	s.OnRecordCreate(store.Content).Unbind(refuse)

	wantLines(t, mustRun(t, s.plugin, "retry", "--all-failed"), `^2 callbacks to be sent again`)
	eventually(t, "both are stored and delivered", func() bool {
		delivered, err := s.CountRecords(store.Callbacks, dbx.HashExp{"state": store.Delivered})
		return err == nil && delivered == 2 && len(records(t, s, store.Content)) == 2
	})
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	setRule := func(collection, verb string, rule *string) func(t *testing.T, s *testServer) {
		return func(t *testing.T, s *testServer) {
			c, err := s.FindCollectionByNameOrId(collection)
			if err != nil {
				t.Fatal(err)
			}
			switch verb {
			case "list":
				c.ListRule = rule
			case "create":
				c.CreateRule = rule
			}
			if err := s.Save(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name     string
		config   func(c *Config) // of the command, not of the server
		prepare  func(t *testing.T, s *testServer)
		url      string
		lines    []string
		problems int
	}{
		{
			name: "all is well",
			lines: []string{`^ok +secret `, `^ok +key `, `^ok +API `, `^ok +clock `, `^ok +webhook `, `^ok +live .* streams`,
				`^ok +collections `, `^ok +rules `, `^warning +durability `, `^ok +disk `},
		},
		{name: "no secret", config: func(c *Config) { c.WebhookSecrets = nil }, lines: []string{`^problem +secret +none`, `^warning +webhook .*none to try`}, problems: 1},
		{name: "a short secret", config: func(c *Config) { c.WebhookSecrets = []string{"abc"} }, lines: []string{`^warning +secret +one is shorter`, `^problem +webhook .*another secret`}, problems: 1},
		{name: "another secret", config: func(c *Config) { c.WebhookSecrets = []string{"another-secret-of-some-length"} }, lines: []string{`^problem +webhook .*another secret`}, problems: 1},
		{name: "no key", config: func(c *Config) { c.APIKey = "" }, lines: []string{`^problem +key +none`}, problems: 1},
		{name: "the API is down", config: func(c *Config) { c.APIURL = "http://127.0.0.1:1" }, lines: []string{`^problem +API .*cannot be reached`, `^warning +clock `}, problems: 1},
		{name: "the clock is wrong", config: func(c *Config) { c.APIURL = "EARLIER" }, lines: []string{`^problem +clock +is 1h0m`}, problems: 1},
		{name: "no server", url: "http://127.0.0.1:1/webhooks/modelriver", lines: []string{`^problem +webhook .*refused`, `^problem +live .*refused`}, problems: 2},
		{name: "another path", url: "/api/health", lines: []string{`^problem +webhook .*answered 404`, `^ok +live `}, problems: 1},
		{
			name: "a proxy that answers for the server", url: "PROXY",
			lines: []string{`^problem +webhook .*answered 200: <html>`, `^problem +live .*without an event`}, problems: 2,
		},
		{
			name: "a proxy that holds the stream back", url: "BUFFER",
			lines: []string{`^problem +live .*no event within`, `proxy_buffering off`}, problems: 1,
		},
		{
			name: "callbacks that anyone may list", prepare: setRule(store.Callbacks, "list", types.Pointer("")),
			lines: []string{`^problem +rules +others than superusers may list callbacks`}, problems: 1,
		},
		{
			name: "content that anyone may create", prepare: setRule(store.Content, "create", types.Pointer("")),
			lines: []string{`^problem +rules +everybody may create content`}, problems: 1,
		},
		{
			name: "content that nobody may list", prepare: setRule(store.Content, "list", nil),
			lines: []string{`^warning +rules +only superusers may list content`},
		},
		{
			name: "private content that anyone may list",
			prepare: func(t *testing.T, s *testServer) {
				setRule(store.Content, "list", types.Pointer(""))(t, s)
				s.mustPost(t, `{"type":"task.completed","channel_id":"c","data":{"title":"T"},"customer_data":{"user_id":"u"}}`)
			},
			lines: []string{`^problem +rules +everybody may list content that was made for one user`}, problems: 1,
		},
		{
			name: "a field is missing",
			prepare: func(t *testing.T, s *testServer) {
				c, err := s.FindCollectionByNameOrId(store.Content)
				if err != nil {
					t.Fatal(err)
				}
				c.Fields.RemoveByName("category")
				if err := s.Save(c); err != nil {
					t.Fatal(err)
				}
			},
			lines: []string{`^problem +collections .*category \(text\)`}, problems: 1,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, testConfig())
			if row.prepare != nil {
				row.prepare(t, s)
			}
			held := make(chan struct{})
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, "/earlier"):
					w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
				case r.URL.Path == "/api/realtime" && row.url == "BUFFER":
					w.WriteHeader(http.StatusOK)
					http.NewResponseController(w).Flush()
					<-held
				case r.URL.Path == "/buffer":
					fmt.Fprint(w, `{"received":true}`)
				default:
					fmt.Fprint(w, "<html>Welcome</html>")
				}
			}))
			defer other.Close()
			defer close(held)

			config := testConfig()
			config.APIURL = other.URL
			if row.config != nil {
				row.config(&config)
			}
			config.APIURL = strings.Replace(config.APIURL, "EARLIER", other.URL+"/earlier", 1)
			p, err := newPlugin(s, config)
			if err != nil {
				t.Fatal(err)
			}
			address := row.url
			switch {
			case address == "":
				address = s.url + s.plugin.config.Path
			case address == "PROXY", address == "BUFFER":
				address = other.URL + "/" + strings.ToLower(address)
			case strings.HasPrefix(address, "/"):
				address = s.url + address
			}
			out, err := runCommand(p, "doctor", "--url", address)
			if row.problems == 0 && err != nil {
				t.Errorf("error: got %v, want none", err)
			}
			if row.problems > 0 {
				wantError(t, err, english.Plural(row.problems, "problem", "")+" found")
			}
			wantLines(t, out, row.lines...)
			if len(records(t, s, store.Content)) > 0 && !strings.Contains(row.name, "private") {
				t.Error("the doctor stored something")
			}
		})
	}
}

func TestHelpAndCompletion(t *testing.T) {
	t.Parallel()
	_, p := newTestApp(t, Config{})
	root := &cobra.Command{Use: "app"}
	p.addCommands(root)
	group, _, err := root.Find([]string{"modelriver"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range group.Commands() {
		if c.Example == "" || c.Long == "" {
			t.Errorf("%s: has no example or no long help", c.Name())
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len([]rune(line)) > 100 {
				t.Errorf("%s: a line of its help is %d wide: %s", c.Name(), len(line), line)
			}
		}
		out := mustRun(t, p, c.Name(), "--help")
		wantLines(t, out, `^Examples:`)
	}
	root.SetArgs([]string{cobra.ShellCompNoDescRequestCmd, "modelriver", "callbacks", "--state", ""})
	var out bytes.Buffer
	root.SetOut(&out)
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, out.String(), `^pending$`, `^delivered$`, `^failed$`)
}

// The commands must not keep the data directory from being used elsewhere, or make
// anything but it.
func TestCommandsWithoutSettings(t *testing.T) {
	t.Parallel()
	app, p := newTestApp(t, Config{})
	for _, args := range [][]string{{"status"}, {"callbacks"}, {"retry", "--all-failed"}} {
		mustRun(t, p, args...)
	}
	for _, args := range [][]string{{"send"}, {"simulate"}} {
		_, err := runCommand(p, args...)
		wantError(t, err, "set hooks.Config.WebhookSecrets")
	}
	if files, _ := filepath.Glob(filepath.Join(app.DataDir(), "*.db")); len(files) != 2 {
		t.Errorf("databases: got %q, want data.db and auxiliary.db", files)
	}
}

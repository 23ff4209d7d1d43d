package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/core"
)

// doctorFor returns the doctor's command of another process than the server's, with an
// API that answers.
func doctorFor(t *testing.T, s *testServer) *plugin {
	t.Helper()
	api := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(api.Close)
	config := testConfig()
	config.APIURL = api.URL
	p, err := newPlugin(s, config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A proxy may have the whole app below a path, or the webhook only.
func TestDoctorBehindASubpath(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	app, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app) }}
	p := doctorFor(t, s)
	for _, row := range []struct {
		name, webhook, live string
		proxy               http.Handler
	}{
		{"below a path", "/some%20app/webhooks/modelriver", "/some%20app/api/realtime", http.StripPrefix("/some app", forward)},
		{"the webhook under another name", "/in", "/api/realtime", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/in" {
				r.URL.Path = s.plugin.config.Path
			}
			forward.ServeHTTP(w, r)
		})},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			proxy := httptest.NewServer(row.proxy)
			defer proxy.Close()
			out := mustRun(t, p, "doctor", "--url", proxy.URL+row.webhook)
			wantLines(t, out, `^ok +webhook +`+proxy.URL+row.webhook+` answers`, `^ok +live +`+proxy.URL+row.live+` streams`)
		})
	}
	t.Run("with a password", func(t *testing.T) {
		t.Parallel()
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != "hidden-password" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			r.Header.Del("Authorization")
			forward.ServeHTTP(w, r)
		}))
		defer proxy.Close()
		out := mustRun(t, p, "doctor", "--url", strings.Replace(proxy.URL, "//", "//user:hidden-password@", 1)+s.plugin.config.Path)
		wantLines(t, out, `^ok +webhook `, `^ok +live `)
		if strings.Contains(out, "hidden-password") {
			t.Errorf("the password is shown:\n%s", out)
		}
	})
}

// The doctor names the rule that PocketBase applies to webhooks, which is the one that
// refuses them.
func TestDoctorFindsRateLimits(t *testing.T) {
	t.Parallel()
	const path = "/webhooks/modelriver"
	for _, row := range []struct {
		name  string
		rules []core.RateLimitRule
		hit   string // the label of the rule that refuses the second webhook; empty if none does
	}{
		{"none", nil, ""},
		{"PocketBase's own", []core.RateLimitRule{{Label: "*:create", MaxRequests: 1, Duration: 600}, {Label: "/api/", MaxRequests: 100, Duration: 600}}, ""},
		{"all paths", []core.RateLimitRule{{Label: "/", MaxRequests: 2, Duration: 600}}, "/"},
		{"a prefix", []core.RateLimitRule{{Label: "/webhooks/", MaxRequests: 1, Duration: 600}}, "/webhooks/"},
		{"the path", []core.RateLimitRule{{Label: path, MaxRequests: 1, Duration: 600}}, path},
		{"of guests", []core.RateLimitRule{{Label: "POST " + path, Audience: core.RateLimitRuleAudienceGuest, MaxRequests: 1, Duration: 600}}, "POST " + path},
		{"of users", []core.RateLimitRule{{Label: path, Audience: core.RateLimitRuleAudienceAuth, MaxRequests: 1, Duration: 600}}, ""},
		{"of another method", []core.RateLimitRule{{Label: "GET " + path, MaxRequests: 1, Duration: 600}}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, testConfig())
			s.Settings().RateLimits.Rules = row.rules
			s.Settings().RateLimits.Enabled = row.rules != nil
			if err := s.Save(s.Settings()); err != nil {
				t.Fatal(err)
			}
			p := doctorFor(t, s)
			out, err := runCommand(p, "doctor", "--url", s.url+path)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			again, err := runCommand(p, "doctor", "--url", s.url+path)
			if row.hit == "" {
				wantLines(t, out, `^ok +limits `)
				if err != nil {
					t.Errorf("%v\n%s", err, again)
				}
				return
			}
			wantLines(t, out, `^warning +limits +the rule "`+row.hit+`" takes \d requests? in 600s`, `add a rule "POST /webhooks/modelriver"`)
			wantError(t, err, " found")
			wantLines(t, again, `^problem +webhook +answered 429`)
		})
	}
}

// The server's doctor says what the command's does, but for what needs the network.
func TestDoctorRoute(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.APIKey = ""
	s := newTestServer(t, config)
	openRequests(t, s)
	_, body := s.call(t, superuserToken(t, s), http.MethodGet, "/api/modelriver/doctor", "")
	var answer struct {
		Findings []struct{ Check, Grade, Text, Remedy string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	var checks []string
	out, _ := runCommand(s.plugin, "doctor", "--url", s.url+config.Path)
	for _, f := range answer.Findings {
		checks = append(checks, f.Check)
		if line := fmt.Sprintf("%-7s  %-11s  %s", f.Grade, f.Check, f.Text); f.Check != "disk" && !strings.Contains(out, line) {
			t.Errorf("the command does not say %q:\n%s", line, out)
		}
		if f.Grade != "ok" && f.Remedy == "" {
			t.Errorf("no remedy: %+v", f)
		}
	}
	if got := fmt.Sprint(checks); got != "[secret key collections rules durability asking limits disk]" {
		t.Errorf("checks: got %s", got)
	}
	if got := answer.Findings[1]; got.Grade != "problem" || !strings.Contains(got.Remedy, "MODELRIVER_API_KEY") {
		t.Errorf("key: got %+v", got)
	}
	if strings.Contains(body, testSecret) {
		t.Error("a secret is told")
	}
}

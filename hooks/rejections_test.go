package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// rejectionsAnswer is the answer of the endpoint.
type rejectionsAnswer struct {
	LastHour, Today int
	Reasons         []store.RejectedReason
	Latest          []rejection
}

func (s *testServer) rejections(t testing.TB, token string) (answer rejectionsAnswer) {
	t.Helper()
	status, body := s.call(t, token, http.MethodGet, "/api/modelriver/rejections", "")
	if status != http.StatusOK {
		t.Fatalf("rejections: got %d %s", status, body)
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// rejectionRows returns what is written.
func rejectionRows(t testing.TB, app core.App) []store.Rejection {
	t.Helper()
	rows, err := store.ReadRejections(app, time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// signedAt returns the headers of a webhook that was signed at a time in a scheme.
func signedAt(t testing.TB, scheme string, at time.Time, payload string) http.Header {
	t.Helper()
	header := http.Header{}
	if err := modelriver.Sign(header, scheme, testSecret, at, []byte(payload)); err != nil {
		t.Fatal(err)
	}
	return header
}

func TestEveryReasonOfARejection(t *testing.T) {
	t.Parallel()
	const envelope = `{"data":{"n":1}}`
	break503 := func(t *testing.T, s *testServer) { deleteCollection(t, s, store.Channels) }
	stopWriting := func(t *testing.T, s *testServer) {
		if _, err := s.NonconcurrentDB().NewQuery("PRAGMA query_only = ON").Execute(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = s.NonconcurrentDB().NewQuery("PRAGMA query_only = OFF").Execute() })
	}
	for _, row := range []struct {
		reason  string
		payload string
		header  http.Header
		config  func(*Config)
		breaks  func(*testing.T, *testServer)
		answer  int
		scheme  string
	}{
		{reason: store.RejectedSignature, payload: "x", header: unsigned, answer: 401, scheme: "body"},
		{reason: store.RejectedSignature, payload: envelope, header: http.Header{"X-Modelriver-Signature": {"0"}, "X-Modelriver-Timestamp": {"1"}}, answer: 401, scheme: "data"},
		{reason: store.RejectedUnsigned, payload: "x", header: http.Header{}, answer: 401},
		{reason: store.RejectedStale, payload: envelope, header: signedAt(t, "data", time.Now().Add(-time.Hour), envelope),
			config: func(c *Config) { c.Tolerance = time.Minute }, answer: 401, scheme: "data"},
		{reason: store.RejectedTooLarge, payload: strings.Repeat("x", 11), header: http.Header{}, config: func(c *Config) { c.MaxBodySize = 10 }, answer: 413},
		{reason: store.RejectedCompressed, payload: "x", header: http.Header{"Content-Encoding": {"gzip"}}, answer: 415},
		{reason: store.RejectedNotJSON, payload: "[]", answer: 400, scheme: "body"},
		{reason: store.RejectedNoSecret, payload: "x", header: unsigned, config: func(c *Config) { c.WebhookSecrets = nil }, answer: 503, scheme: "body"},
		{reason: store.RejectedSchema, payload: generated("c", `{}`, ""), breaks: break503, answer: 503, scheme: "body"},
		{reason: store.RejectedDatabase, payload: generated("c", `{}`, ""), breaks: stopWriting, answer: 503, scheme: "body"},
	} {
		t.Run(row.reason+" "+row.scheme, func(t *testing.T) {
			t.Parallel()
			config := testConfig()
			if row.config != nil {
				row.config(&config)
			}
			s := newTestServer(t, config)
			token := superuserToken(t, s)
			if row.breaks != nil {
				row.breaks(t, s)
			}
			began := time.Now().Add(-time.Second)
			if status, body := s.post(t, row.payload, row.header); status != row.answer {
				t.Fatalf("answer: got %d %s, want %d", status, body, row.answer)
			}
			answer := s.rejections(t, token)
			if answer.LastHour != 1 || answer.Today > 1 || len(answer.Reasons) != 1 || len(answer.Latest) != 1 {
				t.Fatalf("got %+v, want one", answer)
			}
			reason, latest := answer.Reasons[0], answer.Latest[0]
			if reason.Reason != row.reason || reason.Count != 1 || reason.Last != latest.At || reason.Error == "" || reason.Remedy == "" {
				t.Errorf("reasons: got %+v, want %s with error and remedy", reason, row.reason)
			}
			if latest.Reason != row.reason || latest.Error != reason.Error || latest.Remedy != reason.Remedy || latest.At.Time().Before(began) ||
				latest.From != "127.0.0.1" || latest.Scheme != row.scheme || latest.Size != int64(len(row.payload)) || latest.UserAgent == "" {
				t.Errorf("latest: got %+v, want %s in the scheme %q of %d bytes", latest, row.reason, row.scheme, len(row.payload))
			}
			if !slices.Contains(store.RejectedFor, row.reason) {
				t.Errorf("%s is not among all reasons", row.reason)
			}
		})
	}
}

func TestShuttingDownIsNoRejection(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	s.plugin.stopping.Store(true)
	if status, _ := s.post(t, "x", unsigned); status != 503 {
		t.Fatalf("answer: got %d, want 503", status)
	}
	if got := s.rejections(t, superuserToken(t, s)); got.LastHour != 0 || len(got.Latest) != 0 {
		t.Errorf("got %+v, want none", got)
	}
}

// Behind a proxy that PocketBase trusts, a rejection is from whom the proxy names.
func TestWhereARejectionIsFrom(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	header := http.Header{
		"X-Forwarded-For": {"203.0.113.7"},
		"User-Agent":      {"\u202e\xff<b>\t" + strings.Repeat("ä", 300)},
	}
	s.post(t, "x", header)
	s.Settings().TrustedProxy.Headers = []string{"X-Forwarded-For"}
	s.post(t, "x", header)
	header.Set("X-Forwarded-For", "fe80::1%"+strings.Repeat("z", 1000)) // a zone may be anything
	s.post(t, "x", header)
	latest := s.rejections(t, superuserToken(t, s)).Latest
	if latest[2].From != "127.0.0.1" || latest[1].From != "203.0.113.7" || len(latest[0].From) != maxFrom {
		t.Errorf("from: got %q, %q, %q", latest[2].From, latest[1].From, latest[0].From)
	}
	if agent := latest[0].UserAgent; agent != "<b>"+strings.Repeat("ä", 197) || !utf8.ValidString(agent) {
		t.Errorf("user agent: got %q", agent)
	}
}

// A flood of junk grows neither memory nor table nor log. No test runs beside it: memory is everybody's.
func TestFloodOfJunk(t *testing.T) {
	s := newRejectingServer(t, time.Hour, 0)
	flood := func(n int) {
		for i := range n {
			request := httptest.NewRequest(http.MethodPost, "/webhooks/modelriver", strings.NewReader("junk"))
			request.Header.Set("User-Agent", fmt.Sprint(i, strings.Repeat("x", 1000)))
			request.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)
			if i%2 == 0 {
				request.Header.Set("Mr-Signature", fmt.Sprint(i))
			}
			event := &core.RequestEvent{App: s}
			event.Request, event.Response = request, httptest.NewRecorder()
			if err := s.plugin.handleWebhook(event); err != nil {
				t.Fatal(err)
			}
		}
	}
	memory := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	flood(1000)
	before := memory()
	flood(99_000)
	if grown := memory() - before; grown > 10<<20 {
		t.Errorf("memory: grew by %d bytes", grown)
	}
	if waiting := len(s.plugin.rejected.unwrittenYet()); waiting > 2*len(store.RejectedFor) {
		t.Errorf("counts that wait: got %d", waiting)
	}
	answer := s.rejections(t, superuserToken(t, s))
	if answer.LastHour != 100_000 || len(answer.Reasons) != 2 || answer.Reasons[0].Count != 50_000 || len(answer.Latest) != maxLatest {
		t.Errorf("got %d in the last hour, %+v, %d in detail", answer.LastHour, answer.Reasons, len(answer.Latest))
	}
	if first, last := answer.Latest[0].UserAgent, answer.Latest[maxLatest-1].UserAgent; !strings.HasPrefix(first, "98999x") || !strings.HasPrefix(last, "98950x") {
		t.Errorf("latest: got %.6s to %.6s, want the newest first", first, last)
	}
	s.plugin.rejected.settle(t, s)
	if got := len(rejectionRows(t, s)); got > 4 { // two reasons, in two hours if one has just begun
		t.Errorf("rows: got %d, want 2", got)
	}
	if got := len(loggedRejections(t, s)); got != 1 {
		t.Errorf("log rows: got %d, want 1", got)
	}
}

func TestCountsOfRejectionsSurvive(t *testing.T) {
	t.Parallel()
	s := newRejectingServer(t, time.Hour, 3)
	if err := s.OnTerminate().Trigger(&core.TerminateEvent{App: s}, func(*core.TerminateEvent) error { return nil }); err != nil {
		t.Fatal(err)
	}
	again := restarted(t, s)
	again.post(t, "x", http.Header{})
	token := superuserToken(t, again)
	got := again.rejections(t, token)
	if got.LastHour != 4 || len(got.Reasons) != 2 || got.Reasons[0].Count != 3 || got.Reasons[0].Reason != store.RejectedSignature || len(got.Latest) != 1 {
		t.Errorf("after a restart: got %+v, want 3 of before and 1", got)
	}
	_, stats := again.get(t, "/api/modelriver/stats", token)
	if rejected, _ := stats["rejected"].(map[string]any); fmt.Sprint(rejected["lastHour"], rejected["count"]) != "4 4" || rejected["reason"] != "signature does not match" {
		t.Errorf("stats: got %v", stats["rejected"])
	}
}

func TestRejectionsAreForSuperusers(t *testing.T) {
	t.Parallel()
	s := newRejectingServer(t, time.Hour, 1)
	s.plugin.rejected.settle(t, s)
	row, err := s.FindFirstRecordByData(store.Rejections, "reason", store.RejectedSignature)
	if err != nil {
		t.Fatal(err)
	}
	_, user := newUser(t, s, "reader@example.com")
	for _, path := range []string{
		"/api/modelriver/rejections", "/api/modelriver/stats", "/api/modelriver/chart", "/api/modelriver/doctor",
		"/api/collections/modelriverRejections/records", "/api/collections/modelriverRejections/records/" + row.Id,
	} {
		for token, want := range map[string][]int{"": {401, 403}, "x.y.z": {401, 403}, user: {403}} {
			status, body := s.call(t, token, http.MethodGet, path, "")
			if !slices.Contains(want, status) && !(status == 404 && strings.HasPrefix(path, "/api/collections/")) || strings.Contains(body, "signature does not match") {
				t.Errorf("%s with %.5q: got %d %s", path, token, status, body)
			}
		}
	}
}

func TestVersionsAndAskingInStats(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	token := superuserToken(t, s)
	_, stats := s.get(t, "/api/modelriver/stats", token)
	if versions, _ := stats["versions"].(map[string]any); len(versions) != 2 {
		t.Errorf("versions: got %v, want PocketRiver's and PocketBase's", stats["versions"])
	}
	asking := func() string {
		_, stats := s.get(t, "/api/modelriver/stats", token)
		return fmt.Sprint(stats["asking"])
	}
	if got := asking(); got != "map[limited:false open:false]" {
		t.Errorf("closed: got %s", got)
	}
	openRequests(t, s)
	if got := asking(); got != "map[limited:false open:true]" {
		t.Errorf("open: got %s", got)
	}
	s.Settings().RateLimits.Rules = []core.RateLimitRule{{Label: "aiRequests:create", MaxRequests: 10, Duration: 60}}
	s.Settings().RateLimits.Enabled = true
	if got := asking(); got != "map[limited:true open:true]" {
		t.Errorf("limited: got %s", got)
	}
}

// Anybody can send a webhook without a signature: one hides no other reason, and is counted apart.
func TestUnsignedHidesNoOtherReason(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	s.plugin.outbox.Stop() // which reads the clock
	s.atClock("2026-03-01 12:00")
	s.post(t, "x", http.Header{})
	token := superuserToken(t, s)
	rejected := func() map[string]any {
		_, body := s.get(t, "/api/modelriver/stats", token)
		return body["rejected"].(map[string]any)
	}
	if got := rejected(); got["reason"] != "no signature header" {
		t.Errorf("alone: got %v", got)
	}
	s.post(t, "x", unsigned)
	s.post(t, "x", http.Header{})
	got := rejected()
	if got["reason"] != "signature does not match" || got["today"] != 3.0 || got["unsignedToday"] != 2.0 || got["lastHour"] != 3.0 || got["unsignedLastHour"] != 2.0 {
		t.Errorf("beside another: got %v", got)
	}
}

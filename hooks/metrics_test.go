package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

const testMetricsToken = "metrics-token-0123456789"

// metrics returns the value of each metric, by name and labels.
func (s *testServer) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	status, body := s.call(t, "Bearer "+testMetricsToken, http.MethodGet, "/api/modelriver/metrics", "")
	if status != http.StatusOK {
		t.Fatalf("metrics: got %d %s", status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v:\n%s", err, body)
	}
	values := map[string]float64{}
	for name, family := range families {
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		for _, metric := range family.Metric {
			labels := ""
			for _, label := range metric.Label {
				labels += " " + label.GetName() + "=" + label.GetValue()
			}
			if family.GetType().String() == "COUNTER" != strings.HasSuffix(name, "_total") {
				t.Errorf("%s is a %s", name, family.GetType())
			}
			values[name+labels] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return values
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.MetricsToken = testMetricsToken
	s := newTestServer(t, config)
	before := s.metrics(t)
	r := newReceiver(t, func(w http.ResponseWriter, request *http.Request) {
		time.Sleep(2 * time.Millisecond) // times are told in whole ones: none takes 0
		if strings.Contains(request.URL.Path, "later") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if strings.Contains(request.URL.Path, "never") {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	for _, channel := range []string{"a", "b", "later", "never"} {
		s.mustPost(t, generated(channel, `{"title":"T"}`, r.URL+"/"+channel))
	}
	for range 3 {
		s.post(t, "x", unsigned)
	}
	s.post(t, "x", http.Header{})
	expected := map[string]float64{
		"modelriver_webhooks_rejected_total reason=signature": 3, "modelriver_webhooks_rejected_total reason=unsigned": 1,
		"modelriver_webhooks state=stored": 4, "modelriver_webhooks state=refused": 0,
		"modelriver_callbacks state=delivered": 2, "modelriver_callbacks state=failed": 1, "modelriver_callbacks state=pending": 1,
	}
	var got map[string]float64
	eventually(t, "the metrics tell what happened", func() bool {
		got = s.metrics(t)
		for name, want := range expected {
			if got[name] != want {
				return false
			}
		}
		return true
	})
	for _, name := range []string{
		"modelriver_callback_oldest_pending_seconds", "modelriver_callback_median_seconds", "modelriver_callback_p95_seconds",
		"modelriver_webhook_last_received_timestamp_seconds",
	} {
		if got[name] <= 0 || before[name] != 0 {
			t.Errorf("%s: got %v, before %v", name, got[name], before[name])
		}
	}
	for _, reason := range store.RejectedFor {
		if value, ok := before["modelriver_webhooks_rejected_total reason="+reason]; !ok || value != 0 {
			t.Errorf("%s: got %v before any", reason, value)
		}
	}

	// A counter does not go down with the rows.
	s.plugin.rejected.settle(t, s)
	if _, err := s.NonconcurrentDB().NewQuery("DELETE FROM modelriverRejections").Execute(); err != nil {
		t.Fatal(err)
	}
	if got := s.metrics(t)["modelriver_webhooks_rejected_total reason=signature"]; got != 3 {
		t.Errorf("after the rows went: got %v rejected, want 3", got)
	}
}

func TestWhoMayReadMetrics(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.MetricsToken = testMetricsToken
	s, without := newTestServer(t, config), newTestServer(t, testConfig())
	_, user := newUser(t, s, "reader@example.com")
	for _, row := range []struct {
		name, authorization string
		server              *testServer
		status              int
	}{
		{"the token", "Bearer " + testMetricsToken, s, 200},
		{"the token, of a client that writes bearer", "bearer " + testMetricsToken, s, 200},
		{"a superuser", superuserToken(t, s), s, 200},
		{"a superuser as bearer", "Bearer " + superuserToken(t, without), without, 200},
		{"a guest", "", s, 401},
		{"the token without Bearer", testMetricsToken, s, 401},
		{"another token", "Bearer x" + testMetricsToken[1:], s, 401},
		{"a longer token", "Bearer " + testMetricsToken + "x", s, 401},
		{"a user", user, s, 403},
		{"the token where none is set", "Bearer " + testMetricsToken, without, 401},
		{"nothing where none is set", "Bearer ", without, 401},
	} {
		status, body := row.server.call(t, row.authorization, http.MethodGet, "/api/modelriver/metrics", "")
		if status != row.status {
			t.Errorf("%s: got %d %s, want %d", row.name, status, body, row.status)
		}
		if status != 200 && !strings.Contains(body, fmt.Sprintf(`"status":%d`, status)) {
			t.Errorf("%s: got %s, want PocketBase's shape", row.name, body)
		}
	}
	// It opens nothing else.
	if status, _ := s.call(t, "Bearer "+testMetricsToken, http.MethodGet, "/api/modelriver/stats", ""); status != 401 {
		t.Errorf("stats with the metrics' token: got %d, want 401", status)
	}
	if strings.Contains(logRows(t, s), testMetricsToken[1:]) {
		t.Error("the token is in the log")
	}
}

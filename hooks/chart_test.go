package hooks

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func TestChartRoute(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, testConfig())
	token := superuserToken(t, s)
	s.mustPost(t, generated("c", `{"title":"T"}`, ""))
	s.post(t, "x", unsigned)
	for query, want := range map[string]struct{ buckets, seconds int }{"": {24, 3600}, "?hours=24": {24, 3600}, "?hours=168": {28, 6 * 3600}} {
		status, body := s.call(t, token, http.MethodGet, "/api/modelriver/chart"+query, "")
		var chart store.Chart
		if err := json.Unmarshal([]byte(body), &chart); err != nil || status != 200 {
			t.Fatalf("%s: got %d %s", query, status, body)
		}
		if len(chart.Buckets) != want.buckets || chart.Seconds != want.seconds {
			t.Errorf("%s: got %d buckets of %d s, want %+v", query, len(chart.Buckets), chart.Seconds, want)
		}
		received, rejected := 0, 0
		for _, bucket := range chart.Buckets[want.buckets-2:] { // an hour may have begun since
			received += bucket.Received
			rejected += bucket.Rejected
		}
		if last := chart.Buckets[want.buckets-1].At.Time(); received != 1 || rejected != 1 || time.Since(last) > time.Duration(want.seconds)*time.Second+time.Minute {
			t.Errorf("%s: got %s", query, body)
		}
	}
	for _, query := range []string{"?hours=25", "?hours=x", "?hours=-24"} {
		if status, body := s.call(t, token, http.MethodGet, "/api/modelriver/chart"+query, ""); status != 400 {
			t.Errorf("%s: got %d %s, want 400", query, status, body)
		}
	}
}

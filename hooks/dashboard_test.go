package hooks

import (
	"fmt"
	"strings"
	"testing"
)

func TestStatsRoute(t *testing.T) {
	t.Parallel()
	config := testConfig()
	config.Path = "/in"
	config.APIKey = ""
	s := newTestServer(t, config)
	token := superuserToken(t, s)

	status, body := s.get(t, "/api/modelriver/stats", token)
	if status != 200 || body["path"] != "/in" || fmt.Sprint(body["secrets"]) != "1" || body["keySet"] != false || body["problem"] != "" {
		t.Errorf("got %d %v, want the path, one secret and the key as missing", status, body)
	}
	if text := fmt.Sprint(body); strings.Contains(text, testSecret) || strings.Contains(text, testKey) {
		t.Error("the figures carry a secret")
	}
	if status, body := s.get(t, "/api/modelriver/stats?since=yesterday", token); status != 400 || !strings.Contains(fmt.Sprint(body), "2026-01-31T00:00:00Z") {
		t.Errorf("since=yesterday: got %d %v, want 400 and an example", status, body)
	}
	if status, body := s.get(t, "/api/modelriver/stats?since=2020-01-02T03:04:05%2B02:00", token); status != 200 || body["since"] != "2020-01-02 01:04:05.000Z" {
		t.Errorf("since with an offset: got %d %v, want it in UTC", status, body)
	}
	if status, _ := s.get(t, "/api/modelriver/stats", ""); status != 401 {
		t.Errorf("for a guest: got %d, want 401", status)
	}
}

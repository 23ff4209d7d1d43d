package tests

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// A monitor with the token reads the metrics, which name what is built, as the figures do.
func TestMetricsOfTheBinary(t *testing.T) {
	t.Parallel()
	const token = "a-token-for-metrics"
	s := startServer(t, "", "MODELRIVER_METRICS_TOKEN="+token)
	s.sendUnsigned()
	get := func(authorization string) (int, string) {
		request, _ := http.NewRequest(http.MethodGet, s.URL+"/api/modelriver/metrics", nil)
		request.Header.Set("Authorization", authorization)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	if status, body := get("Bearer another-token-of-metrics"); status != 401 {
		t.Errorf("another token: got %d %s, want 401", status, body)
	}
	out, err := exec.Command(s.binary, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`version (.+) \(PocketBase (\S+)\)`).FindStringSubmatch(string(out))
	if version == nil {
		t.Fatalf("version: got %s", out)
	}
	status, body := get("Bearer " + token)
	for _, want := range []string{
		"modelriver_webhooks_rejected_total{reason=\"signature\"} 1\n", "modelriver_callbacks{state=\"failed\"} 0\n",
		fmt.Sprintf("modelriver_build_info{pocketbase=%q,version=%q} 1\n", version[2], version[1]),
	} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("got %d without %s:\n%s", status, want, body)
		}
	}
	var stats struct {
		Versions struct{ PocketRiver, PocketBase string }
	}
	s.API(s.Superuser(), http.MethodGet, "/api/modelriver/stats", nil, &stats)
	if got := stats.Versions; got.PocketRiver != version[1] || got.PocketBase != version[2] {
		t.Errorf("stats: got %+v, want %v", got, version[1:])
	}
}

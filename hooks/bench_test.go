package hooks

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/commit"
)

// One webhook through the route: HTTP on loopback, signature, event, commit, answer. Its
// callback row waits, since there is no key.
func BenchmarkIngest(b *testing.B) {
	for _, row := range []struct {
		name    string
		workers int
	}{{"alone", 1}, {"32 at a time", 32}} {
		b.Run(row.name, func(b *testing.B) {
			config := testConfig()
			config.APIKey = ""
			server := newTestServer(b, config)
			own := commit.SaveHooks(server)
			server.plugin.commits.OwnHooks = func() int { return own } // the test app's hooks are not a host's
			http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 64
			data := `{"title":"A title","description":"` + strings.Repeat("lorem ipsum ", 60) + `"}`
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(row.workers)
			b.ResetTimer()
			work := func() {
				channel := fmt.Sprintf("bench-%d", n.Add(1))
				if status, body, err := server.tryPost(generated(channel, data, "https://api.modelriver.com/v1/callback/"+channel), nil); err != nil || status != 200 {
					b.Errorf("%d %s %v", status, body, err)
				}
			}
			if row.workers == 1 {
				for b.Loop() {
					work()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					work()
				}
			})
		})
	}
}

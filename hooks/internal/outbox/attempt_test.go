package outbox

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What becomes of a callback after each outcome of an attempt.
func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Now()
	reset := errors.New("connection reset")
	busy := &modelriver.StatusError{Code: 503, RetryAfter: 40 * time.Second}
	gone := &modelriver.StatusError{Code: 410}
	host := fmt.Errorf("%w: host %q", modelriver.ErrCallbackHost, "x")
	for _, row := range []struct {
		name    string
		refused string // why the event was, if it was
		left    time.Duration
		status  int
		err     error

		state string
		after time.Duration // until it is sent again
		set   map[string]any
		tell  bool // ModelRiver, that it failed
	}{
		{"accepted", "", time.Minute, 200, nil, store.Delivered, 0, nil, false},
		{"accepted after its window", "", -time.Minute, 200, nil, store.Delivered, 0, nil, false},
		{"network error", "", time.Minute, 0, reset, store.Pending, time.Second, nil, false},
		{"busy, with Retry-After", "", time.Minute, 503, busy, store.Pending, 40 * time.Second, nil, false},
		{"busy beyond its window", "", 30 * time.Second, 503, busy, store.Failed, 0,
			map[string]any{"lastError": busy.Error(), "lastStatus": 503}, true},
		{"network error at the end", "", 0, 0, reset, store.Failed, 0,
			map[string]any{"lastError": "connection reset", "lastStatus": 0}, true},
		{"not waited for any more", "", time.Minute, 410, gone, store.Failed, 0,
			map[string]any{"lastError": gone.Error(), "lastStatus": 410}, true},
		{"no key", "", time.Minute, 0, errNoKey, store.Failed, 0, map[string]any{"lastError": errNoKey.Error()}, true},
		{"a host that may not get the key", "", time.Minute, 0, host, store.Failed, 0,
			map[string]any{"lastError": host.Error() + ". Add it to MODELRIVER_CALLBACK_HOSTS if you trust it with the key, restart, and retry this callback"}, true},

		{"refused, and told so", "refused: no", time.Minute, 200, nil, store.Failed, 0,
			map[string]any{"lastError": "refused: no", "lastStatus": 200, "deliveredAt": store.DateTime(now)}, false},
		{"refused, nobody to tell", "refused: no", time.Minute, 0, errNoURL, store.Failed, 0,
			map[string]any{"lastError": "refused: no", "lastStatus": 0}, false},
		{"refused, network error", "refused: no", time.Minute, 0, reset, store.Pending, time.Second, nil, false},
		{"refused, not waited for any more", "refused: no", time.Minute, 410, gone, store.Failed, 0,
			map[string]any{"lastError": "refused: no; error callback: " + gone.Error(), "lastStatus": 410}, false},
		{"refused, window ended", "refused: no", 0, 0, reset, store.Failed, 0,
			map[string]any{"lastError": "refused: no; error callback: connection reset", "lastStatus": 0}, false},
	} {
		cb := &store.Callback{Attempts: 1, Expires: store.DateTime(now.Add(row.left)), Refused: row.refused != "", Reason: row.refused}
		got := judge(cb, row.status, row.err, now, 1)
		if got.state != row.state || (got.cause != nil) != row.tell || !maps.Equal(got.set, row.set) {
			t.Errorf("%s: got %+v, want %s with %v", row.name, got, row.state, row.set)
		}
		if row.state == store.Pending && got.next.Sub(now) != row.after {
			t.Errorf("%s: sent again after %s, want %s", row.name, got.next.Sub(now), row.after)
		}
	}
}

package outbox

import (
	"errors"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What becomes of a request after each outcome of an attempt.
func TestJudgeAsked(t *testing.T) {
	t.Parallel()
	type asked = modelriver.Asked
	now := time.Now()
	cut := errors.New("connection reset")
	const left = time.Minute
	taken := fate{state: store.Sent}
	failed := func(reason string) fate { return fate{state: store.Failed, reason: reason} }
	again := func(after time.Duration) fate { return fate{state: store.Queued, next: now.Add(after)} }
	unknown := fate{state: store.Failed, reason: reasonUnknown, open: true}
	notTaken := failed(reasonNotTaken)
	for _, row := range []struct {
		name  string
		asked asked
		left  time.Duration
		want  fate
	}{
		{"taken", asked{Status: 200, ChannelID: "c", Written: true}, left, taken},
		{"taken with another 2xx", asked{Status: 202, ChannelID: "c", Written: true}, left, taken},
		{"taken after its window", asked{Status: 200, ChannelID: "c", Written: true}, -left, taken},
		{"an error that was answered 200", asked{Status: 200, Message: "no workflow", Written: true}, left, failed("no workflow")},
		{"an error with a channel", asked{Status: 200, ChannelID: "c", Message: "no", Written: true}, left, failed("no")},
		{"no channel", asked{Status: 200, Written: true}, left, unknown},
		{"an answer that was cut off", asked{Status: 200, Written: true, Err: cut}, left, unknown},

		{"limited", asked{Status: 429, Written: true}, left, again(time.Second)},
		{"limited, with Retry-After", asked{Status: 429, RetryAfter: 40 * time.Second, Written: true}, left, again(40 * time.Second)},
		{"limited beyond its window", asked{Status: 429, RetryAfter: 2 * left, Written: true}, left, notTaken},
		{"unavailable", asked{Status: 503, Written: true}, left, again(time.Second)},
		{"unavailable at the end", asked{Status: 503, Written: true}, 0, notTaken},
		{"no connection", asked{Err: cut}, left, again(time.Second)},
		{"no connection at the end", asked{Err: cut}, 0, notTaken},

		{"refused", asked{Status: 400, Message: "messages are missing", Written: true}, left, failed("messages are missing")},
		{"refused without a message", asked{Status: 404, Written: true}, left, failed("ModelRiver refused the request: 404 Not Found")},
		{"refused, cut off", asked{Status: 422, Written: true, Err: cut}, left, failed("ModelRiver refused the request: 422 Unprocessable Entity")},
		{"a key that is not accepted", asked{Status: 401, Message: "invalid key", Written: true}, left, failed(reasonUnset)},
		{"a key without a right", asked{Status: 403, Message: "no right", Written: true}, left, failed(reasonUnset)},
		{"a redirect", asked{Status: 307, Written: true}, left, failed(reasonUnset)},

		{"no answer", asked{Written: true, Err: cut}, left, unknown},
		{"timed out on the other side", asked{Status: 408, Message: "timeout", Written: true}, left, unknown},
		{"500", asked{Status: 500, Message: "oops", Written: true}, left, unknown},
		{"502", asked{Status: 502, Written: true}, left, unknown},
		{"504", asked{Status: 504, Written: true}, left, unknown},
		{"another 5xx", asked{Status: 524, Written: true}, left, unknown},
	} {
		got := judgeAsked(row.asked, 1, row.left, now, 1)
		if unset := got.reason == reasonUnset; unset != (got.remedy != "") {
			t.Errorf("%s: the operator is told %q", row.name, got.remedy)
		}
		got.remedy = ""
		if got != row.want {
			t.Errorf("%s: got %+v, want %+v", row.name, got, row.want)
		}
	}
}

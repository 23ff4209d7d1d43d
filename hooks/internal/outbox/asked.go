package outbox

import (
	"fmt"
	"net/http"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What the user of a request that failed reads. Why the server is not set up is the
// operator's to know: the log says it.
const (
	reasonUnset      = "Asking is not set up on this server. Its operator finds the cause in the log."
	reasonNotTaken   = "ModelRiver did not take the request within 5 minutes. Ask again later."
	reasonUnknown    = "It is not known whether ModelRiver took the request, so it is not sent again by itself. If an answer comes, it is shown."
	reasonUnanswered = "No answer came within 4 hours. If it comes later, it is shown."
	reasonUnfit      = "The request has no input that can be sent: a JSON object, with metadata that is none or an object."
)

// A fate is what becomes of a request after an attempt to send it.
type fate struct {
	state  string    // sent, failed, or queued still
	next   time.Time // of one that is queued: when it is sent again
	reason string    // of one that failed, for its user
	remedy string    // of one that failed, for the operator
	open   bool      // it failed, but ModelRiver may have taken it
}

// judgeAsked decides what becomes of a request after an attempt that ended now. Nothing is
// sent again of which ModelRiver may have begun: a second answer costs money too. jitter is
// what its delay is multiplied by.
func judgeAsked(asked modelriver.Asked, attempts int, remaining time.Duration, now time.Time, jitter float64) fate {
	status := asked.Status
	switch {
	case status >= 200 && status <= 299 && asked.Message != "":
		return fate{state: store.Failed, reason: asked.Message}
	case status >= 200 && status <= 299 && asked.ChannelID != "":
		return fate{state: store.Sent}
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, !asked.Written:
		delay, inWindow := nextDelay(attempts, asked.RetryAfter, remaining, jitter)
		if inWindow {
			return fate{state: store.Queued, next: now.Add(delay)}
		}
		return fate{state: store.Failed, reason: reasonNotTaken}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fate{state: store.Failed, reason: reasonUnset, remedy: "ModelRiver refuses the API key: set MODELRIVER_API_KEY to one of the project that has the workflow, and restart"}
	case status >= 300 && status <= 399:
		return fate{state: store.Failed, reason: reasonUnset, remedy: "ModelRiver's address answers with a redirect, which is not followed: set MODELRIVER_API_URL to where it leads, and restart"}
	case status == http.StatusRequestTimeout: // perhaps a proxy's, which gave up on what it had passed on
	case status >= 400 && status <= 499 && asked.Message != "":
		return fate{state: store.Failed, reason: asked.Message}
	case status >= 400 && status <= 499:
		return fate{state: store.Failed, reason: fmt.Sprintf("ModelRiver refused the request: %d %s", status, http.StatusText(status))}
	}
	return fate{state: store.Failed, reason: reasonUnknown, open: true}
}

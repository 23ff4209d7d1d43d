package simulator

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// A callback is what the simulator reads of one.
type callback struct {
	Data     json.RawMessage
	TaskID   string `json:"task_id"`
	Error    string
	Message  string
	Metadata struct {
		RecordID string `json:"record_id"`
	}
}

// parseCallback returns a callback's body and its kind, success or error, or why it is
// none.
func parseCallback(body []byte) (cb callback, kind, problem string) {
	switch err := json.Unmarshal(body, &cb); {
	case err != nil:
		return cb, "", "The body is not a JSON object: " + err.Error()
	case cb.Error != "":
		return cb, "error", ""
	case !bytes.HasPrefix(bytes.TrimSpace(cb.Data), []byte("{")):
		return cb, "", "data must be a JSON object"
	}
	return cb, "success", ""
}

// about says what the callback tells.
func (cb callback) about() string {
	switch {
	case cb.Error != "":
		return cb.Error + ": " + excerpt([]byte(cb.Message))
	case cb.Metadata.RecordID == "":
		return cb.TaskID
	}
	return "record " + cb.Metadata.RecordID
}

// handleCallback answers POST /v1/callback/{channel}. ModelRiver does not say what it
// answers to a callback that comes late or twice: here a late one is refused, and
// another one is taken as long as there is time.
func (s *simulator) handleCallback(w http.ResponseWriter, request *http.Request) {
	if !s.authorized(w, request) {
		return
	}
	s.mu.Lock()
	r := s.requests[request.PathValue("channel")]
	s.mu.Unlock()
	if r == nil {
		writeAPIError(w, http.StatusNotFound, "invalid_request_error", "There is no request with this channel id")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 200<<20))
	if err != nil {
		writeAPIError(w, http.StatusRequestEntityTooLarge, "invalid_request_error", "The callback is too large")
		return
	}
	cb, kind, problem := parseCallback(body)
	if problem != "" {
		s.log(r, "callback", "422: %s", problem)
		writeAPIError(w, http.StatusUnprocessableEntity, "invalid_request_error", problem)
		return
	}
	before, after, refused := s.take(r, kind)
	if refused != nil {
		s.log(r, "callback", "%d: %s", refused.status, refused.line)
		writeAPIError(w, refused.status, "invalid_request_error", refused.message)
		return
	}
	again := ""
	if before != "" {
		again = " (before it: " + before + ")"
	}
	s.log(r, "callback", "%s after %s: %s%s", kind, after, cb.about(), again)
	if before == "error" && kind == "success" {
		s.log(r, "completed", "after the error")
	}
	writeJSON(w, http.StatusOK, map[string]any{"success": true, "channel_id": r.channel})
}

// A refusal is why a callback is not taken.
type refusal struct {
	status        int
	line, message string // of the log, and of the answer
}

// take takes a callback of a kind. It returns the kind that was taken before, and how long
// the webhook was sent ago.
func (s *simulator) take(r *aiRequest, kind string) (before string, after time.Duration, refused *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, after = r.accepted, time.Since(r.sent).Round(precision)
	switch {
	case kind == "success" && s.refuse > 0:
		s.refuse--
		return before, after, &refusal{http.StatusUnprocessableEntity, "refused, as --refuse-callbacks asks for", "Refused by --refuse-callbacks"}
	case r.deadline.IsZero():
		return before, after, &refusal{http.StatusConflict, "no webhook was sent yet", "No webhook was sent for this request yet"}
	case time.Now().After(r.deadline):
		return before, after, &refusal{http.StatusGone, "too late, after " + after.String(), "The callback came after its window of " + s.window.String()}
	}
	// A success counts after an error, as after "modelriver retry"; nothing else does.
	switch {
	case before == "":
		r.accepted = kind
		close(r.called)
	case before == "error" && kind == "success":
		r.accepted = kind
		if r.end == "error" { // else its end is still to be counted
			r.end = "completed"
			s.ends["error"]--
			s.ends["completed"]++
		}
	}
	return before, after, nil
}

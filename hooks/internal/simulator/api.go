package simulator

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// handleRequest answers POST /v1/ai/async.
func (s *simulator) handleRequest(ctx context.Context, w http.ResponseWriter, request *http.Request) {
	if !s.authorized(w, request) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 10<<20))
	if err != nil {
		writeAPIError(w, http.StatusRequestEntityTooLarge, "invalid_request_error", "The request is too large")
		return
	}
	var fields struct {
		Workflow   string
		Event      string
		Events     []string
		WebhookURL string `json:"webhook_url"`
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		writeAPIError(w, http.StatusBadRequest, "invalid_request_error", "The body is not a JSON object: "+err.Error())
		return
	}
	if fields.Workflow == "" {
		writeAPIError(w, http.StatusBadRequest, "invalid_request_error", "workflow is required")
		return
	}
	r := &aiRequest{
		workflow: fields.Workflow, event: s.options.Event, target: s.options.Target,
		customer: cacheFields(body, s.options.CacheFields),
	}
	if fields.Event != "" {
		r.event = fields.Event
	}
	if len(fields.Events) > 0 {
		r.event = fields.Events[0]
	}
	if fields.WebhookURL != "" {
		u, err := url.Parse(fields.WebhookURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() {
			writeAPIError(w, http.StatusBadRequest, "invalid_request_error", "webhook_url: the simulator posts to this machine only; start it with --target for another")
			return
		}
		r.target = fields.WebhookURL
	}
	s.begin(ctx, r, nil)

	const project = "00000000-0000-4000-8000-000000000000"
	writeJSON(w, http.StatusOK, map[string]any{
		"message": "success", "status": "pending", "channel_id": r.channel, "project_id": project,
		"ws_token":          rand.Text(),
		"websocket_url":     "ws" + strings.TrimPrefix(s.base, "http") + "/socket",
		"websocket_channel": "ai_response:" + project + ":" + r.channel,
	})
}

// cacheFields is ModelRiver's customer_data: what the request has at the given paths,
// each under its path as written
// (https://modelriver.com/docs/workflows/customer-data).
func cacheFields(body []byte, paths []string) json.RawMessage {
	customer := json.RawMessage("{}")
	for _, path := range paths {
		value := json.RawMessage(body)
		for name := range strings.SplitSeq(path, ".") {
			var object map[string]json.RawMessage
			_ = json.Unmarshal(value, &object) // nothing is found in anything else
			value = object[name]
		}
		if len(value) > 0 {
			customer, _ = rawjson.SetMembers(customer, rawjson.Member{Name: path, Value: compactJSON(value)})
		}
	}
	return customer
}

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

func (s *simulator) authorized(w http.ResponseWriter, request *http.Request) bool {
	key, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
	if ok && key != "" && (s.key == "" || key == s.key) {
		return true
	}
	s.printf("%s  %-8s  %-9s  401: %s without the right API key\n", time.Now().Format("15:04:05.000"), "-", "refused", request.URL.Path)
	writeAPIError(w, http.StatusUnauthorized, "authentication_error", "The API key is missing or wrong")
	return false
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client has gone
}

// writeAPIError answers in the form of ModelRiver's API
// (https://modelriver.com/docs/api/error-handling).
func writeAPIError(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": nil}})
}

package simulator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

// handleRequest answers POST /v1/ai/async.
func (s *simulator) handleRequest(ctx context.Context, w http.ResponseWriter, request *http.Request) {
	number := s.increase(&s.posts)
	if !s.authorized(w, request) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 10<<20))
	if err != nil {
		writeAPIError(w, http.StatusRequestEntityTooLarge, "invalid_request_error", "The request is too large")
		return
	}
	r, problem := s.parseRequest(body)
	if problem != "" {
		writeAPIError(w, http.StatusBadRequest, "invalid_request_error", problem)
		return
	}
	way := ""
	if fails := fitting(s.options.Fail, number); len(fails) > 0 {
		way = fails[0]
	}
	if way != "" && way != "cut" {
		s.failRequest(w, way)
		return
	}
	s.increase(&s.generations)
	s.begin(ctx, r, nil)
	if slices.Contains(r.ways, "early") {
		select {
		case <-r.reached:
		case <-ctx.Done():
		}
	}
	if way == "cut" {
		s.log(r, "cut", "the request stays without an answer, as --fail cut asks for")
		panic(http.ErrAbortHandler) // closes the connection
	}
	s.answerRequest(w, r)
}

// parseRequest returns the request that body makes, or why it makes none.
func (s *simulator) parseRequest(body []byte) (r *aiRequest, problem string) {
	var fields struct {
		Workflow   string
		Event      string
		Events     []string
		WebhookURL string `json:"webhook_url"`
		Messages   json.RawMessage
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, "The body is not a JSON object: " + err.Error()
	}
	if fields.Workflow == "" {
		return nil, "workflow is required"
	}
	r = &aiRequest{
		workflow: fields.Workflow, event: s.options.Event, target: s.options.Target,
		customer: cacheFields(body, s.options.CacheFields),
	}
	if question := lastQuestion(fields.Messages); question != "" {
		r.content = answerTo(question)
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
			return nil, "webhook_url: the simulator posts to this machine only; start it with --target for another"
		}
		r.target = fields.WebhookURL
	}
	return r, ""
}

// answerRequest tells the channel on which the request's answer will come.
func (s *simulator) answerRequest(w http.ResponseWriter, r *aiRequest) {
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

func (s *simulator) authorized(w http.ResponseWriter, request *http.Request) bool {
	key, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
	if ok && key != "" && (s.key == "" || key == s.key) {
		return true
	}
	s.logRefused("401: " + request.URL.Path + " without the right API key")
	writeAPIError(w, http.StatusUnauthorized, "authentication_error", "The API key is missing or wrong")
	return false
}

// logRefused prints why something was refused that belongs to no request.
func (s *simulator) logRefused(why string) {
	s.printf("%s  %-8s  %-9s  %s\n", time.Now().Format("15:04:05.000"), "-", "refused", why)
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

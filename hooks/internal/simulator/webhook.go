package simulator

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// webhookDelays are ModelRiver's waits before each of its attempts to deliver a webhook
// (https://modelriver.com/docs/webhooks/delivery-and-retries).
var webhookDelays = []time.Duration{
	0, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour,
}

// live is a request's life: the AI's answer, the webhook until it is taken, and the
// callback until it comes or the window ends.
func (s *simulator) live(ctx context.Context, r *aiRequest) {
	defer r.reach()
	if !sleep(ctx, s.options.Delay) {
		return
	}
	switch {
	case slices.Contains(r.ways, "never"):
		s.end(r, "unanswered", "no webhook is sent, as --answer never asks for")
		return
	case slices.Contains(r.ways, "error"):
		s.log(r, "ai", "failed, as --answer error asks for")
	default:
		s.log(r, "ai", "%s: %s", r.content.Model, r.content.summary())
	}

	if !s.deliver(ctx, r, r.event) {
		return
	}
	if slices.Contains(r.ways, "twice") {
		s.log(r, "again", "the same webhook and a second event, as --answer twice asks for")
		if !s.deliver(ctx, r, r.event) || !s.deliver(ctx, r, strings.TrimPrefix(r.event+"_second", "_")) {
			return
		}
	}
	if slices.Contains(r.ways, "error") {
		s.end(r, "error", "the webhook tells of it, and wants no callback")
		return
	}
	if r.event == "" {
		s.end(r, "completed", "no callback is wanted for a standard webhook")
		return
	}
	s.awaitCallback(ctx, r)
}

// awaitCallback waits until the callback comes or the window ends.
func (s *simulator) awaitCallback(ctx context.Context, r *aiRequest) {
	s.mu.Lock()
	remaining := time.Until(r.deadline)
	s.mu.Unlock()
	timeout := time.NewTimer(remaining)
	defer timeout.Stop()
	select {
	case <-ctx.Done():
	case <-r.called:
		s.mu.Lock()
		accepted := r.accepted
		s.mu.Unlock()
		if accepted == "success" {
			s.end(r, "completed", "")
		} else {
			s.end(r, "error", "the callback says that processing failed")
		}
	case <-timeout.C:
		s.end(r, "timeout", fmt.Sprintf("no callback within %s", s.window))
	}
}

// deliver posts the webhook of an event, or without one a standard webhook, until it is
// taken, and reports whether it was.
func (s *simulator) deliver(ctx context.Context, r *aiRequest, event string) bool {
	client := &Sender{Secret: s.secret, Scheme: s.options.Scheme, URL: r.target, HTTP: &http.Client{
		Timeout: webhookTimeout, CheckRedirect: NoRedirect,
	}}
	for i, delay := range webhookDelays {
		if !sleep(ctx, time.Duration(float64(delay)/s.options.Speed)) {
			return false
		}
		now := time.Now()
		payload := s.payload(r, event, now)
		s.mu.Lock()
		r.sent, r.deadline = now, now.Add(s.window)
		s.mu.Unlock()
		a, err := client.Post(ctx, payload, s.header(r, event))
		r.reach()
		if ctx.Err() != nil {
			return false
		}
		attempt := fmt.Sprintf("attempt %d of %d", i+1, len(webhookDelays))
		switch {
		case err != nil:
			s.log(r, "webhook", "%s: %s", attempt, err)
		default:
			s.log(r, "webhook", "%s: %d in %s %s", attempt, a.Status, a.Took, a.Excerpt())
		}
		if err == nil && a.Status >= 200 && a.Status <= 299 {
			return true
		}
		if i+1 < len(webhookDelays) {
			s.log(r, "retry", "in %s", time.Duration(float64(webhookDelays[i+1])/s.options.Speed))
		}
	}
	s.end(r, "undelivered", "ModelRiver keeps the payload for 30 days and sends it again by hand")
	return false
}

// callbackURL is where the event wants its callback, empty if it wants none.
func (s *simulator) callbackURL(r *aiRequest, event string) string {
	if event == "" || slices.Contains(r.ways, "error") {
		return ""
	}
	return s.base + "/v1/callback/" + r.channel
}

// header is what the webhook has beside its signature.
func (s *simulator) header(r *aiRequest, event string) http.Header {
	h := http.Header{}
	if s.options.Scheme == modelriver.Schemes()[0] {
		h.Set(modelriver.HeaderChannelID, r.channel)
	} else if callback := s.callbackURL(r, event); callback != "" {
		h.Set(modelriver.HeaderCallbackURL, callback)
	}
	return h
}

// payload is the webhook's body: flat, as the documentation has it, or in the envelope
// that ModelRiver's own servers take.
func (s *simulator) payload(r *aiRequest, event string, now time.Time) []byte {
	meta := fmt.Appendf(nil, `{"provider":%s,"model":%s,"duration_ms":%d,"workflow":%s}`,
		rawjson.String(r.content.Provider), rawjson.String(r.content.Model), s.options.Delay.Milliseconds(), rawjson.String(r.workflow))
	data := compactJSON(r.content.Data)
	var members []byte
	switch {
	case slices.Contains(r.ways, "error"):
		// ModelRiver publishes no such webhook. This is inferred from its API's errors
		// (https://modelriver.com/docs/api/error-handling) and its client's.
		members = fmt.Appendf(nil, `"type":"task.completed","workflow":%s,"status":"error","data":null,"error":{"message":%s},"meta":%s,"customer_data":%s`,
			rawjson.String(r.workflow), rawjson.String(failedMessage), meta, r.customer)
	case event == "":
		members = fmt.Appendf(nil, `"type":"task.completed","workflow":%s,"status":"success","data":%s,"meta":%s,"customer_data":%s`,
			rawjson.String(r.workflow), data, meta, r.customer)
	default:
		members = fmt.Appendf(nil, `"type":"task.ai_generated","event":%s,"ai_response":{"data":%s},"callback_url":%s,"callback_required":true,"customer_data":%s,"meta":%s`,
			rawjson.String(event), data, rawjson.String(s.callbackURL(r, event)), r.customer, meta)
	}
	channel := rawjson.String(r.channel)
	isAnswer := event == "" && !slices.Contains(r.ways, "error") // data is the answer there, and no envelope
	if s.options.Scheme == "data" && !isAnswer {
		return fmt.Appendf(nil, `{"channel_id":%s,"timestamp":"%d","data":{%s},"callback_url":%s}`,
			channel, now.Unix(), members, rawjson.String(s.callbackURL(r, event)))
	}
	return fmt.Appendf(nil, `{%s,"channel_id":%s,"timestamp":%s}`, members, channel, rawjson.String(now.UTC().Format("2006-01-02T15:04:05.000Z")))
}

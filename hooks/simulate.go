package hooks

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// contentJSON is what the simulator's AI answers, in turn.
//
//go:embed content.json
var contentJSON []byte

type content struct {
	Workflow string
	Category string
	Provider string
	Model    string
	Data     json.RawMessage
}

var contents = sync.OnceValue(func() []content {
	var all []content
	if err := json.Unmarshal(contentJSON, &all); err != nil {
		panic(err)
	}
	return all
})

// contentPayload is a payload with the i-th content, as send posts it.
func contentPayload(i int) []byte {
	c := contents()[i%len(contents())]
	return fmt.Appendf(nil,
		`{"type":"task.ai_generated","event":"new_content","ai_response":{"data":%s},"callback_required":true,"customer_data":{"category":%s},"meta":{"provider":%s,"model":%s}}`,
		compactJSON(c.Data), rawjson.String(c.Category), rawjson.String(c.Provider), rawjson.String(c.Model))
}

// webhookDelays are ModelRiver's waits before each of its attempts to deliver a webhook
// (https://modelriver.com/docs/webhooks/delivery-and-retries).
var webhookDelays = []time.Duration{
	0, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour,
}

const (
	webhookTimeout = 30 * time.Second
	callbackWindow = 5 * time.Minute
)

// simulateOptions are the flags of the simulate command.
type simulateOptions struct {
	listen, target, scheme, event string
	delay, every                  time.Duration
	speed                         float64
	count, refuse                 int
	cacheFields                   []string
}

func (o simulateOptions) validate() error {
	if host, _, err := net.SplitHostPort(o.listen); err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("--listen %q: use a loopback address such as 127.0.0.1:8787: it checks no one's rights but the key", o.listen)
	}
	if u, err := url.Parse(o.target); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("--target %q: use the URL where webhooks are received", o.target)
	}
	switch {
	case !slices.Contains(modelriver.Schemes(), o.scheme):
		return fmt.Errorf("--scheme %q: use one of %s", o.scheme, strings.Join(modelriver.Schemes(), ", "))
	case o.speed <= 0:
		return errors.New("--speed: use a number above 0")
	case o.delay < 0 || o.every < 0:
		return errors.New("--delay and --every: a duration cannot be negative")
	case o.count < 0 || o.refuse < 0:
		return errors.New("--count and --refuse-callbacks: a number cannot be negative")
	case o.count > 0 && o.every == 0:
		return errors.New("--count: it is how many requests --every makes, so give that too")
	}
	return nil
}

func (p *plugin) newSimulateCommand() *cobra.Command {
	var options simulateOptions
	command := &cobra.Command{
		Use:   "simulate",
		Short: "Takes ModelRiver's place on this machine, to try things without an account",
		Long: p.config.inWords(`Takes ModelRiver's place on this machine, to try things without an account: it
takes requests, posts a signed webhook for each, tries again as ModelRiver does, takes
the callback within 5 minutes, and prints each request's life. Its AI answers with
ready-made content. It has no WebSocket, and keeps nothing when it ends.

  POST /v1/ai/async            a request: {"workflow": "...", "messages": [...]}
  POST /v1/callback/{channel}  the callback

Both want MODELRIVER_API_KEY as bearer key; any will do if it is not set. Webhooks are
signed with MODELRIVER_WEBHOOK_SECRET. Start the server with both set to the same, and
with MODELRIVER_API_URL set to the simulator's address.`),
		Example: `  modelriver simulate --every 5s
  modelriver simulate --target http://127.0.0.1:4000/webhook/modelriver --scheme data
  modelriver simulate --speed 60 --refuse-callbacks 1
  curl http://127.0.0.1:8787/v1/ai/async -H "Authorization: Bearer dev-key" \
    -d '{"workflow": "poem", "messages": [{"role": "user", "content": "rain"}]}'`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := options.validate(); err != nil {
				return err
			}
			if p.unusable != nil {
				return p.unusable
			}
			if len(p.config.WebhookSecrets) == 0 {
				return errors.New("no secret to sign with: set MODELRIVER_WEBHOOK_SECRET to the server's")
			}
			ctx, cancel := context.WithCancel(command.Context())
			defer cancel()
			// PocketBase catches Ctrl-C and ends the process once this hook returns.
			ended := make(chan struct{})
			defer close(ended)
			p.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
				Id: "modelriverSimulate",
				Func: func(e *core.TerminateEvent) error {
					cancel()
					<-ended
					return e.Next()
				},
			})
			s := newSimulator(p.config, options, command.OutOrStdout())
			return s.run(ctx)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.listen, "listen", "127.0.0.1:8787", "loopback address to listen on")
	flags.StringVar(&options.target, "target", "http://127.0.0.1:8090"+p.config.Path, "where to post webhooks, unless a request names a webhook_url on this machine")
	flags.StringVar(&options.scheme, "scheme", "body", "how to sign: body, data or timestamped-body")
	flags.StringVar(&options.event, "event", "new_content", "event name of requests without events; empty for standard webhooks, which want no callback")
	flags.StringSliceVar(&options.cacheFields, "cache-fields", []string{"user_id", "category", "metadata.user_id"}, "paths into a request that become customer_data")
	flags.DurationVar(&options.delay, "delay", 2*time.Second, "how long the AI takes")
	flags.Float64Var(&options.speed, "speed", 1, "how much faster than ModelRiver to send failed webhooks again")
	flags.DurationVar(&options.every, "every", 0, "make a request of its own this often (default: never)")
	flags.IntVar(&options.count, "count", 0, "end after this many requests of its own (default: go on)")
	flags.IntVar(&options.refuse, "refuse-callbacks", 0, "answer 422 to this many callbacks, to see them fail and retry them")
	_ = command.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions(modelriver.Schemes(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

// A simulator takes ModelRiver's place for requests, webhooks and callbacks.
type simulator struct {
	options simulateOptions
	secret  string
	key     string // empty takes any
	window  time.Duration
	base    string // the simulator's own URL, without a slash at the end
	lives   sync.WaitGroup

	mu       sync.Mutex
	out      io.Writer
	requests map[string]*aiRequest
	next     int            // of contents
	refuse   int            // callbacks that are still to be answered 422
	ends     map[string]int // how requests ended
}

// An aiRequest is one request to the AI and what became of it. Its fields below
// channel are guarded by the simulator's mu.
type aiRequest struct {
	channel  string
	workflow string
	event    string // empty for a standard webhook
	target   string
	customer json.RawMessage
	content  content

	sent     time.Time // the last webhook
	deadline time.Time // of the callback; zero until a webhook was sent
	accepted string    // kind of the callback that was accepted: success or error
	called   chan struct{}
}

func newSimulator(config Config, options simulateOptions, out io.Writer) *simulator {
	return &simulator{
		options: options, secret: config.WebhookSecrets[0], key: config.APIKey, window: callbackWindow, out: out,
		requests: map[string]*aiRequest{}, refuse: options.refuse, ends: map[string]int{},
	}
}

// run serves until ctx ends or, with a count, until all requests have.
func (s *simulator) run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.options.listen)
	if err != nil {
		return err
	}
	s.base = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/ai/async", func(w http.ResponseWriter, r *http.Request) { s.handleRequest(ctx, w, r) })
	mux.HandleFunc("POST /v1/callback/{channel}", s.handleCallback)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeAPIError(w, http.StatusNotFound, "invalid_request_error", "The simulator has POST /v1/ai/async and POST /v1/callback/{channel}")
	})
	server := &http.Server{Handler: mux, ReadTimeout: 30 * time.Second}
	go server.Serve(listener)
	defer server.Close()

	s.printf("ModelRiver's stand-in on %s\nWebhooks go to %s, signed in scheme %q\n\n", s.base, s.options.target, s.options.scheme)
	if s.options.every > 0 {
		s.feed(ctx)
	} else {
		<-ctx.Done()
	}
	s.lives.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n%s", count(len(s.requests), "request"))
	for _, end := range []string{"completed", "error", "timeout", "undelivered"} {
		if n := s.ends[end]; n > 0 {
			fmt.Fprintf(s.out, ", %d %s", n, end)
		}
	}
	fmt.Fprintln(s.out)
	if n := len(s.requests) - s.ends["completed"]; s.options.count > 0 && n > 0 && ctx.Err() == nil {
		return fmt.Errorf("%s did not complete", count(n, "request"))
	}
	return nil
}

// feed makes requests of its own, once the target is up.
func (s *simulator) feed(ctx context.Context) {
	for waited := false; ; waited = true {
		u, _ := url.Parse(s.options.target)
		host := u.Host
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		}
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", host)
		if err == nil {
			conn.Close()
			break
		}
		if !waited {
			s.printf("Waiting for %s\n", host)
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return
		}
	}
	for i := 0; s.options.count == 0 || i < s.options.count; i++ {
		if i > 0 && !sleep(ctx, s.options.every) {
			return
		}
		r := &aiRequest{event: s.options.event, target: s.options.target}
		s.begin(ctx, r, func(c content) {
			r.workflow = c.Workflow
			r.customer = fmt.Appendf(nil, `{"category":%s}`, rawjson.String(c.Category))
		})
	}
	if s.options.count == 0 {
		<-ctx.Done()
	}
}

// begin gives the request a channel and an answer, and starts its life.
func (s *simulator) begin(ctx context.Context, r *aiRequest, prepare func(content)) {
	r.channel = uuid.NewString()
	r.called = make(chan struct{})
	s.mu.Lock()
	r.content = contents()[s.next%len(contents())]
	s.next++
	s.requests[r.channel] = r
	s.mu.Unlock()
	if prepare != nil {
		prepare(r.content)
	}
	kind := "standard"
	if r.event != "" {
		kind = "event " + r.event
	}
	s.log(r, "request", "workflow %s, %s", r.workflow, kind)
	s.lives.Go(func() { s.live(ctx, r) })
}

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
		workflow: fields.Workflow, event: s.options.event, target: s.options.target,
		customer: cacheFields(body, s.options.cacheFields),
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

// live is a request's life: the AI's answer, the webhook until it is taken, and the
// callback until it comes or the window ends.
func (s *simulator) live(ctx context.Context, r *aiRequest) {
	if !sleep(ctx, s.options.delay) {
		return
	}
	s.log(r, "ai", "%s: %s", r.content.Model, r.summary())

	if !s.deliver(ctx, r) {
		return
	}
	if r.event == "" {
		s.end(r, "completed", "no callback is wanted for a standard webhook")
		return
	}
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

// deliver posts the webhook until it is taken, and reports whether it was.
func (s *simulator) deliver(ctx context.Context, r *aiRequest) bool {
	client := &sender{secret: s.secret, scheme: s.options.scheme, url: r.target, http: &http.Client{
		Timeout: webhookTimeout, CheckRedirect: noRedirect,
	}}
	for i, delay := range webhookDelays {
		if !sleep(ctx, time.Duration(float64(delay)/s.options.speed)) {
			return false
		}
		now := time.Now()
		payload := s.payload(r, now)
		s.mu.Lock()
		r.sent, r.deadline = now, now.Add(s.window)
		s.mu.Unlock()
		a, err := client.post(ctx, payload, s.header(r))
		if ctx.Err() != nil {
			return false
		}
		attempt := fmt.Sprintf("attempt %d of %d", i+1, len(webhookDelays))
		switch {
		case err != nil:
			s.log(r, "webhook", "%s: %s", attempt, err)
		default:
			s.log(r, "webhook", "%s: %d in %s %s", attempt, a.status, round(a.took), excerpt(a.body))
		}
		if err == nil && a.status >= 200 && a.status <= 299 {
			return true
		}
		if i+1 < len(webhookDelays) {
			s.log(r, "retry", "in %s", time.Duration(float64(webhookDelays[i+1])/s.options.speed))
		}
	}
	s.end(r, "undelivered", "ModelRiver keeps the payload for 30 days and sends it again by hand")
	return false
}

func (s *simulator) callbackURL(r *aiRequest) string {
	if r.event == "" {
		return ""
	}
	return s.base + "/v1/callback/" + r.channel
}

// header is what the webhook has beside its signature.
func (s *simulator) header(r *aiRequest) http.Header {
	h := http.Header{}
	if s.options.scheme == modelriver.Schemes()[0] {
		h.Set(modelriver.HeaderChannelID, r.channel)
	} else if callback := s.callbackURL(r); callback != "" {
		h.Set(modelriver.HeaderCallbackURL, callback)
	}
	return h
}

// payload is the webhook's body: flat, as the documentation has it, or in the envelope
// that ModelRiver's own servers take.
func (s *simulator) payload(r *aiRequest, now time.Time) []byte {
	meta := fmt.Appendf(nil, `{"provider":%s,"model":%s,"duration_ms":%d,"workflow":%s}`,
		rawjson.String(r.content.Provider), rawjson.String(r.content.Model), s.options.delay.Milliseconds(), rawjson.String(r.workflow))
	channel, data := rawjson.String(r.channel), compactJSON(r.content.Data)
	timestamp := rawjson.String(now.UTC().Format("2006-01-02T15:04:05.000Z"))
	if r.event == "" {
		return fmt.Appendf(nil, `{"type":"task.completed","workflow":%s,"status":"success","channel_id":%s,"data":%s,"meta":%s,"customer_data":%s,"timestamp":%s}`,
			rawjson.String(r.workflow), channel, data, meta, r.customer, timestamp)
	}
	event := fmt.Sprintf(`"type":"task.ai_generated","event":%s,"ai_response":{"data":%s},"callback_url":%s,"callback_required":true,"customer_data":%s,"meta":%s`,
		rawjson.String(r.event), data, rawjson.String(s.callbackURL(r)), r.customer, meta)
	if s.options.scheme == "data" {
		return fmt.Appendf(nil, `{"channel_id":%s,"timestamp":"%d","data":{%s},"callback_url":%s}`,
			channel, now.Unix(), event, rawjson.String(s.callbackURL(r)))
	}
	return fmt.Appendf(nil, `{%s,"channel_id":%s,"timestamp":%s}`, event, channel, timestamp)
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
	var fields struct {
		Data     json.RawMessage
		TaskID   string `json:"task_id"`
		Error    string
		Message  string
		Metadata struct {
			RecordID string `json:"record_id"`
		}
	}
	kind, problem := "success", ""
	switch err := json.Unmarshal(body, &fields); {
	case err != nil:
		problem = "The body is not a JSON object: " + err.Error()
	case fields.Error != "":
		kind = "error"
	case !bytes.HasPrefix(bytes.TrimSpace(fields.Data), []byte("{")):
		problem = "data must be a JSON object"
	}
	if problem != "" {
		s.log(r, "callback", "422: %s", problem)
		writeAPIError(w, http.StatusUnprocessableEntity, "invalid_request_error", problem)
		return
	}

	s.mu.Lock()
	refuse := kind == "success" && s.refuse > 0
	if refuse {
		s.refuse--
	}
	early, late := r.deadline.IsZero(), time.Now().After(r.deadline)
	before := r.accepted
	after := time.Since(r.sent)
	if !refuse && !early && !late {
		// A success counts after an error, as after "modelriver retry"; nothing else does.
		if before == "" || before == "error" && kind == "success" {
			r.accepted = kind
		}
		if before == "" {
			close(r.called)
		} else if before == "error" && kind == "success" {
			s.ends["error"]--
			s.ends["completed"]++
		}
	}
	s.mu.Unlock()

	switch {
	case refuse:
		s.log(r, "callback", "422: refused, as --refuse-callbacks asks for")
		writeAPIError(w, http.StatusUnprocessableEntity, "invalid_request_error", "Refused by --refuse-callbacks")
		return
	case early:
		s.log(r, "callback", "409: no webhook was sent yet")
		writeAPIError(w, http.StatusConflict, "invalid_request_error", "No webhook was sent for this request yet")
		return
	case late:
		s.log(r, "callback", "410: too late, after %s", round(after))
		writeAPIError(w, http.StatusGone, "invalid_request_error", "The callback came after its window of "+s.window.String())
		return
	}
	what := "record " + fields.Metadata.RecordID
	switch {
	case kind == "error":
		what = fields.Error + ": " + excerpt([]byte(fields.Message))
	case fields.Metadata.RecordID == "":
		what = fields.TaskID
	}
	again := ""
	if before != "" {
		again = " (before it: " + before + ")"
	}
	s.log(r, "callback", "%s after %s: %s%s", kind, round(after), what, again)
	if before == "error" && kind == "success" {
		s.log(r, "completed", "after the error")
	}
	writeJSON(w, http.StatusOK, map[string]any{"success": true, "channel_id": r.channel})
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

func (s *simulator) end(r *aiRequest, end, why string) {
	s.mu.Lock()
	s.ends[end]++
	s.mu.Unlock()
	s.log(r, end, "%s", why)
}

// log prints a line of a request's life.
func (s *simulator) log(r *aiRequest, what, format string, args ...any) {
	line := fmt.Sprintf("%s  %s  %-9s  %s", time.Now().Format("15:04:05.000"), r.channel[:8], what, fmt.Sprintf(format, args...))
	s.printf("%s\n", strings.TrimRight(line, " "))
}

func (s *simulator) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
}

// summary is what the AI's answer is about, in a few words.
func (r *aiRequest) summary() string {
	event, err := modelriver.ParseEvent(http.Header{}, fmt.Appendf(nil, `{"ai_response":{"data":%s}}`, r.content.Data))
	if err != nil {
		return ""
	}
	if event.Title != "" {
		return excerpt([]byte(event.Title))
	}
	return excerpt([]byte(event.Body))
}

// sleep waits, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// excerpt is the beginning of some text, on one line.
func excerpt(text []byte) string {
	s := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "\uFFFD")), " "))
	if len(s) > 45 {
		return string(s[:44]) + "…"
	}
	return string(s)
}

func compactJSON(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return raw
	}
	return b.Bytes()
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

package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/google/uuid"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
)

const (
	webhookTimeout = 30 * time.Second
	callbackWindow = 5 * time.Minute
)

// Run takes ModelRiver's place until ctx ends or, with a count, until all requests have
// ended. It prints the life of each to out.
func Run(ctx context.Context, out io.Writer, settings Settings, options Options) error {
	if settings.Secret == "" {
		return errors.New("no secret to sign with: set MODELRIVER_WEBHOOK_SECRET to the server's")
	}
	return newSimulator(out, settings, options).run(ctx)
}

// A simulator takes ModelRiver's place for requests, webhooks and callbacks.
type simulator struct {
	options Options
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

	posts       int // of requests, taken or not
	generations int // those of them that were taken: ModelRiver takes money for each
}

// ends are how a request can end.
var ends = []string{"completed", "error", "timeout", "undelivered", "unanswered"}

// An aiRequest is one request to the AI and what became of it. Its fields from
// sent on are guarded by the simulator's mu.
type aiRequest struct {
	channel  string
	workflow string
	event    string // empty for a standard webhook
	target   string
	customer json.RawMessage
	content  content       // the AI's answer; begin chooses one if there is none
	ways     []string      // in which its answer comes, of answerWays
	reached  chan struct{} // closed once the webhook was answered for the first time, or is never sent
	reach    func()        // closes reached

	sent     time.Time // the last webhook
	deadline time.Time // of the callback; zero until a webhook was sent
	accepted string    // kind of the callback that was accepted: success or error
	end      string    // how it ended; empty if it has not
	called   chan struct{}
}

func newSimulator(out io.Writer, settings Settings, options Options) *simulator {
	return &simulator{
		options: options, secret: settings.Secret, key: settings.APIKey, window: callbackWindow, out: out,
		requests: map[string]*aiRequest{}, refuse: options.Refuse, ends: map[string]int{},
	}
}

// run serves until ctx ends or, with a count, until all requests have.
func (s *simulator) run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.options.Listen)
	if err != nil {
		return err
	}
	s.base = "http://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/ai/async", func(w http.ResponseWriter, r *http.Request) { s.handleRequest(ctx, w, r) })
	mux.HandleFunc("POST /v1/callback/{channel}", s.handleCallback)
	mux.HandleFunc("GET /status", s.handleStatus)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeAPIError(w, http.StatusNotFound, "invalid_request_error", "The simulator has POST /v1/ai/async, POST /v1/callback/{channel} and GET /status")
	})
	server := &http.Server{Handler: mux, ReadTimeout: 30 * time.Second}
	go server.Serve(listener)
	defer server.Close()

	s.printf("ModelRiver's stand-in on %s\nWebhooks go to %s, signed in scheme %q\n\n", s.base, s.options.Target, s.options.Scheme)
	if s.options.Every > 0 {
		s.feed(ctx)
	} else {
		<-ctx.Done()
	}
	s.lives.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n%s", english.Plural(len(s.requests), "request", ""))
	for _, end := range ends {
		if n := s.ends[end]; n > 0 {
			fmt.Fprintf(s.out, ", %d %s", n, end)
		}
	}
	fmt.Fprintln(s.out)
	if n := len(s.requests) - s.ends["completed"]; s.options.Count > 0 && n > 0 && ctx.Err() == nil {
		return fmt.Errorf("%s did not complete", english.Plural(n, "request", ""))
	}
	return nil
}

// feed makes requests of its own, once the target is up.
func (s *simulator) feed(ctx context.Context) {
	for waited := false; ; waited = true {
		u, _ := url.Parse(s.options.Target)
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
	for i := 0; s.options.Count == 0 || i < s.options.Count; i++ {
		if i > 0 && !sleep(ctx, s.options.Every) {
			return
		}
		r := &aiRequest{event: s.options.Event, target: s.options.Target}
		s.begin(ctx, r, func(c content) {
			r.workflow = c.Workflow
			r.customer = fmt.Appendf(nil, `{"category":%s}`, rawjson.String(c.Category))
		})
	}
	if s.options.Count == 0 {
		<-ctx.Done()
	}
}

// begin gives the request a channel and an answer, and starts its life.
func (s *simulator) begin(ctx context.Context, r *aiRequest, prepare func(content)) {
	r.channel = uuid.NewString()
	r.called, r.reached = make(chan struct{}), make(chan struct{})
	r.reach = sync.OnceFunc(func() { close(r.reached) })
	s.mu.Lock()
	if r.content.Data == nil {
		r.content = contents()[s.next%len(contents())]
		s.next++
	}
	s.requests[r.channel] = r
	r.ways = fitting(s.options.Answer, len(s.requests))
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

// increase adds one to a counter and returns what it is then.
func (s *simulator) increase(counter *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter++
	return *counter
}

// handleStatus answers GET /status.
func (s *simulator) handleStatus(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	status := map[string]int{"posts": s.posts, "generations": s.generations}
	for _, end := range ends {
		status[end] = s.ends[end]
	}
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, status)
}

func (s *simulator) end(r *aiRequest, end, why string) {
	s.mu.Lock()
	s.ends[end]++
	r.end = end
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

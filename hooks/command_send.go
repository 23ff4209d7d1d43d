package hooks

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

//go:embed sample.json
var samplePayload []byte

// sendOptions are the flags of the send command.
type sendOptions struct {
	url, event, channel, user, scheme string
	noCallback, duplicate, tamper     bool
	wait                              time.Duration
	count, concurrency                int
	rate                              float64
}

func (o sendOptions) validate() error {
	switch {
	case o.count < 1 || o.concurrency < 1:
		return errors.New("--count and --concurrency: use at least 1")
	case o.rate < 0:
		return errors.New("--rate: use a number of webhooks per second, or 0 for as many as can be")
	case o.channel != "" && o.count > 1:
		return errors.New("--channel with --count: webhooks of one channel are duplicates of each other. Use --duplicate to see one")
	case !slices.Contains(modelriver.Schemes(), o.scheme):
		return fmt.Errorf("--scheme %q: use one of %s", o.scheme, strings.Join(modelriver.Schemes(), ", "))
	case strings.Contains(o.user, "@"):
		return fmt.Errorf("--user %q: use the user's id, which the dashboard shows in the collection users", o.user)
	case o.tamper && o.duplicate:
		return errors.New("--tamper with --duplicate: a refused webhook has no duplicate. Use one of them")
	}
	return nil
}

func (p *plugin) newSendCommand() *cobra.Command {
	var options sendOptions
	command := &cobra.Command{
		Use:   "send [file|-]",
		Short: "Signs a payload, posts it to a running server and shows the callback",
		Long: p.config.inWords(`Signs a payload as ModelRiver would, posts it to a running server and shows the
answer. Then it takes ModelRiver's place for the callback, on a port of its own, and
shows that too. Without a file a built-in sample is sent, with - standard input.

With --count it sends that many, each with a channel id of its own, and sums up the
answers and the callbacks.

It signs with MODELRIVER_WEBHOOK_SECRET, which must be the server's. For the callback
the server must be started with 127.0.0.1 in MODELRIVER_CALLBACK_HOSTS.`),
		Example: `  modelriver send
  modelriver send --user 4q1xlclmfloku33
  modelriver send --duplicate
  modelriver send --tamper
  modelriver send --count 1000 --concurrency 20 --rate 200
  modelriver send --no-callback --scheme data envelope.json
  jq '.event = "summary"' delivery.json | modelriver send -`,
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(command *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt)
			defer stop()
			if err := options.validate(); err != nil {
				return err
			}
			payload, err := readPayloadFile(command.InOrStdin(), args)
			if err != nil {
				return err
			}
			return p.send(ctx, command.OutOrStdout(), payload, options)
		},
	}
	command.SetContext(context.Background()) // of its own if it is run without one
	flags := command.Flags()
	flags.StringVar(&options.url, "url", "http://127.0.0.1:8090"+p.config.Path, "where to post")
	flags.StringVar(&options.event, "event", "", "event name to set in the payload")
	flags.StringVar(&options.channel, "channel", "", "channel id to set in the payload (default: a new one for the sample)")
	flags.StringVar(&options.user, "user", "", "user that the content is for, so that only they see it (customer_data.user_id)")
	flags.StringVar(&options.scheme, "scheme", "body", "how to sign: body, data or timestamped-body")
	flags.BoolVar(&options.noCallback, "no-callback", false, "ask for no callback")
	flags.BoolVar(&options.duplicate, "duplicate", false, "send each webhook twice, to see that the second changes nothing")
	flags.BoolVar(&options.tamper, "tamper", false, "change the payload after it was signed, to see it refused")
	flags.DurationVar(&options.wait, "wait", 10*time.Second, "how long to wait for the callback")
	flags.IntVar(&options.count, "count", 1, "how many webhooks to send")
	flags.IntVar(&options.concurrency, "concurrency", 10, "how many of them at the same time")
	flags.Float64Var(&options.rate, "rate", 0, "how many of them per second (default: as many as can be)")
	_ = command.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions(modelriver.Schemes(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

func readPayloadFile(stdin io.Reader, args []string) ([]byte, error) {
	switch {
	case len(args) == 0:
		return nil, nil
	case args[0] == "-":
		return io.ReadAll(stdin)
	}
	return os.ReadFile(args[0])
}

// A sender posts webhooks as ModelRiver does.
type sender struct {
	secret, scheme, url string
	tamper              bool
	http                *http.Client
}

// A webhookAnswer is what a webhook was answered.
type webhookAnswer struct {
	status int
	body   []byte
	took   time.Duration
}

// post signs the payload and posts it, with further headers.
func (s *sender) post(ctx context.Context, payload []byte, header http.Header) (webhookAnswer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, nil)
	if err != nil {
		return webhookAnswer{}, err
	}
	maps.Copy(request.Header, header)
	request.Header.Set("Content-Type", "application/json")
	if err := modelriver.Sign(request.Header, s.scheme, s.secret, time.Now(), payload); err != nil {
		return webhookAnswer{}, err
	}
	if s.tamper {
		if payload, err = tampered(payload); err != nil {
			return webhookAnswer{}, err
		}
	}
	request.Body = io.NopCloser(bytes.NewReader(payload))
	request.ContentLength = int64(len(payload))

	started := time.Now()
	response, err := s.http.Do(request)
	if err != nil {
		return webhookAnswer{}, fmt.Errorf("%w: is the server running there?", withoutURL(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return webhookAnswer{}, err
	}
	return webhookAnswer{response.StatusCode, body, time.Since(started)}, nil
}

// noRedirect keeps what is signed, and what is found out, to the server that was named.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// withoutURL is err without the URL that net/http puts before it.
func withoutURL(err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		return withURL.Err
	}
	return err
}

// check returns what is wrong with the answer, and what to do.
func (s *sender) check(a webhookAnswer) error {
	switch {
	case s.tamper && a.status == http.StatusUnauthorized:
		return nil
	case s.tamper:
		return fmt.Errorf("the server did not refuse a payload that was changed after it was signed: %d", a.status)
	case a.status == http.StatusUnauthorized:
		return errors.New("the server has another MODELRIVER_WEBHOOK_SECRET than this command")
	case a.status == http.StatusNotFound:
		return errors.New("the server receives no webhooks at this URL: see --url")
	case a.status != http.StatusOK:
		return fmt.Errorf("the server did not take the webhook: %d %s", a.status, http.StatusText(a.status))
	}
	return nil
}

// tampered changes the AI data, which every scheme signs, or all of a payload without.
func tampered(payload []byte) ([]byte, error) {
	event, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		return nil, err
	}
	object := []byte(event.Data)
	at := bytes.LastIndex(payload, object)
	if len(object) == 0 || object[0] != '{' {
		object, at = payload, 0
	}
	with, err := rawjson.SetMembers(object, rawjson.Member{Name: "tampered", Value: json.RawMessage("true")})
	if err != nil {
		return nil, err
	}
	return slices.Concat(payload[:at], with, payload[at+len(object):]), nil
}

// send posts webhooks and reports on out what comes back.
func (p *plugin) send(ctx context.Context, out io.Writer, payload []byte, options sendOptions) error {
	if p.unusable != nil {
		return p.unusable
	}
	if len(p.config.WebhookSecrets) == 0 {
		return errors.New("no secret to sign with: set MODELRIVER_WEBHOOK_SECRET to the server's")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = options.concurrency
	defer transport.CloseIdleConnections()
	s := &sender{
		secret: p.config.WebhookSecrets[0], scheme: options.scheme, url: options.url, tamper: options.tamper,
		http: &http.Client{Timeout: 30 * time.Second, Transport: transport, CheckRedirect: noRedirect},
	}
	var receiver *callbackReceiver
	if !options.noCallback {
		var err error
		if receiver, err = startCallbackReceiver(); err != nil {
			return err
		}
		defer receiver.close()
	}
	if options.count > 1 {
		return s.sendMany(ctx, out, payload, options, receiver)
	}

	ours := payload == nil
	if ours {
		payload = samplePayload
	}
	payload, err := preparePayload(payload, ours, options, receiver)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "POST %s, %d bytes, signed in scheme %q\n", options.url, len(payload), options.scheme)
	started := time.Now()
	a, err := s.post(ctx, payload, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d %s in %s: %s\n", a.status, http.StatusText(a.status), round(a.took), bytes.TrimSpace(a.body))
	if err := s.check(a); err != nil {
		return err
	}
	if options.tamper {
		fmt.Fprintln(out, "Refused, as it should be: the payload was changed after it was signed.")
		return nil
	}
	if receiver != nil {
		received, err := receiver.wait(ctx, options.wait)
		if err != nil {
			return err
		}
		if received == nil {
			return fmt.Errorf("no callback within %s: the server must run with MODELRIVER_API_KEY, and with 127.0.0.1 in MODELRIVER_CALLBACK_HOSTS; a duplicate gets none", options.wait)
		}
		fmt.Fprintf(out, "Callback %s after the webhook was sent, %s:\n%s\n",
			round(received.at.Sub(started)), p.describeKey(received.authorization), indent(received.body))
		var callback struct{ Error string }
		if json.Unmarshal(received.body, &callback) == nil && callback.Error != "" {
			return errors.New("the server refused this webhook: the callback above says why")
		}
	}
	if !options.duplicate {
		return nil
	}

	a, err = s.post(ctx, payload, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Sent again. %d %s in %s: %s\n", a.status, http.StatusText(a.status), round(a.took), bytes.TrimSpace(a.body))
	if err := s.check(a); err != nil {
		return err
	}
	if receiver == nil {
		return nil
	}
	again := min(options.wait, 2*time.Second)
	received, err := receiver.wait(ctx, again)
	switch {
	case err != nil:
		return err
	case received != nil:
		return errors.New("the duplicate got a callback of its own")
	}
	fmt.Fprintf(out, "No second callback within %s: the duplicate changed nothing.\n", again)
	return nil
}

// sendMany posts options.count webhooks and sums up what comes back.
func (s *sender) sendMany(ctx context.Context, out io.Writer, payload []byte, options sendOptions, receiver *callbackReceiver) error {
	var bar *progressbar.ProgressBar
	if isTerminal(out) {
		bar = progressbar.NewOptions(options.count,
			progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(30), progressbar.OptionShowCount(),
			progressbar.OptionSetDescription("sending"), progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetElapsedTime(false))
	} else {
		bar = progressbar.DefaultSilent(int64(options.count))
	}
	posts := "once"
	if options.duplicate {
		posts = "twice"
	}
	fmt.Fprintf(out, "POST %s, %d webhooks %s, %d at a time, signed in scheme %q\n",
		options.url, options.count, posts, options.concurrency, options.scheme)

	var mu sync.Mutex
	var answers []time.Duration
	outcomes := map[string]int{}
	sent := make(map[string]time.Time, options.count) // by channel
	var problem error
	note := func(a webhookAnswer, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			answers = append(answers, a.took)
			outcomes[fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))]++
			err = s.check(a)
		} else {
			outcomes["no answer"]++
		}
		if problem == nil {
			problem = err
		}
	}

	started := time.Now()
	var group errgroup.Group
	group.SetLimit(options.concurrency)
	for i := range options.count {
		if options.rate > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(started.Add(time.Duration(float64(i) / options.rate * float64(time.Second))))):
			}
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			own := options
			own.channel = uuid.NewString()
			from := payload
			if from == nil {
				from = contentPayload(i)
			}
			prepared, err := preparePayload(from, payload == nil, own, receiver)
			if err != nil {
				return err
			}
			mu.Lock()
			sent[own.channel] = time.Now()
			mu.Unlock()
			note(s.post(ctx, prepared, nil))
			if options.duplicate {
				note(s.post(ctx, prepared, nil))
			}
			bar.Add(1)
			return nil
		})
	}
	err := group.Wait()
	bar.Finish()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	took := time.Since(started)

	fmt.Fprintf(out, "%d webhooks in %s, %.0f per second\n", len(sent), took.Round(time.Millisecond), float64(len(sent))/took.Seconds())
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		fmt.Fprintf(out, "  %-24s %d\n", outcome, outcomes[outcome])
	}
	fmt.Fprintf(out, "  answers    %s\n", quantiles(answers))
	if receiver == nil || options.tamper || problem != nil {
		return problem
	}

	// Callbacks are waited for as long as they keep coming.
	first := map[string]time.Duration{}
	repeated := 0
	for len(first) < len(sent) {
		received, err := receiver.wait(ctx, options.wait)
		if err != nil {
			return err
		}
		if received == nil {
			break
		}
		if _, again := first[received.channel]; again {
			repeated++
			continue
		}
		if at, ours := sent[received.channel]; ours {
			first[received.channel] = received.at.Sub(at)
		}
	}
	if options.duplicate {
		again, err := receiver.wait(ctx, min(options.wait, 2*time.Second))
		if err != nil {
			return err
		}
		if again != nil {
			repeated++
		}
	}
	var waits []time.Duration
	for _, wait := range first {
		waits = append(waits, wait)
	}
	fmt.Fprintf(out, "  callbacks  %d of %d, %s after the webhook was sent\n", len(first), len(sent), quantiles(waits))
	switch {
	case len(first) < len(sent):
		return fmt.Errorf("%s did not come within %s of the last one: the server must run with MODELRIVER_API_KEY, and with 127.0.0.1 in MODELRIVER_CALLBACK_HOSTS",
			count(len(sent)-len(first), "callback"), options.wait)
	case repeated > 0:
		return fmt.Errorf("%s came twice", count(repeated, "callback"))
	}
	return nil
}

// quantiles sums up durations.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return round(d[int(q*float64(len(d)-1)+0.5)]) }
	return fmt.Sprintf("p50 %s, p99 %s, max %s", at(0.50), at(0.99), at(1))
}

// preparePayload sets in payload, which is ours or a user's, what the flags ask for. The
// parser finds it there, whatever the payload's shape, and no callback URL but the
// receiver's: the server would send the key to it.
func preparePayload(payload []byte, ours bool, options sendOptions, receiver *callbackReceiver) ([]byte, error) {
	payload = bytes.TrimPrefix(payload, []byte("\ufeff"))
	event, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		return nil, fmt.Errorf("the payload is not a JSON object: %w", err)
	}
	if ours {
		options.channel = cmp.Or(options.channel, uuid.NewString())
	}
	options.channel = cmp.Or(options.channel, event.ChannelID)
	callback := ""
	if receiver != nil {
		callback = receiver.url(options.channel)
	}

	var set []rawjson.Member
	add := func(name, value string) {
		if value != "" {
			set = append(set, rawjson.Member{Name: name, Value: rawjson.String(value)})
		}
	}
	add("event", options.event)
	add("channel_id", options.channel)
	add("callback_url", callback)
	if callback == "" && event.CallbackURL != "" {
		set = append(set, rawjson.Member{Name: "callback_url", Value: json.RawMessage("null")})
	}
	if options.user != "" {
		customer := event.Customer
		if customer == nil {
			customer = json.RawMessage("{}")
		}
		customer, err = rawjson.SetMembers(customer, rawjson.Member{Name: "user_id", Value: rawjson.String(options.user)})
		if err != nil {
			return nil, err
		}
		set = append(set, rawjson.Member{Name: "customer_data", Value: customer})
	}
	isSet := func() bool {
		got, err := modelriver.ParseEvent(http.Header{}, payload)
		return err == nil && got.CallbackURL == callback && got.ChannelID == options.channel &&
			got.Name == cmp.Or(options.event, event.Name) && got.UserID == cmp.Or(options.user, event.UserID)
	}
	if len(set) > 0 {
		if payload, err = rawjson.SetMembers(payload, set...); err != nil {
			return nil, err
		}
	}
	if !isSet() { // in an envelope, what the data member has counts first
		var top map[string]json.RawMessage
		if err := json.Unmarshal(payload, &top); err != nil {
			return nil, err
		}
		data, err := rawjson.SetMembers(top["data"], set...)
		if err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
		if payload, err = rawjson.SetMembers(payload, rawjson.Member{Name: "data", Value: data}); err != nil {
			return nil, err
		}
		if !isSet() {
			return nil, errors.New("the payload does not take what the flags ask for: use plain text for --channel, --event and --user")
		}
	}
	if ours && options.scheme == "data" { // the form in which ModelRiver's servers sign it
		payload = fmt.Appendf(nil, `{"channel_id":%s,"timestamp":"%d","data":%s}`, rawjson.String(options.channel), time.Now().Unix(), compactJSON(payload))
	}
	return payload, modelriver.Sign(http.Header{}, options.scheme, "any", time.Now(), payload) // whether it can be signed so
}

// A callbackReceiver takes ModelRiver's place for callbacks.
type callbackReceiver struct {
	listener net.Listener
	server   *http.Server

	mu       sync.Mutex
	received []receivedCallback
	more     chan struct{} // signals that received has grown
}

type receivedCallback struct {
	at            time.Time
	channel       string
	authorization string
	body          []byte
}

func startCallbackReceiver() (*callbackReceiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &callbackReceiver{listener: listener, more: make(chan struct{}, 1)}
	r.server = &http.Server{
		ReadTimeout: 30 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"success":true}`)
			r.mu.Lock()
			r.received = append(r.received, receivedCallback{
				time.Now(), path.Base(request.URL.Path), request.Header.Get("Authorization"), body,
			})
			r.mu.Unlock()
			select {
			case r.more <- struct{}{}:
			default:
			}
		}),
	}
	go r.server.Serve(listener)
	return r, nil
}

// wait returns the next callback, or nil if none comes in time.
func (r *callbackReceiver) wait(ctx context.Context, limit time.Duration) (*receivedCallback, error) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		if len(r.received) > 0 {
			next := r.received[0]
			r.received = r.received[1:]
			r.mu.Unlock()
			return &next, nil
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			return nil, nil
		}
	}
}

func (r *callbackReceiver) url(channel string) string {
	return "http://" + r.listener.Addr().String() + "/v1/callback/" + url.PathEscape(channel)
}

// close lets the answer to the callback go out before the connection does.
func (r *callbackReceiver) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.server.Shutdown(ctx)
}

// describeKey says what came as a key, without showing it.
func (p *plugin) describeKey(authorization string) string {
	switch {
	case p.config.APIKey != "" && authorization == "Bearer "+p.config.APIKey:
		return p.config.inWords("with MODELRIVER_API_KEY as bearer key")
	case authorization == "":
		return "without a key"
	}
	return p.config.inWords("with a bearer key that is not this command's MODELRIVER_API_KEY")
}

func indent(body []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return string(body)
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

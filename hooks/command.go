package hooks

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

//go:embed sample.json
var samplePayload []byte

func (p *plugin) newCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "modelriver",
		Short: "Tries out and operates ModelRiver's webhooks and callbacks",
	}
	command.AddCommand(p.newSendCommand())
	return command
}

// sendOptions are the flags of the send command.
type sendOptions struct {
	url, event, channel, user, scheme string
	noCallback                        bool
	wait                              time.Duration
}

func (p *plugin) newSendCommand() *cobra.Command {
	var options sendOptions
	command := &cobra.Command{
		Use:   "send [file|-]",
		Short: "Signs a payload, posts it to a running server and shows the callback",
		Long: `Signs a payload as ModelRiver would, posts it to a running server and shows the
answer. Then it takes ModelRiver's place for the callback, on a port of its own, and
shows that too. Without a file a built-in sample is sent, with - standard input.

It signs with MODELRIVER_WEBHOOK_SECRET, which must be the server's. For the callback
the server must be started with MODELRIVER_CALLBACK_HOSTS=127.0.0.1.`,
		Example: `  modelriver send
  modelriver send --user 4q1xlclmfloku33
  modelriver send --no-callback --scheme data envelope.json
  jq '.event = "summary"' delivery.json | modelriver send -`,
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(command *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt)
			defer stop()
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
	flags.DurationVar(&options.wait, "wait", 10*time.Second, "how long to wait for the callback")
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

// send posts one webhook and reports on out what comes back.
func (p *plugin) send(ctx context.Context, out io.Writer, payload []byte, options sendOptions) error {
	if len(p.config.WebhookSecrets) == 0 {
		return errors.New("no secret to sign with: set MODELRIVER_WEBHOOK_SECRET to the server's")
	}

	var receiver *callbackReceiver
	if !options.noCallback {
		var err error
		if receiver, err = startCallbackReceiver(); err != nil {
			return err
		}
		defer receiver.close()
	}
	payload, err := preparePayload(payload, options, receiver)
	if err != nil {
		return err
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodPost, options.url, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if err := modelriver.Sign(request.Header, options.scheme, p.config.WebhookSecrets[0], time.Now(), payload); err != nil {
		return err
	}
	fmt.Fprintf(out, "POST %s, %d bytes, signed in scheme %q\n", options.url, len(payload), options.scheme)
	started := time.Now()
	response, err := (&http.Client{Timeout: 30 * time.Second}).Do(request)
	if err != nil {
		return fmt.Errorf("%w: is the server running there?", err)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	response.Body.Close()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s in %s: %s\n", response.Status, round(time.Since(started)), bytes.TrimSpace(answer))
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return errors.New("the server has another MODELRIVER_WEBHOOK_SECRET than this command")
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("the server did not take the webhook: %s", response.Status)
	case options.noCallback:
		return nil
	}

	select {
	case received := <-receiver.received:
		fmt.Fprintf(out, "Callback %s after the webhook was sent, %s:\n%s\n",
			round(received.at.Sub(started)), p.describeKey(received.authorization), indent(received.body))
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(options.wait):
		return fmt.Errorf("no callback within %s: the server must run with MODELRIVER_API_KEY, and with MODELRIVER_CALLBACK_HOSTS=127.0.0.1; a duplicate gets none", options.wait)
	}
}

// preparePayload sets in payload, or in the sample, what the flags ask for.
func preparePayload(payload []byte, options sendOptions, receiver *callbackReceiver) ([]byte, error) {
	sample := payload == nil
	if sample {
		payload = samplePayload
		if options.channel == "" {
			options.channel = uuid.NewString()
		}
	}
	event, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		return nil, fmt.Errorf("the payload is not a JSON object: %w", err)
	}
	if options.channel == "" {
		options.channel = event.ChannelID
	}

	var set []modelriver.Member
	add := func(name, value string) {
		if value != "" {
			set = append(set, modelriver.Member{Name: name, Value: modelriver.String(value)})
		}
	}
	add("event", options.event)
	add("channel_id", options.channel)
	if receiver != nil {
		add("callback_url", receiver.url(options.channel))
	}
	if options.user != "" {
		customer := event.Customer
		if customer == nil {
			customer = json.RawMessage("{}")
		}
		customer, err = modelriver.SetMembers(customer, modelriver.Member{Name: "user_id", Value: modelriver.String(options.user)})
		if err != nil {
			return nil, err
		}
		set = append(set, modelriver.Member{Name: "customer_data", Value: customer})
	}
	if len(set) > 0 {
		if payload, err = modelriver.SetMembers(payload, set...); err != nil {
			return nil, err
		}
	}
	if sample && options.scheme == "data" { // the form in which ModelRiver's servers sign it
		payload = fmt.Appendf(nil, `{"channel_id":%s,"timestamp":"%d","data":%s}`, modelriver.String(options.channel), time.Now().Unix(), payload)
	}
	return payload, nil
}

// A callbackReceiver takes ModelRiver's place for one callback.
type callbackReceiver struct {
	listener net.Listener
	server   *http.Server
	received chan receivedCallback
}

type receivedCallback struct {
	at            time.Time
	authorization string
	body          []byte
}

func startCallbackReceiver() (*callbackReceiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &callbackReceiver{listener: listener, received: make(chan receivedCallback, 1)}
	r.server = &http.Server{
		ReadTimeout: 30 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"success":true}`)
			select {
			case r.received <- receivedCallback{time.Now(), request.Header.Get("Authorization"), body}:
			default:
			}
		}),
	}
	go r.server.Serve(listener)
	return r, nil
}

func (r *callbackReceiver) url(channel string) string {
	return "http://" + r.listener.Addr().String() + "/v1/callback/" + channel
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
		return "with MODELRIVER_API_KEY as bearer key"
	case authorization == "":
		return "without a key"
	}
	return "with a bearer key that is not this command's MODELRIVER_API_KEY"
}

func indent(body []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return string(body)
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

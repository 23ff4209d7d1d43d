package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// Settings are what sender and simulator share with the server.
type Settings struct {
	Secret string // that webhooks are signed with
	APIKey string

	// InWords returns a text that names settings as this app has them.
	InWords func(text string) string
}

// SendOptions say what [Send] does, named as the flags of its command.
type SendOptions struct {
	URL, Event, Channel, User, Scheme string
	NoCallback, Duplicate, Tamper     bool
	Wait                              time.Duration
	Count, Concurrency                int
	Rate                              float64
	Progress                          bool // a bar shows how far it has come
}

// Validate returns why the options make no sense, or nil.
func (o SendOptions) Validate() error {
	switch {
	case o.Count < 1 || o.Concurrency < 1:
		return errors.New("--count and --concurrency: use at least 1")
	case o.Rate < 0:
		return errors.New("--rate: use a number of webhooks per second, or 0 for as many as can be")
	case o.Channel != "" && o.Count > 1:
		return errors.New("--channel with --count: webhooks of one channel are duplicates of each other. Use --duplicate to see one")
	case !slices.Contains(modelriver.Schemes(), o.Scheme):
		return fmt.Errorf("--scheme %q: use one of %s", o.Scheme, strings.Join(modelriver.Schemes(), ", "))
	case strings.Contains(o.User, "@"):
		return fmt.Errorf("--user %q: use the user's id, which the dashboard shows in the collection users", o.User)
	case o.Tamper && o.Duplicate:
		return errors.New("--tamper with --duplicate: a refused webhook has no duplicate. Use one of them")
	}
	return nil
}

// A dispatch is one call of Send.
type dispatch struct {
	Sender
	options  SendOptions
	settings Settings
	out      io.Writer
	receiver *callbackReceiver // nil if no callback is asked for
}

// Send posts webhooks with payload, or with content of its own if that is nil, and reports
// on out what comes back. The error says what is not as it should be.
func Send(ctx context.Context, out io.Writer, settings Settings, payload []byte, options SendOptions) error {
	if settings.Secret == "" {
		return errors.New("no secret to sign with: set MODELRIVER_WEBHOOK_SECRET to the server's")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = options.Concurrency
	defer transport.CloseIdleConnections()
	d := &dispatch{
		Sender: Sender{
			Secret: settings.Secret, Scheme: options.Scheme, URL: options.URL, Tamper: options.Tamper,
			HTTP: &http.Client{Timeout: 30 * time.Second, Transport: transport, CheckRedirect: NoRedirect},
		},
		options: options, settings: settings, out: out,
	}
	if !options.NoCallback {
		var err error
		if d.receiver, err = startCallbackReceiver(); err != nil {
			return err
		}
		defer d.receiver.close()
	}
	if options.Count > 1 {
		return d.sendMany(ctx, payload)
	}
	return d.sendOne(ctx, payload)
}

// sendOne posts one webhook, waits for its callback, and sends it again if that is asked
// for.
func (d *dispatch) sendOne(ctx context.Context, payload []byte) error {
	ours := payload == nil
	if ours {
		payload = samplePayload
	}
	payload, err := preparePayload(payload, ours, d.options, d.receiver)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "POST %s, %d bytes, signed in scheme %q\n", d.URL, len(payload), d.Scheme)
	started := time.Now()
	if err := d.postAndTell(ctx, payload, ""); err != nil {
		return err
	}
	if d.Tamper {
		fmt.Fprintln(d.out, "Refused, as it should be: the payload was changed after it was signed.")
		return nil
	}
	if d.receiver != nil {
		if err := d.awaitCallback(ctx, started); err != nil {
			return err
		}
	}
	if d.options.Duplicate {
		return d.sendAgain(ctx, payload)
	}
	return nil
}

func (d *dispatch) postAndTell(ctx context.Context, payload []byte, before string) error {
	a, err := d.Post(ctx, payload, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%s%d %s in %s: %s\n", before, a.Status, http.StatusText(a.Status), a.Took, bytes.TrimSpace(a.Body))
	return d.check(a)
}

func (d *dispatch) awaitCallback(ctx context.Context, sent time.Time) error {
	received, err := d.receiver.wait(ctx, d.options.Wait)
	if err != nil {
		return err
	}
	if received == nil {
		return fmt.Errorf("no callback within %s: the server must run with MODELRIVER_API_KEY, and with 127.0.0.1 in MODELRIVER_CALLBACK_HOSTS; of several nodes, this machine's must lead; a duplicate gets none", d.options.Wait)
	}
	fmt.Fprintf(d.out, "Callback %s after the webhook was sent, %s:\n%s\n",
		received.at.Sub(sent).Round(precision), d.describeKey(received.authorization), indented(received.body))
	var callback struct{ Error string }
	if json.Unmarshal(received.body, &callback) == nil && callback.Error != "" {
		return errors.New("the server refused this webhook: the callback above says why")
	}
	return nil
}

// sendAgain posts the same webhook once more, which must change nothing.
func (d *dispatch) sendAgain(ctx context.Context, payload []byte) error {
	if err := d.postAndTell(ctx, payload, "Sent again. "); err != nil || d.receiver == nil {
		return err
	}
	wait := min(d.options.Wait, 2*time.Second)
	received, err := d.receiver.wait(ctx, wait)
	switch {
	case err != nil:
		return err
	case received != nil:
		return errors.New("the duplicate got a callback of its own")
	}
	fmt.Fprintf(d.out, "No second callback within %s: the duplicate changed nothing.\n", wait)
	return nil
}

// describeKey says what came as a key, without showing it.
func (d *dispatch) describeKey(authorization string) string {
	switch {
	case d.settings.APIKey != "" && authorization == "Bearer "+d.settings.APIKey:
		return d.settings.InWords("with MODELRIVER_API_KEY as bearer key")
	case authorization == "":
		return "without a key"
	}
	return d.settings.InWords("with a bearer key that is not this command's MODELRIVER_API_KEY")
}

func indented(body []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "  "); err != nil {
		return string(body)
	}
	return b.String()
}

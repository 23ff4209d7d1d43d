package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"
)

// Limits of what the doctor takes for healthy.
const (
	doctorTimeout = 10 * time.Second
	minSecret     = 16      // characters
	minFree       = 1 << 30 // bytes on the disk of the data
	maxClockSkew  = 30 * time.Second
)

const quotesRemedy = "They count as a part of it, so what it is compared with differs: the answer is 401. Docker keeps the quotes of an --env-file, where a shell and systemd take them away. Write the value without them."

// A Finding is what one check of the doctor saw.
type Finding struct {
	Check  string `json:"check"`
	Grade  grade  `json:"grade"`
	Text   string `json:"text"`
	Remedy string `json:"remedy"` // empty if all is well
}

type grade string

const (
	gradeOK      grade = "ok"
	gradeWarning grade = "warning" // works, but should be known
	gradeProblem grade = "problem"
)

func (c *commands) newDoctorCommand() *cobra.Command {
	var webhookURL string
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Checks the settings, the data and the way to ModelRiver and back",
		Long: `Checks the settings, the data and the way to ModelRiver and back, and says what to do
about each problem. It ends with status 1 if there is one.

Give it the server's environment, and with --url the address that ModelRiver has, to
check the proxy before the server too. It stores nothing: the webhook that it sends
carries no AI data. The server counts it as rejected if the secrets differ.`,
		Example: `  modelriver doctor
  modelriver doctor --url https://example.com/webhooks/modelriver`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt)
			defer stop()
			target, err := url.Parse(webhookURL)
			if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
				return fmt.Errorf("--url %q: use the URL where webhooks are received", webhookURL)
			}
			problems := 0
			for _, check := range c.checks() {
				for _, f := range check(ctx, target) {
					f = f.inWords(c.options)
					if f.Grade == gradeProblem {
						problems++
					}
					if err := f.print(command.OutOrStdout()); err != nil {
						return err
					}
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			if problems > 0 {
				return fmt.Errorf("%s found", english.Plural(problems, "problem", ""))
			}
			return nil
		},
	}
	command.Flags().StringVar(&webhookURL, "url", "http://127.0.0.1:8090"+c.options.Path, "where webhooks are received, as ModelRiver calls it")
	return command
}

// checks are all, in the order in which they are told.
func (c *commands) checks() []func(ctx context.Context, target *url.URL) []Finding {
	here := func(checks []func() []Finding) (all []func(context.Context, *url.URL) []Finding) {
		for _, check := range checks {
			all = append(all, func(context.Context, *url.URL) []Finding { return check() })
		}
		return all
	}
	return slices.Concat(here(c.settingsChecks()),
		[]func(context.Context, *url.URL) []Finding{c.checkAPI, c.checkWebhook, c.checkLive, c.checkReplica}, here(c.dataChecks(c.checkOpened)))
}

func (c *commands) settingsChecks() []func() []Finding {
	return []func() []Finding{c.checkSettings, c.checkSecret, c.checkKey}
}

func (c *commands) dataChecks(checkCollections func() []Finding) []func() []Finding {
	return []func() []Finding{checkCollections, c.checkRequests, c.checkLimits, c.checkNodes, c.checkDisk}
}

// Examine returns what the doctor's checks see that need no network, of the app's own settings
// and data.
func Examine(app core.App, options Options) (findings []Finding) {
	c := &commands{app: app, options: options}
	for _, check := range slices.Concat(c.settingsChecks(), c.dataChecks(c.checkCollections)) {
		for _, f := range check() {
			findings = append(findings, f.inWords(options))
		}
	}
	return findings
}

func (f Finding) inWords(options Options) Finding {
	f.Text, f.Remedy = options.InWords(f.Text), options.InWords(f.Remedy)
	return f
}

func (f Finding) print(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "%-7s  %-11s  %s\n", f.Grade, f.Check, oneLine(f.Text)); err != nil {
		return err
	}
	if f.Remedy == "" {
		return nil
	}
	_, err := fmt.Fprintln(out, wrapped(out, f.Remedy))
	return err
}

func (c *commands) checkSettings() []Finding {
	if c.options.Unusable == nil {
		return nil
	}
	return []Finding{{"settings", gradeProblem, c.options.Unusable.Error(), "The server does not start with it."}}
}

func (c *commands) checkSecret() []Finding {
	secrets := c.options.WebhookSecrets
	if len(secrets) == 0 {
		return []Finding{{"secret", gradeProblem, "none is set",
			"Every webhook is answered 503. Set MODELRIVER_WEBHOOK_SECRET to the secret that ModelRiver's console shows for the webhook, and restart."}}
	}
	for _, secret := range secrets {
		if InQuotes(secret) {
			return []Finding{{"secret", gradeProblem, "one is in quotes", quotesRemedy}}
		}
		if len(secret) < minSecret {
			return []Finding{{"secret", gradeWarning, fmt.Sprintf("one is shorter than %d characters", minSecret),
				"Whoever guesses it can write into the database. Use the one that ModelRiver's console shows."}}
		}
	}
	return []Finding{{"secret", gradeOK, english.Plural(len(secrets), "webhook secret", ""), ""}}
}

func (c *commands) checkKey() []Finding {
	if c.options.APIKey == "" {
		return []Finding{{"key", gradeProblem, "none is set",
			"Requests fail, and callbacks wait, and fail when their window ends. Set MODELRIVER_API_KEY to a project key of ModelRiver's console, and restart."}}
	}
	if InQuotes(c.options.APIKey) {
		return []Finding{{"key", gradeProblem, "is in quotes", quotesRemedy}}
	}
	return []Finding{{"key", gradeOK, "set; only ModelRiver can tell whether it is valid", ""}}
}

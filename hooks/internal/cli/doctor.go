package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"time"

	"github.com/dustin/go-humanize/english"
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

// A finding is what one check of the doctor saw.
type finding struct {
	check  string
	grade  grade
	text   string
	remedy string // empty if all is well
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
			for _, check := range []func(ctx context.Context, target *url.URL) []finding{
				c.checkSettings, c.checkSecret, c.checkKey, c.checkAPI, c.checkWebhook, c.checkLive, c.checkCollections, c.checkRequests, c.checkLimits, c.checkDisk,
			} {
				for _, f := range check(ctx, target) {
					f.text, f.remedy = c.options.InWords(f.text), c.options.InWords(f.remedy)
					if f.grade == gradeProblem {
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

func (f finding) print(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "%-7s  %-11s  %s\n", f.grade, f.check, f.text); err != nil {
		return err
	}
	if f.remedy == "" {
		return nil
	}
	_, err := fmt.Fprintln(out, wrapped(out, f.remedy))
	return err
}

func (c *commands) checkSettings(context.Context, *url.URL) []finding {
	if c.options.Unusable == nil {
		return nil
	}
	return []finding{{"settings", gradeProblem, c.options.Unusable.Error(), "The server does not start with it."}}
}

func (c *commands) checkSecret(context.Context, *url.URL) []finding {
	secrets := c.options.WebhookSecrets
	if len(secrets) == 0 {
		return []finding{{"secret", gradeProblem, "none is set",
			"Every webhook is answered 503. Set MODELRIVER_WEBHOOK_SECRET to the secret that ModelRiver's console shows for the webhook, and restart."}}
	}
	for _, secret := range secrets {
		if InQuotes(secret) {
			return []finding{{"secret", gradeProblem, "one is in quotes", quotesRemedy}}
		}
		if len(secret) < minSecret {
			return []finding{{"secret", gradeWarning, fmt.Sprintf("one is shorter than %d characters", minSecret),
				"Whoever guesses it can write into the database. Use the one that ModelRiver's console shows."}}
		}
	}
	return []finding{{"secret", gradeOK, english.Plural(len(secrets), "webhook secret", ""), ""}}
}

func (c *commands) checkKey(context.Context, *url.URL) []finding {
	if c.options.APIKey == "" {
		return []finding{{"key", gradeProblem, "none is set",
			"Requests fail, and callbacks wait, and fail when their window ends. Set MODELRIVER_API_KEY to a project key of ModelRiver's console, and restart."}}
	}
	if InQuotes(c.options.APIKey) {
		return []finding{{"key", gradeProblem, "is in quotes", quotesRemedy}}
	}
	return []finding{{"key", gradeOK, "set; only ModelRiver can tell whether it is valid", ""}}
}

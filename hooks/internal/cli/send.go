package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/simulator"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

func (c *commands) newSendCommand() *cobra.Command {
	var options simulator.SendOptions
	command := &cobra.Command{
		Use:   "send [file|-]",
		Short: "Signs a payload, posts it to a running server and shows the callback",
		Long: c.options.InWords(`Signs a payload as ModelRiver would, posts it to a running server and shows the
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
			if err := options.Validate(); err != nil {
				return err
			}
			payload, err := readPayloadFile(command.InOrStdin(), args)
			if err != nil {
				return err
			}
			if c.options.Unusable != nil {
				return c.options.Unusable
			}
			out := command.OutOrStdout()
			options.Progress = isTerminal(out)
			return simulator.Send(ctx, out, c.settings(), payload, options)
		},
	}
	command.SetContext(context.Background()) // of its own if it is run without one
	flags := command.Flags()
	flags.StringVar(&options.URL, "url", "http://127.0.0.1:8090"+c.options.Path, "where to post")
	flags.StringVar(&options.Event, "event", "", "event name to set in the payload")
	flags.StringVar(&options.Channel, "channel", "", "channel id to set in the payload (default: a new one for the sample)")
	flags.StringVar(&options.User, "user", "", "user that the content is for, so that only they see it (customer_data.user_id)")
	flags.StringVar(&options.Scheme, "scheme", "body", "how to sign: body, data or timestamped-body")
	flags.BoolVar(&options.NoCallback, "no-callback", false, "ask for no callback")
	flags.BoolVar(&options.Duplicate, "duplicate", false, "send each webhook twice, to see that the second changes nothing")
	flags.BoolVar(&options.Tamper, "tamper", false, "change the payload after it was signed, to see it refused")
	flags.DurationVar(&options.Wait, "wait", 10*time.Second, "how long to wait for the callback")
	flags.IntVar(&options.Count, "count", 1, "how many webhooks to send")
	flags.IntVar(&options.Concurrency, "concurrency", 10, "how many of them at the same time")
	flags.Float64Var(&options.Rate, "rate", 0, "how many of them per second (default: as many as can be)")
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

// settings are what sender and simulator share with the server.
func (c *commands) settings() simulator.Settings {
	settings := simulator.Settings{APIKey: c.options.APIKey, InWords: c.options.InWords}
	if len(c.options.WebhookSecrets) > 0 {
		settings.Secret = c.options.WebhookSecrets[0]
	}
	return settings
}

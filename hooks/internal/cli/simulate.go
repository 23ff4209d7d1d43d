package cli

import (
	"context"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/simulator"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

const simulateHelp = `Takes ModelRiver's place on this machine, to try things without an account: it
takes requests, posts a signed webhook for each, tries again as ModelRiver does, takes
the callback within 5 minutes, and prints each request's life. Its AI repeats the
question, or answers with ready-made content if there is none. It has no WebSocket, and
keeps nothing when it ends.

  POST /v1/ai/async            a request: {"workflow": "...", "messages": [...]}
  POST /v1/callback/{channel}  the callback
  GET  /status                 counts: posts of requests, generations (those that were taken,
                               for which ModelRiver would charge), and how they ended

The first two want MODELRIVER_API_KEY as bearer key; any will do if it is not set.
Webhooks are signed with MODELRIVER_WEBHOOK_SECRET. Start the server with both set to the
same, and with MODELRIVER_API_URL set to the simulator's address.

To see what your app does when things go wrong, make them go wrong. --fail is what a request
gets in place of the channel id:

  401, 402, 429, 500, 503  that status (429 and 503 with Retry-After); no webhook follows
  error                    status 200, but an error in the body; no webhook follows
  cut                      no answer: the connection ends. The webhook comes all the same

--answer is how the webhook of a request comes:

  early  before the request is answered, which waits until the webhook has been answered
  twice  once more, and then for a second event of the same channel
  never  not at all
  error  with "status": "error" and "error": {"message": "..."}, as if the AI had failed.
         ModelRiver publishes no example of such a webhook: this one is a guess

Each is for all requests. Add :first=2 for the first two only, :every=3 for each third; write
several with a comma. Of --fail the first that fits is done, of --answer all that fit; what
--fail has refused is not counted by --answer. For late answers, see --delay. For webhooks
that do not say whose request they answer, use --cache-fields "".`

func (c *commands) newSimulateCommand() *cobra.Command {
	var options simulator.Options
	command := &cobra.Command{
		Use:   "simulate",
		Short: "Takes ModelRiver's place on this machine, to try things without an account",
		Long:  c.options.InWords(simulateHelp),
		Example: `  modelriver simulate --every 5s
  modelriver simulate --target http://127.0.0.1:4000/webhook/modelriver --scheme data
  modelriver simulate --speed 60 --refuse-callbacks 1
  modelriver simulate --fail 429:first=2,cut:every=5 --answer early,twice:every=3
  modelriver simulate --cache-fields "" --delay 10m
  curl http://127.0.0.1:8787/v1/ai/async -H "Authorization: Bearer dev-key" \
    -d '{"workflow": "poem", "messages": [{"role": "user", "content": "rain"}]}'`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := options.Validate(); err != nil {
				return err
			}
			if c.options.Unusable != nil {
				return c.options.Unusable
			}
			ctx, end := c.endWithTheProcess(command.Context())
			defer end()
			return simulator.Run(ctx, command.OutOrStdout(), c.settings(), options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Listen, "listen", "127.0.0.1:8787", "loopback address to listen on")
	flags.StringVar(&options.Target, "target", "http://127.0.0.1:8090"+c.options.Path, "where to post webhooks, unless a request names a webhook_url on this machine")
	flags.StringVar(&options.Scheme, "scheme", "body", "how to sign: body, data or timestamped-body")
	flags.StringVar(&options.Event, "event", "new_content", "event name of requests without events; empty for standard webhooks, which want no callback")
	flags.StringSliceVar(&options.CacheFields, "cache-fields", []string{"request_id", "user_id", "category", "metadata.user_id"}, `paths into a request that become customer_data; "" for none`)
	flags.StringSliceVar(&options.Fail, "fail", nil, "how requests fail: 401, 402, 429, 500, 503, error, cut; with :first=N or :every=N for some (default: they do not)")
	flags.StringSliceVar(&options.Answer, "answer", nil, "how webhooks come: early, twice, never, error; with :first=N or :every=N for some (default: once, after the delay)")
	flags.DurationVar(&options.Delay, "delay", 2*time.Second, "how long the AI takes")
	flags.Float64Var(&options.Speed, "speed", 1, "how much faster than ModelRiver to send failed webhooks again")
	flags.DurationVar(&options.Every, "every", 0, "make a request of its own this often (default: never)")
	flags.IntVar(&options.Count, "count", 0, "end after this many requests of its own (default: go on)")
	flags.IntVar(&options.Refuse, "refuse-callbacks", 0, "answer 422 to this many callbacks, to see them fail and retry them")
	_ = command.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions(modelriver.Schemes(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

// endWithTheProcess returns a context that ends when PocketBase, which catches Ctrl-C,
// ends the process; it goes on with that once end is called.
func (c *commands) endWithTheProcess(parent context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(parent)
	ended := make(chan struct{})
	c.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "modelriverSimulate",
		Func: func(e *core.TerminateEvent) error {
			cancel()
			<-ended
			return e.Next()
		},
	})
	return ctx, func() {
		close(ended)
		cancel()
	}
}

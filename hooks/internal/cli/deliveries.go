package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// callbacksName is what the command was called when it listed callback rows. Called so,
// it does that still, in the words and columns of then.
const callbacksName = "callbacks"

// deliveryStates are the words for a state, with those of callback rows.
var deliveryStates = map[string]string{
	store.Waiting: store.Waiting, store.Delivered: store.Delivered, store.Failed: store.Failed, store.Refused: store.Refused,
	store.Pending: store.Waiting, store.Deleted: store.Deleted,
}

// deliveryFlags are the flags of the command as given.
type deliveryFlags struct {
	state, event, category, user, search, since, until string

	limit           int
	asJSON, payload bool
}

func (c *commands) newDeliveriesCommand() *cobra.Command {
	var given deliveryFlags
	command := &cobra.Command{
		Use:     "deliveries [ID]",
		Aliases: []string{callbacksName},
		Short:   "Lists webhooks and what became of them, or shows one",
		Long: `Lists webhooks and what became of them, the newest first: whether their content was
stored or refused, and whether ModelRiver accepted the callback. Times are UTC.

On a terminal what an attempt to call back ended with follows its delivery; otherwise a
delivery is one line of fields separated by tabs. With an ID, it shows one delivery and the
attempts to call back; with --payload too, it prints the webhook's payload as it came and
nothing else.

It was called callbacks. Called so, it lists the callbacks only, as it did.`,
		Example: `  modelriver deliveries
  modelriver deliveries --state failed --event new_content --since 24h
  modelriver deliveries --search "river" --until 2026-01-05 --limit 1000 | cut -f1
  modelriver deliveries 2k1vdvlw6w1ioj0
  modelriver deliveries 2k1vdvlw6w1ioj0 --payload | jq .`,
		Args:         cobra.MaximumNArgs(1),
		SilenceUsage: true,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 1 {
				return c.showDelivery(command, args[0], given)
			}
			return c.listDeliveries(command, given)
		},
	}
	flags := command.Flags()
	flags.StringVar(&given.state, "state", "", "only those whose callback is waiting, delivered or failed, whose content was refused, or whose record was deleted")
	flags.StringVar(&given.event, "event", "", "only those of an event, such as new_content")
	flags.StringVar(&given.category, "category", "", "only those of a category")
	flags.StringVar(&given.user, "user", "", "only those of a user's id")
	flags.StringVar(&given.search, "search", "", "only those with this id, channel id, or part of the title")
	flags.StringVar(&given.since, "since", "", "only those received since, a duration such as 90m or 24h, or a date or time in UTC")
	flags.StringVar(&given.until, "until", "", "only those received before, written as for --since")
	flags.IntVar(&given.limit, "limit", 20, "how many at most")
	flags.BoolVar(&given.asJSON, "json", false, "print JSON, for scripts")
	flags.BoolVar(&given.payload, "payload", false, "with an ID: print the webhook's payload as it came")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(
		[]string{store.Waiting, store.Delivered, store.Failed, store.Refused, store.Deleted, store.Pending}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

// filter is what the flags say, or why that cannot be.
func (f deliveryFlags) filter(now time.Time) (filter store.DeliveryFilter, err error) {
	state, known := deliveryStates[f.state]
	switch {
	case f.state != "" && !known:
		return filter, fmt.Errorf("--state %q: use one of waiting, delivered, failed, refused, deleted", f.state)
	case f.limit < 1:
		return filter, fmt.Errorf("--limit %d: use at least 1", f.limit)
	case f.payload:
		return filter, errors.New("--payload: name the delivery whose payload to print")
	}
	filter = store.DeliveryFilter{State: state, Event: f.event, Category: f.category, User: f.user, Search: f.search}
	if filter.From, err = parseDate("--since", f.since, now); err == nil {
		filter.To, err = parseDate("--until", f.until, now)
	}
	return filter, err
}

func (c *commands) listDeliveries(command *cobra.Command, given deliveryFlags) error {
	filter, err := given.filter(time.Now())
	if err != nil {
		return err
	}
	if err := c.openData(); err != nil {
		return err
	}
	callbacks := command.CalledAs() == callbacksName
	deliveries, err := c.findDeliveries(filter, given.limit, callbacks)
	out := command.OutOrStdout()
	switch {
	case err != nil:
		return err
	case given.asJSON:
		return printJSON(out, deliveries)
	case isTerminal(out):
		return showDeliveries(out, deliveries)
	case callbacks:
		return printFields(out, deliveries, callbackHead, callbackFields)
	}
	return printFields(out, deliveries, deliveryHead, deliveryFields)
}

// findDeliveries looks until it has found as many as the limit, or all there are.
func (c *commands) findDeliveries(filter store.DeliveryFilter, limit int, callbacks bool) ([]*store.Delivery, error) {
	found := []*store.Delivery{}
	for {
		filter.Limit = min(limit-len(found), 1000)
		page, err := store.FindDeliveries(c.app, filter)
		if err != nil {
			return nil, err
		}
		if callbacks {
			page.Items = slices.DeleteFunc(page.Items, func(d *store.Delivery) bool { return d.Callback == "" })
		}
		found = append(found, page.Items...)
		if page.Next == "" || len(found) >= limit {
			return found, nil
		}
		filter.After = page.Next
	}
}

// parseDate reads a flag that is a duration before now, or a date or time in UTC. Empty
// is the zero time.
func parseDate(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q: use a duration such as 90m or 24h, a date such as 2026-01-05 or a time such as 2026-01-05T12:00:00Z",
		flag, strings.TrimSpace(s))
}

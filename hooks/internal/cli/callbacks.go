package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func (c *commands) newCallbacksCommand() *cobra.Command {
	var state, since string
	var limit int
	command := &cobra.Command{
		Use:   "callbacks",
		Short: "Lists callbacks, the newest first",
		Long: `Lists callbacks, the newest first. Times are UTC.

On a terminal each error follows its callback; otherwise a callback is one line of
fields separated by tabs, its error the last one.`,
		Example: `  modelriver callbacks
  modelriver callbacks --state failed --since 24h
  modelriver callbacks --state pending --since 2026-01-05 --limit 1000 | cut -f1`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			states := []string{store.Pending, store.Delivered, store.Failed, store.Deleted}
			if state != "" && !slices.Contains(states, state) {
				return fmt.Errorf("--state %q: use one of %s", state, strings.Join(states, ", "))
			}
			if limit < 1 {
				return fmt.Errorf("--limit %d: use at least 1", limit)
			}
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			if err := c.openData(); err != nil {
				return err
			}

			var rows []callbackRow
			query := c.app.ConcurrentDB().
				Select("id", "state", "attempts", "lastStatus", "created", "nextAttempt", "lastError").
				From(store.Callbacks).
				OrderBy("created DESC", "id DESC").Limit(int64(limit))
			if state != "" {
				query.AndWhere(dbx.HashExp{"state": state})
			}
			if !from.IsZero() {
				query.AndWhere(dbx.NewExp("created >= {:from}", dbx.Params{"from": store.DateTime(from)}))
			}
			if err := query.All(&rows); err != nil {
				return err
			}
			return printCallbacks(command.OutOrStdout(), rows)
		},
	}
	flags := command.Flags()
	flags.StringVar(&state, "state", "", "only those that are pending, delivered or failed, or of which the record was deleted")
	flags.StringVar(&since, "since", "", "only those created since, a duration such as 90m or 24h, or a date or time in UTC")
	flags.IntVar(&limit, "limit", 20, "how many at most")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(
		[]string{store.Pending, store.Delivered, store.Failed, store.Deleted}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

type callbackRow struct {
	Id          string         `db:"id"`
	State       string         `db:"state"`
	Attempts    int            `db:"attempts"`
	LastStatus  int            `db:"lastStatus"`
	Created     types.DateTime `db:"created"`
	NextAttempt types.DateTime `db:"nextAttempt"`
	LastError   string         `db:"lastError"`
}

func printCallbacks(out io.Writer, rows []callbackRow) error {
	head := []string{"ID", "STATE", "TRIES", "HTTP", "CREATED", "NEXT"}
	if !isTerminal(out) {
		fmt.Fprintln(out, strings.Join(append(head, "ERROR"), "\t"))
		for _, r := range rows {
			fields := append(r.fields(), strings.Join(strings.Fields(r.LastError), " "))
			if _, err := fmt.Fprintln(out, strings.Join(fields, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(out, "No callbacks.")
		return err
	}
	const line = "%-15s  %-9s  %5s  %4s  %-19s  %s\n"
	fmt.Fprintf(out, line, toAny(head)...)
	for _, r := range rows {
		fmt.Fprintf(out, line, toAny(r.fields())...)
		if r.LastError != "" {
			if _, err := fmt.Fprintln(out, wrapped(out, r.LastError)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r callbackRow) fields() []string {
	next, status := "-", "-"
	if r.State == store.Pending {
		next = r.NextAttempt.Time().UTC().Format(time.DateTime)
	}
	if r.LastStatus > 0 {
		status = fmt.Sprint(r.LastStatus)
	}
	return []string{r.Id, r.State, fmt.Sprint(r.Attempts), status, r.Created.Time().UTC().Format(time.DateTime), next}
}

// parseSince reads a duration before now, or a date or time in UTC. Empty is the zero
// time.
func parseSince(s string, now time.Time) (time.Time, error) {
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
	return time.Time{}, fmt.Errorf("--since %q: use a duration such as 90m or 24h, a date such as 2026-01-05 or a time such as 2026-01-05T12:00:00Z", s)
}

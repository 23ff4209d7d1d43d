package hooks

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func (p *plugin) newCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "modelriver",
		Short: "Tries out and operates ModelRiver's webhooks and callbacks",
		Long: `Tries out and operates ModelRiver's webhooks and callbacks.

Every command works beside a running server on the same data directory (--dir).`,
		Args: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "see --help"
			if similar := command.SuggestionsFor(args[0]); len(similar) > 0 {
				hint = fmt.Sprintf("did you mean %s?", strings.Join(similar, " or "))
			}
			return fmt.Errorf("unknown command %q for %q: %s", args[0], command.CommandPath(), hint)
		},
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		RunE:                       func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(
		p.newSendCommand(), p.newSimulateCommand(),
		p.newStatusCommand(), p.newCallbacksCommand(), p.newRetryCommand(), p.newDoctorCommand(),
	)
	return command
}

// addCommands adds the plugin's commands to rootCmd. PocketBase drops a command's error
// and returns the one of OnTerminate, so that is where theirs comes out, for the host to
// print and to end with.
func (p *plugin) addCommands(rootCmd *cobra.Command) {
	ours := p.newCommand()
	for _, command := range rootCmd.Commands() {
		if command.Name() == ours.Name() {
			rootCmd.RemoveCommand(command) // of an earlier registration
		}
	}
	rootCmd.AddCommand(ours)
	keep := func(err error) error {
		if err == nil {
			return nil
		}
		if words := p.config.inWords(err.Error()); words != err.Error() {
			err = errors.New(words)
		}
		p.failure.Store(&err)
		return err
	}
	ours.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return keep(err) })
	for _, command := range append(ours.Commands(), ours) {
		run, check := command.RunE, command.Args
		command.RunE = func(c *cobra.Command, args []string) error { return keep(run(c, args)) }
		command.Args = func(c *cobra.Command, args []string) error { return keep(check(c, args)) }
		command.SilenceErrors = true // or it would be printed twice
	}
	p.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "modelriverFailure",
		Func: func(e *core.TerminateEvent) error {
			err := e.Next()
			if failure := p.failure.Load(); failure != nil {
				return errors.Join(*failure, err)
			}
			return err
		},
		Priority: -20000, // around everything, so that all of it is done
	})

	p.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "modelriverCommand",
		Func: func(e *core.BootstrapEvent) error {
			command, _, err := rootCmd.Find(os.Args[1:])
			switch {
			case err != nil:
			case command.Parent() == rootCmd && command.Name() == "serve" && p.unusable != nil:
				return p.unusable
			case command.Parent() == ours && command.Name() != "send" && command.Name() != "simulate":
				if err := findData(e.App.DataDir()); err != nil {
					return err
				}
			}
			return e.Next()
		},
		Priority: -10000, // before anything is made
	})
}

// findData returns an error unless a server has been in the data directory. PocketBase
// would make one.
func findData(dir string) error {
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	if _, err := os.Stat(filepath.Join(dir, "data.db")); err != nil {
		return fmt.Errorf("no data was found in %s: give the server's data directory with --dir (%w)", dir, err)
	}
	return nil
}

// openData makes sure that the collections are there: PocketBase applies migrations
// on serve only. Where they are, it leaves the data alone, for another release may be
// serving it.
func (p *plugin) openData() error {
	if p.app.HasTable(store.Content) && p.app.HasTable(store.Callbacks) {
		return nil
	}
	if err := p.app.RunAllMigrations(); err != nil {
		return err
	}
	return store.SchemaProblem(p.app)
}

// A status is what the status command reports.
type status struct {
	DataDir string `json:"dataDir"`
	store.Figures
	store.Latest
	Rejected *store.Rejected `json:"rejected"` // webhooks in the last 24 hours; null if the log, which counts them, is off
}

func (p *plugin) newStatusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status",
		Short: "Shows what was received and which callbacks wait or failed",
		Long: `Shows what was received and which callbacks wait or failed.

It ends with status 1 if a callback has failed, for cron and monitors. Received are the
records that are stored and the events that were refused; delivered callbacks count as
long as they are kept. Rejected are webhooks without a valid signature, or that could not
be read for another reason, as the server's log counts them, at most a minute late.`,
		Example: `  modelriver status
  modelriver status --json | jq .failed
  modelriver status >/dev/null || mail -s "Callbacks failed" ops@example.com </dev/null`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := p.openData(); err != nil {
				return err
			}
			s, err := p.readStatus()
			if err != nil {
				return err
			}
			out := command.OutOrStdout()
			if asJSON {
				encoder := json.NewEncoder(out)
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				err = encoder.Encode(s)
			} else {
				err = s.print(out, time.Now())
			}
			if err != nil {
				return err
			}
			if s.Failed > 0 {
				group := command.Parent().CommandPath()
				return fmt.Errorf("%s failed: see them with \"%s callbacks --state failed\", send them again with \"%s retry --all-failed\"",
					count(s.Failed, "callback"), group, group)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON, for scripts")
	return command
}

func (p *plugin) readStatus() (*status, error) {
	s := &status{DataDir: p.app.DataDir()}
	var err error
	if s.Figures, err = store.ReadFigures(p.app, time.Time{}, p.config.CallbackWindow); err != nil {
		return nil, err
	}
	if s.Latest, err = store.ReadLatest(p.app); err != nil {
		return nil, err
	}
	s.Rejected, err = store.ReadRejected(p.app, time.Now().Add(-24*time.Hour))
	return s, err
}

func (s *status) print(out io.Writer, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, n int, more string) {
		fmt.Fprintln(table, strings.TrimRight(fmt.Sprintf("%s\t%d\t%s", name, n, more), "\t "))
	}
	last := ""
	if s.LastReceived != nil {
		last = "last " + ago(now, s.LastReceived.Time())
	}
	row("received", s.Received, last)
	row("stored", s.Stored, "")
	row("refused", s.Refused, "")
	row("delivered", s.Delivered, "")
	oldest := ""
	if s.OldestWaiting != nil {
		oldest = fmt.Sprintf("oldest %s, %s", s.OldestWaiting.Id, ago(now, s.OldestWaiting.Created.Time()))
	}
	row("waiting", s.Waiting, oldest)
	row("failed", s.Failed, "")
	switch {
	case s.Rejected == nil:
		fmt.Fprintln(table, "rejected\t-\tunknown: the log, which counts them, is off or leaves warnings out (dashboard, Logs, settings)")
	case s.Rejected.Count == 0:
		row("rejected", 0, "")
	default:
		row("rejected", s.Rejected.Count, "in the last 24 hours, last "+ago(now, s.Rejected.Last.Time()))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.Rejected != nil && s.Rejected.Count > 0 {
		text := indentText(out, s.Rejected.Reason+": "+s.Rejected.Remedy)
		if _, err := fmt.Fprintf(out, "\nRejected webhooks: %s\n", strings.TrimSpace(text)); err != nil {
			return err
		}
	}
	if s.LastError == nil {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nLast error: %s %s, %s\n%s\n",
		s.LastError.Id, s.LastError.State, ago(now, s.LastError.Updated.Time()), indentText(out, s.LastError.Error))
	return err
}

func (p *plugin) newCallbacksCommand() *cobra.Command {
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
			if err := p.openData(); err != nil {
				return err
			}

			var rows []callbackRow
			query := p.app.ConcurrentDB().
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
			if _, err := fmt.Fprintln(out, indentText(out, r.LastError)); err != nil {
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

func (p *plugin) newRetryCommand() *cobra.Command {
	var allFailed bool
	command := &cobra.Command{
		Use:   "retry {ID... | --all-failed}",
		Short: "Has failed callbacks sent again, and refused events ingested again",
		Long: `Has failed callbacks sent again, with all their attempts, and refused events
ingested again. A running server sees that within seconds; otherwise the next one
sends them when it starts.`,
		Example: `  modelriver retry 2k1vdvlw6w1ioj0
  modelriver retry --all-failed
  modelriver callbacks --state failed --since 1h | sed 1d | cut -f1 | xargs modelriver retry`,
		Args: func(_ *cobra.Command, args []string) error {
			if allFailed == (len(args) > 0) {
				return errors.New("name the callbacks to retry, or give --all-failed")
			}
			return nil
		},
		SilenceUsage: true,
		RunE: func(command *cobra.Command, ids []string) error {
			if err := p.openData(); err != nil {
				return err
			}
			if allFailed {
				err := p.app.ConcurrentDB().Select("id").From(store.Callbacks).
					Where(dbx.HashExp{"state": store.Failed}).OrderBy("created", "id").Column(&ids)
				if err != nil {
					return err
				}
			}
			var problems []error
			armed := 0
			for _, id := range ids {
				if err := p.retryCallback(id); err != nil {
					problems = append(problems, err)
					continue
				}
				armed++
			}
			switch {
			case armed > 0:
				fmt.Fprintf(command.OutOrStdout(), "%s to be sent again: a running server begins within seconds.\n", count(armed, "callback"))
			case len(problems) == 0:
				fmt.Fprintln(command.OutOrStdout(), "No callback has failed.")
			}
			return errors.Join(problems...)
		},
	}
	command.Flags().BoolVar(&allFailed, "all-failed", false, "retry every callback that failed")
	return command
}

// retryCallback arms a failed callback again, as editing its state in the dashboard
// does: rearmEdited sees the change.
func (p *plugin) retryCallback(id string) error {
	return p.app.RunInTransaction(func(tx core.App) error {
		record, err := tx.FindRecordById(store.Callbacks, id)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%s: there is no such callback: \"modelriver callbacks\" lists them", id)
		}
		if err != nil {
			return err
		}
		switch state := record.GetString("state"); state {
		case store.Pending:
			return fmt.Errorf("%s: is pending, so it is being sent anyway", id)
		case store.Delivered:
			return fmt.Errorf("%s: was delivered: ModelRiver has accepted it", id)
		}
		record.Set("state", store.Pending)
		if err := tx.Save(record); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		return nil
	})
}

// isTerminal reports whether someone reads out, rather than a program or a file.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// indentText indents text by two columns, and wraps it for a terminal of 80.
func indentText(out io.Writer, text string) string {
	width := 78
	if !isTerminal(out) {
		width = 1 << 30
	}
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		length := len([]rune(word))
		switch {
		case column == 0:
			b.WriteString("  ")
		case column+1+length > width:
			b.WriteString("\n  ")
			column = 0
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// count is a number and what it counts, in English.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

func toAny(s []string) []any {
	out := make([]any, len(s))
	for i := range s {
		out[i] = s[i]
	}
	return out
}

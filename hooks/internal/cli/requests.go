package cli

import (
	"cmp"
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

// stateOpen is every state in which a request waits for its answer.
const stateOpen = "open"

func (c *commands) newRequestsCommand() *cobra.Command {
	var state, user, since string
	var limit int
	var asJSON bool
	states := []string{stateOpen, store.Queued, store.Sent, store.Answered, store.Failed}
	command := &cobra.Command{
		Use:   "requests",
		Short: "Lists requests, the newest first",
		Long: `Lists requests, the newest first. Times are UTC.

On a terminal what was asked and why a request failed follow it; otherwise a request is
one line of fields separated by tabs, those two the last ones.`,
		Example: `  modelriver requests --state open
  modelriver requests --state failed --since 24h
  modelriver requests --state queued --limit 1000 | sed 1d | cut -f1 | xargs modelriver cancel`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(states, state) {
				return fmt.Errorf("--state %q: use one of %s", state, strings.Join(states, ", "))
			}
			if limit < 1 {
				return fmt.Errorf("--limit %d: use at least 1", limit)
			}
			from, err := parseDate("--since", since, time.Now())
			if err != nil {
				return err
			}
			if err := c.openData(); err != nil {
				return err
			}
			rows, err := c.readRequests(state, user, from, limit)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(command.OutOrStdout(), rows)
			}
			return printRequests(command.OutOrStdout(), rows)
		},
	}
	flags := command.Flags()
	flags.StringVar(&state, "state", "", "only those that are queued, sent, answered or failed, or open: queued or sent")
	flags.StringVar(&user, "user", "", "only those of the user with this id")
	flags.StringVar(&since, "since", "", "only those created since, a duration such as 90m or 24h, or a date or time in UTC")
	flags.IntVar(&limit, "limit", 20, "how many at most")
	flags.BoolVar(&asJSON, "json", false, "print JSON, for scripts")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return command
}

type requestRow struct {
	Id       string         `db:"id" json:"id"`
	State    string         `db:"state" json:"state"`
	Attempts int            `db:"attempts" json:"attempts"`
	Created  types.DateTime `db:"created" json:"created"`
	Workflow string         `db:"workflow" json:"workflow"`
	User     string         `db:"userId" json:"userId"`
	Channel  string         `db:"channelId" json:"channelId"`
	Record   string         `db:"record" json:"record"`
	Question string         `db:"question" json:"question"` // the last message, as far as a line of text goes
	Error    string         `db:"error" json:"error"`
}

func (c *commands) readRequests(state, user string, from time.Time, limit int) ([]requestRow, error) {
	rows := []requestRow{}               // none is [] in JSON
	if !c.app.HasTable(store.Requests) { // beside the server of an earlier release
		return rows, nil
	}
	query := c.app.ConcurrentDB().
		Select("id", "state", "attempts", "created", "workflow", "userId", "channelId", "record", "error",
			`CASE json_type(input, '$.messages[#-1].content') WHEN 'text' THEN substr(input ->> '$.messages[#-1].content', 1, 200) ELSE '' END AS question`).
		From(store.Requests).
		OrderBy("created DESC", "id DESC").Limit(int64(limit))
	switch state {
	case "":
	case stateOpen:
		query.AndWhere(dbx.In("state", store.Queued, store.Sent))
	default:
		query.AndWhere(dbx.HashExp{"state": state})
	}
	if user != "" {
		query.AndWhere(dbx.HashExp{"userId": user})
	}
	if !from.IsZero() {
		query.AndWhere(dbx.NewExp("created >= {:from}", dbx.Params{"from": store.DateTime(from)}))
	}
	return rows, query.All(&rows)
}

func printRequests(out io.Writer, rows []requestRow) error {
	head := []string{"ID", "STATE", "TRIES", "CREATED", "USER", "WORKFLOW", "QUESTION", "ERROR"}
	if !isTerminal(out) {
		return printFields(out, rows, head, requestRow.fields)
	}
	var text strings.Builder
	if len(rows) == 0 {
		fmt.Fprintln(&text, "No requests.")
	} else {
		const line = "%-15s  %-8s  %5s  %-19s  %-15s  %s\n"
		fmt.Fprintf(&text, line, head[0], head[1], head[2], head[3], head[4], head[5])
		for _, r := range rows {
			f := r.fields()
			fmt.Fprintf(&text, line, f[0], f[1], f[2], f[3], f[4], f[5])
			for _, more := range f[6:] {
				if more != "" {
					fmt.Fprintln(&text, wrapped(out, more))
				}
			}
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func (r requestRow) fields() []string {
	fields := []string{
		r.Id, r.State, fmt.Sprint(r.Attempts), atSecond(r.Created), cmp.Or(r.User, "-"), r.Workflow, r.Question, r.Error,
	}
	for i := range fields {
		fields[i] = oneLine(fields[i])
	}
	return fields
}

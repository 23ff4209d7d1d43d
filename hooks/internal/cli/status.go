package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/nodes"
	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A status is what the status command reports.
type status struct {
	DataDir string `json:"dataDir"`
	store.All
	store.Latest

	// Replica is how the replica stands, as the server wrote it down last; nil if there is none.
	Replica *recovery.State `json:"replica"`

	// Nodes are how all stand, as this process hears them; nil if there is one.
	Nodes []nodes.State `json:"nodes"`
}

func (c *commands) newStatusCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "status",
		Short: "Shows what was received and which callbacks wait or failed",
		Long: `Shows what was received and which callbacks wait or failed.

It ends with status 1 if a callback has failed, for cron and monitors. Received are the
records that are stored and the events that were refused; delivered callbacks count as
long as they are kept. Rejected are webhooks without a valid signature, or that were answered
with another error unread, as the server counts them, at most a minute late. Of several nodes,
it asks each how it stands, and tells what is not as in the command's own program and files.`,
		Example: `  modelriver status
  modelriver status --json | jq .failed
  modelriver status >/dev/null || mail -s "Callbacks failed" ops@example.com </dev/null`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := c.openData(); err != nil {
				return err
			}
			s, err := c.readStatus()
			if err != nil {
				return err
			}
			out := command.OutOrStdout()
			if asJSON {
				err = printJSON(out, s)
			} else {
				err = s.print(out, time.Now())
			}
			if err != nil {
				return err
			}
			if s.Failed > 0 {
				group := command.Parent().CommandPath()
				return fmt.Errorf("%s failed: see them with \"%s deliveries --state failed\", send them again with \"%s retry --all-failed\"",
					english.Plural(s.Failed, "callback", ""), group, group)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON, for scripts")
	return command
}

func (c *commands) readStatus() (*status, error) {
	s := &status{DataDir: c.app.DataDir(), Nodes: c.options.Nodes()}
	var err error
	if s.All, err = store.ReadAll(c.app, time.Now(), time.Time{}, c.options.Window, nil); err != nil {
		return nil, err
	}
	if s.Latest, err = store.ReadLatest(c.app); err != nil {
		return nil, err
	}
	s.Replica, err = recovery.ReadState(s.DataDir)
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
	if r := s.Requests; r.Open+r.Failed+r.Answered > 0 {
		row("open requests", r.Open, "")
		row("failed requests", r.Failed, "")
		answeredIn := ""
		if r.Median != nil {
			answeredIn = "the median within " + (time.Duration(*r.Median) * time.Millisecond).String()
		}
		row("answered requests", r.Answered, answeredIn)
	}
	switch {
	case s.Rejected == nil:
		fmt.Fprintln(table, "rejected\t-\tunknown: no server of this release has run here yet")
	case s.Rejected.Count == 0:
		row("rejected", 0, "")
	default:
		row("rejected", s.Rejected.Count, "in the last 24 hours, last "+ago(now, s.Rejected.Last.Time()))
	}
	if s.Replica != nil {
		fmt.Fprintf(table, "replica\tepoch %d\t%s\n", s.Replica.Epoch, oneLine(s.Replica.InWords(now)))
	}
	for _, n := range s.Nodes {
		fmt.Fprintf(table, "node %s\t%s\t%s\n", n.Name, n.Role(), n.InWords())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.Rejected != nil && s.Rejected.Count > 0 {
		text := wrapped(out, s.Rejected.Reason+": "+s.Rejected.Remedy)
		if _, err := fmt.Fprintf(out, "\nRejected webhooks: %s\n", strings.TrimSpace(text)); err != nil {
			return err
		}
	}
	if s.LastError == nil {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nLast error: %s %s, %s\n%s\n",
		s.LastError.Id, s.LastError.State, ago(now, s.LastError.Updated.Time()), wrapped(out, oneLine(s.LastError.Error)))
	return err
}

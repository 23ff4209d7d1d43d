package cli

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func (c *commands) newRetryCommand() *cobra.Command {
	var allFailed, askAgain bool
	command := &cobra.Command{
		Use:   "retry {ID... | --all-failed}",
		Short: "Has failed callbacks sent again, and refused events ingested again",
		Long: `Has failed callbacks sent again, with all their attempts, and refused events
ingested again. A running server sees that within seconds; otherwise the next one
sends them when it starts.

With --ask-again, it has requests that failed asked again. Those of which nobody knows
whether ModelRiver took them may cost a second time.`,
		Example: `  modelriver retry 2k1vdvlw6w1ioj0
  modelriver retry --all-failed
  modelriver retry --ask-again 7h2kq0v1mz4x9ab
  modelriver deliveries --state failed --since 1h | sed 1d | cut -f1 | xargs modelriver retry`,
		Args: func(_ *cobra.Command, args []string) error {
			if allFailed == (len(args) > 0) {
				return errors.New("name the callbacks to retry, or give --all-failed")
			}
			if allFailed && askAgain {
				return errors.New("name the requests to ask again: --all-failed is for callbacks, as asking costs money")
			}
			return nil
		},
		SilenceUsage: true,
		RunE: func(command *cobra.Command, ids []string) error {
			if err := c.openData(); err != nil {
				return err
			}
			if allFailed {
				err := c.app.ConcurrentDB().Select("id").From(store.Callbacks).
					Where(dbx.HashExp{"state": store.Failed}).OrderBy("created", "id").Column(&ids)
				if err != nil {
					return err
				}
			}
			rearm, noun := c.rearm, "callback"
			if askAgain {
				rearm, noun = c.askAgain, "request"
			}
			armed, problems := 0, []error(nil)
			for _, id := range ids {
				if err := rearm(id); err != nil {
					problems = append(problems, err)
					continue
				}
				armed++
			}
			switch {
			case armed > 0:
				fmt.Fprintf(command.OutOrStdout(), "%s to be sent again: a running server begins within seconds.\n", english.Plural(armed, noun, ""))
			case len(problems) == 0:
				fmt.Fprintln(command.OutOrStdout(), "No callback has failed.")
			}
			return errors.Join(problems...)
		},
	}
	command.Flags().BoolVar(&allFailed, "all-failed", false, "retry every callback that failed")
	command.Flags().BoolVar(&askAgain, "ask-again", false, "the ids are of requests, which may cost a second time")
	return command
}

// rearm arms a failed callback again, as editing its state in the dashboard
// does: rearmEdited sees the change.
func (c *commands) rearm(id string) error {
	return c.app.RunInTransaction(func(tx core.App) error {
		record, err := tx.FindRecordById(store.Callbacks, id)
		if errors.Is(err, sql.ErrNoRows) {
			if request, _ := store.FindRequest(tx, id); request != nil {
				return fmt.Errorf("%s: is a request, which may cost a second time: give --ask-again", id)
			}
			return fmt.Errorf("%s: there is no such callback: \"modelriver deliveries\" lists them", id)
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

// askAgain has a failed request asked again, as editing its state in the dashboard does.
func (c *commands) askAgain(id string) error {
	return c.app.RunInTransaction(func(tx core.App) error {
		request, err := store.FindRequest(tx, id)
		switch {
		case err != nil:
			return err
		case request == nil:
			return fmt.Errorf("%s: there is no such request: \"modelriver requests\" lists them", id)
		case request.GetString("state") != store.Failed:
			return fmt.Errorf("%s: is %s, not failed", id, request.GetString("state"))
		}
		request.Set("state", store.Queued)
		if err := tx.Save(request); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		return nil
	})
}

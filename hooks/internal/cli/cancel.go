package cli

import (
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func (c *commands) newCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID...",
		Short: "Cancels requests that are not answered yet",
		Long: `Cancels requests that are not answered yet: they become failed, and their users read
that the operator cancelled them. What is queued is never sent. What was sent can't be
unsent, and costs what it costs: if an answer comes all the same, its user sees it.`,
		Example: `  modelriver cancel 7h2kq0v1mz4x9ab`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the requests to cancel: \"modelriver requests --state open\" lists them")
			}
			return nil
		},
		SilenceUsage: true,
		RunE: func(command *cobra.Command, ids []string) error {
			if err := c.openData(); err != nil {
				return err
			}
			var problems []error
			for _, id := range ids {
				reason, err := c.cancel(id)
				if err != nil {
					problems = append(problems, err)
					continue
				}
				fmt.Fprintf(command.OutOrStdout(), "%s: %s\n", id, reason)
			}
			return errors.Join(problems...)
		},
	}
}

// cancel cancels an open request, as editing its state in the dashboard does, and returns what
// its user reads.
func (c *commands) cancel(id string) (reason string, err error) {
	err = c.app.RunInTransaction(func(tx core.App) error {
		request, err := store.FindRequest(tx, id)
		if err != nil {
			return err
		}
		if request == nil {
			return fmt.Errorf("%s: there is no such request: \"modelriver requests\" lists them", id)
		}
		switch state := request.GetString("state"); state {
		case store.Answered:
			return fmt.Errorf("%s: is answered, so there is nothing to cancel", id)
		case store.Failed:
			return fmt.Errorf("%s: failed already, so nothing is sent any more: %s", id, oneLine(request.GetString("error")))
		}
		request.Set("state", store.Failed)
		if err := tx.Save(request); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		reason = request.GetString("error")
		return nil
	})
	return reason, err
}

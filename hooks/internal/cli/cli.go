// Package cli has the commands of the group "modelriver", and sees to the errors of "restore".
package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/nodes"
	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// Options are what the commands know of the plugin's settings.
type Options struct {
	WebhookSecrets []string
	APIKey         string
	APIURL         string        // ModelRiver's address
	Path           string        // where webhooks are received
	Window         time.Duration // in which a callback is tried

	// Several reports whether this is one of several nodes that have one database.
	Several bool

	// Replica is the app's replica.
	Replica *recovery.Recovery

	// Nodes returns how each of several nodes stands.
	Nodes func() []nodes.State

	// Unusable is why serve would end at once, or nil.
	Unusable error

	// InWords returns a text that names settings as this app has them.
	InWords func(text string) string
}

type commands struct {
	app     core.App
	options Options
	failure atomic.Pointer[error] // of the command that ran
}

// Add adds the commands to rootCmd, in place of those of an earlier call. PocketBase drops
// a command's error and returns the one of OnTerminate, so that is where theirs comes out,
// for the host to print and to end with.
func Add(app core.App, rootCmd *cobra.Command, options Options) {
	c := &commands{app: app, options: options}
	group, restore := c.newGroup(), options.Replica.NewCommand()
	for _, command := range rootCmd.Commands() {
		if command.Name() == group.Name() || command.Name() == restore.Name() {
			rootCmd.RemoveCommand(command)
		}
	}
	rootCmd.AddCommand(group, restore)
	c.keepErrors(append(group.Commands(), group, restore))
	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "modelriverCommand",
		Func: func(e *core.BootstrapEvent) error {
			if err := c.check(rootCmd, group, e.App.DataDir()); err != nil {
				return err
			}
			return e.Next()
		},
		Priority: -10000, // before anything is made
	})
}

func (c *commands) newGroup() *cobra.Command {
	group := &cobra.Command{
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
	group.AddCommand(
		c.newAskCommand(), c.newSendCommand(), c.newSimulateCommand(),
		c.newStatusCommand(), c.newDeliveriesCommand(), c.newRetryCommand(), c.newRequestsCommand(), c.newCancelCommand(), c.newDoctorCommand(),
	)
	return group
}

// keepErrors has the error of each of the commands returned by OnTerminate.
func (c *commands) keepErrors(all []*cobra.Command) {
	keep := func(err error) error {
		if err == nil {
			return nil
		}
		if words := c.options.InWords(err.Error()); words != err.Error() {
			err = errors.New(words)
		}
		c.failure.Store(&err)
		return err
	}
	for _, command := range all {
		command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return keep(err) })
		run, check := command.RunE, command.Args
		command.RunE = func(c *cobra.Command, args []string) error { return keep(run(c, args)) }
		command.Args = func(c *cobra.Command, args []string) error { return keep(check(c, args)) }
		command.SilenceErrors = true // or it would be printed twice
	}
	c.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "modelriverFailure",
		Func: func(e *core.TerminateEvent) error {
			err := e.Next()
			if failure := c.failure.Load(); failure != nil {
				return errors.Join(*failure, err)
			}
			return err
		},
		Priority: -20000, // around everything, so that all of it is done
	})
}

// check returns why the command that was called cannot run. PocketBase would make a data
// directory for it first.
func (c *commands) check(rootCmd, group *cobra.Command, dataDir string) error {
	command, _, err := rootCmd.Find(os.Args[1:])
	known := err == nil // PocketBase says so if not
	switch {
	case known && command.Parent() == rootCmd && command.Name() == "serve":
		return c.options.Unusable
	case known && command.Parent() == group && command.Name() != "send" && command.Name() != "simulate":
		return findData(dataDir)
	}
	return nil
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
func (c *commands) openData() error {
	if c.app.HasTable(store.Content) && c.app.HasTable(store.Callbacks) {
		return nil
	}
	if err := c.app.RunAllMigrations(); err != nil {
		return err
	}
	return store.SchemaProblem(c.app)
}

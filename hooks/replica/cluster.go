package replica

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/spf13/cobra"
)

// AddCommands adds the command "cluster" to the root command of an app that may be one of several nodes: cluster certs, init,
// status and leave. They know of the node what ConfigFromEnv does, and don't open the app's database as the app.
func AddCommands(app core.App, rootCmd *cobra.Command) {
	group := &cobra.Command{
		Use:   "cluster",
		Short: "Makes several nodes one database, and ends that",
		Long: `Makes several nodes one database, and ends that.

A node is a server with POCKETRIVER_NODE, its name, and POCKETRIVER_PEERS, the names and addresses
of all, as in ` + examplePeers + `.
A node uses the port of its address and the next one.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	group.AddCommand(newCertsCommand(app), newInitCommand(app), newStatusCommand(app), newLeaveCommand(app))
	rootCmd.AddCommand(group)
	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "replicaCommand", Priority: -20000, // before anything is made or refused
		Func: func(e *core.BootstrapEvent) error {
			if command, _, err := rootCmd.Find(os.Args[1:]); err == nil && (command == group || command.Parent() == group) {
				slog.SetDefault(slog.New(slog.DiscardHandler)) // PocketBase warns that it isn't bootstrapped
				return nil
			}
			return e.Next()
		},
	})
}

func dataFile(app core.App) string { return filepath.Join(app.DataDir(), "data.db") }

func newCertsCommand(app core.App) *cobra.Command {
	var into string
	command := &cobra.Command{
		Use:   "certs NAME NAME NAME",
		Short: "Makes the certificates by which the nodes know each other",
		Long: `Makes the certificates by which the nodes know each other: a folder for each, of the node's name.
Each goes to its node, and nowhere else. They are valid for ten years; the key that signed them is
kept nowhere, so that other nodes, or new certificates, are a new set for all.`,
		Example: `  pocketriver cluster certs a b c
  pocketriver cluster certs a b c --into /tmp/certs`,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, names []string) error {
			if into == "" {
				into = certsDir(app.DataDir())
			}
			if err := WriteCerts(into, names...); err != nil {
				return err
			}
			out := command.OutOrStdout()
			for _, name := range names {
				fmt.Fprintf(out, "%s\n", filepath.Join(into, name))
			}
			fmt.Fprintf(out, "Move each folder to its node's machine, where a node looks for certs/NAME beside its data directory, or\n"+
				"for the folder that %s names. Only the node's own user should be able to read it.\n", certsVariable)
			return nil
		},
	}
	command.Flags().StringVar(&into, "into", "", "the directory to make the folders in (default certs beside the data directory)")
	return command
}

func newInitCommand(app core.App) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Makes this data directory's database the one that all nodes begin with",
		Long: `Makes this data directory's database the one that all nodes begin with: done once, on one of them,
while no server has it open. If there is none yet, they begin with an empty one. The others start
without a database, and copy it.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := os.MkdirAll(app.DataDir(), 0o700); err != nil {
				return err
			}
			if err := Seed(dataFile(app)); err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "The nodes begin with %s. From now on it is written by a node only: start this server with\n"+
				"%s, %s and its certificates (\"cluster certs\"), and the others, without a database, with theirs.\n", dataFile(app), nodeVariable, peersVariable)
			return nil
		},
	}
}

func newStatusCommand(app core.App) *cobra.Command {
	return &cobra.Command{
		Use:          "status",
		Short:        "Shows which nodes run, and which one leads",
		Long:         "Shows which nodes run, and which one leads. It ends with status 1 unless one leads, and all others have what that has, and serve.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := ConfigFromEnv(app.DataDir())
			if err != nil {
				return err
			}
			if !config.several() {
				return fmt.Errorf("this is no node: set %s and %s, as its server has them", nodeVariable, peersVariable)
			}
			table := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0)
			return errors.Join(config.status(table), table.Flush())
		},
	}
}

// status writes a line for each node, and fails unless all is well.
func (c Config) status(w io.Writer) error {
	p, err := newPeer(c)
	if err != nil {
		return err
	}
	defer p.client.CloseIdleConnections()
	names, leader := slices.Sorted(maps.Keys(c.Peers)), ""
	states, errs := map[string]peerState{}, map[string]error{}
	for _, name := range names {
		if states[name], errs[name] = p.state(name); states[name].Leads {
			leader = name
		}
	}
	var away []string
	for _, name := range names {
		is := "runs"
		switch {
		case errs[name] != nil:
			is = fmt.Sprintf("can't be reached: %v", errs[name])
		case states[name].Starting:
			is = "starts"
		case name == leader:
			is = "leads"
		case slices.Contains(states[leader].Behind, name):
			is = "is behind"
		case leader != "":
			is = "follows"
		}
		if is != "leads" && is != "follows" {
			away = append(away, name)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, c.Peers[name], is)
	}
	switch {
	case leader == "":
		return errors.New("no node leads: nothing can be written until most of them run, and reach each other")
	case len(away) > 0:
		return fmt.Errorf("the others go on without %s: start what doesn't run, and see what its log says", strings.Join(away, ", "))
	}
	return nil
}

func newLeaveCommand(app core.App) *cobra.Command {
	return &cobra.Command{
		Use:   "leave",
		Short: "Ends the log: makes this node's database one without other nodes",
		Long: `Ends the log: makes this node's database one without other nodes, which is as this node has it.
Done where the node led last, once all nodes are stopped: stop the others first, and this one then.
What was the log is put aside into a folder beside the database, and may be deleted.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			if peers, err := parsePeers(os.Getenv(peersVariable)); err == nil {
				if err := mustBeStopped(peers); err != nil {
					return err
				}
			}
			aside, err := Leave(dataFile(app))
			if err != nil {
				return err
			}
			out := command.OutOrStdout()
			fmt.Fprintf(out, "%s is a database without other nodes. Start this server without %s and %s;\n"+
				"the other nodes stay stopped: their databases go on where nobody sees it.\n", dataFile(app), nodeVariable, peersVariable)
			if aside != "" {
				fmt.Fprintf(out, "What was its log is in %s, and not needed any more.\n", aside)
			}
			return nil
		},
	}
}

// mustBeStopped fails if a node takes connections.
func mustBeStopped(peers map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		address, err := peerAddress(peers[name])
		if err != nil { // at which no node runs
			continue
		}
		if conn, err := net.DialTimeout("tcp", address, dialTimeout); err == nil {
			conn.Close()
			return fmt.Errorf("the node %s runs at %s: stop it first, as this database wouldn't get what that writes", name, address)
		}
	}
	return nil
}

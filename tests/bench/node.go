//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/replica"
)

// node measures what it costs one server that its database has a log.
func (b *bench) node() error {
	samples, err := b.sideBySide("One node whose database has a log (off: none)", func() (groups [][]variant) {
		for _, v := range b.ownVariants() {
			v.kind.binary, v.kind.args, v.kind.fresh = b.self, []string{"node"}, true
			groups = append(groups, []variant{v.with("off"), v.with("log", "BENCH_LOG=1")})
		}
		return groups
	})
	if err != nil {
		return err
	}
	for _, connections := range b.connections {
		for _, v := range b.ownVariants() {
			b.target(fmt.Sprintf("%d connections, %s: rps with a log / off", connections, v.name),
				ratioOf(samples[ingestCell{connections, v.name + " log"}], samples[ingestCell{connections, v.name + " off"}], rpsOf), "≥", 0.85)
		}
	}
	return nil
}

// runNode is what the binary is to webhooks, with a log if it is asked for.
func runNode() error {
	debug.SetGCPercent(200)
	connect, register := core.DBConnectFunc(hooks.DBConnect), func(core.App, *cobra.Command) {}
	if os.Getenv("BENCH_LOG") != "" {
		node, err := replica.Open(replica.Config{})
		if err != nil {
			return err
		}
		connect, register = node.Connect, node.Register
	}
	app := pocketbase.NewWithConfig(pocketbase.Config{DBConnect: connect})
	register(app, app.RootCmd)
	config, err := hooks.ConfigFromEnv()
	if err != nil {
		return err
	}
	hooks.MustRegister(app, app.RootCmd, config)
	return app.Start()
}

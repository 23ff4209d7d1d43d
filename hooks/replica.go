package hooks

import (
	"errors"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/dbx"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// bindRecovery ships the database to the replica while the app serves, and restores it.
func (p *plugin) bindRecovery(rootCmd *cobra.Command) {
	var err error
	p.recovery, err = recovery.New(p.app, rootCmd, recovery.Options{
		URL: p.config.Replica, Ack: p.config.ReplicaAck, Retention: p.config.ReplicaRetention,
		Restored: store.ForgetUnsent, Describe: describe,
	})
	if err != nil { // serve says so
		p.unusable = errors.New(p.config.inWords(err.Error()))
	}
	p.recovery.Bind()
}

// describe tells what a restored database still has to do.
func describe(db dbx.Builder) (lines []string) {
	pending, queued := store.CountOwed(db)
	if pending > 0 {
		lines = append(lines, english.Plural(pending, "callback", "")+" waited at that moment: a server that goes on from there sends them, maybe once more")
	}
	if queued > 0 {
		lines = append(lines, english.Plural(queued, "request", "")+" waited at that moment: on a server that goes on from there they fail, since nobody knows whether they were sent after it, and can be asked again")
	}
	return lines
}

package hooks

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
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
	if p.config.Replica != "" {
		p.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
			Id: "modelriverLog", Func: refuseLog, Priority: -6000, // before the replica opens the database
		})
	}
}

// refuseLog refuses what DBConnect does, before the database is shipped, or replaced.
func refuseLog(e *core.BootstrapEvent) error {
	path := filepath.Join(e.App.DataDir(), "data.db")
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return e.Next()
	}
	// Who only reads leaves the WAL as it is, which tells what a power failure took. Only a file: has a mode.
	name := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(filepath.ToSlash(path))
	db, err := dbx.Open("sqlite", "file:"+name+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	follows, _ := followsLog(db) // of one that can't be read, others tell
	if follows {
		err = logRefusal(path)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return e.Next()
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

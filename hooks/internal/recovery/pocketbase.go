package recovery

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/called"
)

// This file holds what leans on PocketBase: when a database is opened, closed and replaced.

// Bind adds the recovery's hooks to its app, and the flag of its commands.
func (r *Recovery) Bind() {
	if r.rootCmd != nil {
		r.addFlag()
	}
	r.app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
		Id: "modelriverReplica", Func: r.bootstrap, Priority: -5000, // before the database is opened
	})
	r.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "modelriverReplica", Func: r.serve, Priority: -5000, // before the first webhook
	})
	r.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "modelriverReplica", Func: r.terminate, Priority: -500, // after the last write, before the database is closed
	})
	r.app.OnBackupCreate().Bind(&hook.Handler[*core.BackupEvent]{Id: "modelriverReplica", Func: r.leaveOut, Priority: -10000})
	r.app.OnBackupRestore().Bind(&hook.Handler[*core.BackupEvent]{Id: "modelriverReplica", Func: r.restoreBackup, Priority: -10000})
}

func (r *Recovery) bootstrap(e *core.BootstrapEvent) error {
	switch command := called.Name(r.rootCmd); {
	case command == restoreName:
		quiet()
		return nil
	case command != "serve":
		if err := r.local.beforeCommand(context.Background()); err != nil {
			return err
		}
		return e.Next()
	case !r.Configured():
		var err error
		if r.lock, err = r.local.share(); isRefusal(err) { // and none where no file can be locked
			return err
		}
		if err := r.local.beforeOther(context.Background()); err != nil {
			return err
		}
		// What is changed without the replica cannot be told from what it has, once it is back.
		if err := r.markReplaced(); err != nil {
			return err
		}
		_ = os.Remove(filepath.Join(r.local.dir, stateFile)) // of a server that had a replica
		return e.Next()
	}
	_ = r.rootCmd.ParseFlags(os.Args[1:]) // for takesOver; they are parsed again, and reported, when the command is run
	ctx := context.Background()
	if err := r.prepare(ctx); err != nil {
		r.noteRefusal(err)
		return err
	}
	// Before the app writes: its own checkpoint could begin the WAL anew over what Litestream has
	// not read yet. A new database it reads when it is there.
	if hasData, err := r.local.hasData(); err != nil {
		return err
	} else if hasData && r.shipping == nil {
		if r.shipping, err = r.open(ctx); err != nil {
			return err
		}
	}
	if err := e.Next(); err != nil {
		return err
	}
	return leaveCheckpoints(e.App)
}

// leaveCheckpoints has SQLite leave the WAL to Litestream, until it is as large as PocketBase lets its
// file stay. Litestream reads while the app writes, and beside a reader, SQLite sorts the whole WAL at
// each commit to find that it cannot begin it anew: a quarter of what a webhook costs. One connection
// writes all; without a limit of its idle time it stays the one that was told.
func leaveCheckpoints(app core.App) error {
	db, ok := app.NonconcurrentDB().(*dbx.DB)
	if !ok {
		return nil
	}
	db.DB().SetConnMaxIdleTime(0)
	_, err := db.NewQuery("PRAGMA wal_autocheckpoint = 50000").Execute()
	return err
}

// serve begins to ship. Migrations have run by then.
func (r *Recovery) serve(e *core.ServeEvent) error {
	if r.lock == nil {
		return e.Next() // it is not this process that serves the data
	}
	if err := r.tellRestored(); err != nil {
		return err
	}
	if !r.Configured() {
		return e.Next()
	}
	// PocketBase would truncate the WAL each night, which waits for Litestream's read
	// transaction for as long as SQLite waits, and holds up every write meanwhile. Litestream
	// checkpoints by itself.
	e.App.Cron().MustAdd("__pbDBOptimize__", "0 0 * * *", func() {
		if _, err := e.App.AuxNonconcurrentDB().NewQuery("PRAGMA wal_checkpoint(TRUNCATE)").Execute(); err != nil {
			e.App.Logger().Warn("Failed to run periodic PRAGMA wal_checkpoint for the auxiliary DB", slog.String("error", err.Error()))
		}
		if _, err := e.App.NonconcurrentDB().NewQuery("PRAGMA optimize").Execute(); err != nil {
			e.App.Logger().Warn("Failed to run periodic PRAGMA optimize", slog.String("error", err.Error()))
		}
	})
	r.say(fmt.Sprintf("changes are shipped to %s (%s)", r.options.URL, r.options.Ack))
	r.start()
	return e.Next()
}

// terminate ships what is left. Litestream's own files stay open: closed last, they keep
// SQLite from ending the WAL, which a start would have to answer with a whole copy.
func (r *Recovery) terminate(e *core.TerminateEvent) error {
	r.finish()
	return e.Next()
}

// leaveOut keeps the replica's files out of a backup.
func (r *Recovery) leaveOut(e *core.BackupEvent) error {
	e.Exclude = append(e.Exclude, localDir, verifyDir)
	entries, err := os.ReadDir(e.App.DataDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), asidePrefix) {
			e.Exclude = append(e.Exclude, entry.Name())
		}
	}
	return e.Next()
}

// restoreBackup lets PocketBase replace the database, and has the next start ship a whole copy
// of it, in an epoch of its own.
func (r *Recovery) restoreBackup(e *core.BackupEvent) error {
	if r.lock == nil || !r.Configured() {
		return r.leaveOut(e) // it is not this process that ships the data
	}
	r.pause(true)
	before, err := r.local.readIdentity()
	if err == nil {
		err = r.markReplaced()
	}
	if err != nil {
		r.pause(false)
		return err
	}
	replaced := false
	defer func() {
		if !replaced { // PocketBase has put everything back, or a hook of the app panicked, which ends no server
			_ = r.local.writeIdentity(before)
			r.pause(false)
		}
	}()
	err = r.leaveOut(e)
	replaced = err == nil
	return err
}

// pause stops shipping, once the turn that runs is over, or goes on.
func (r *Recovery) pause(paused bool) {
	r.mu.Lock()
	r.paused = paused
	r.mu.Unlock()
	if paused {
		r.turn.Lock() // the next turn sees that it may not
		defer r.turn.Unlock()
	}
}

// Package recovery ships each change of data.db to a replica, a folder or a bucket of an
// S3-compatible store, and restores the database from it. Litestream reads the changes from
// SQLite's WAL and puts them together again; what stands here decides who may write to the
// replica, what a server may go on from when it starts, and when a change is there.
package recovery

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"
)

// How a webhook is answered.
const (
	AckAsync = "async" // when it is on this machine's disk; it is shipped within about a second
	AckWait  = "wait"  // when the replica has it too
)

// Options are the settings of a replica.
type Options struct {
	URL       string        // of the replica; empty if there is none
	Ack       string        // AckAsync or AckWait
	Retention time.Duration // how far back any moment can be restored

	// Restored is called once after a restore, before anything is served.
	Restored func(app core.App) error

	// Describe returns what an operator should know of a database, in lines. It may find a
	// database of an earlier release.
	Describe func(db dbx.Builder) []string
}

// A Recovery keeps the replica of one app.
type Recovery struct {
	app      core.App
	rootCmd  *cobra.Command
	options  Options
	bucket   bucket // nil if there is no replica
	unusable error  // why there is none, though there is a URL
	local    local
	exit     func(code int) // os.Exit
	run      string         // of this process
	signs    atomic.Int64   // that it gave

	lock *flock.Flock // of the data directory, while this process serves

	turn sync.Mutex // held while changes are shipped

	client   *epochClient
	shipping *shipping // nil until the database is open; of the turn
	stop     context.CancelFunc
	done     chan struct{} // closed when nothing more is shipped
	silent   chan struct{} // closed when no more signs of life are given
	wake     chan struct{}

	mu      sync.Mutex
	waiting []chan error
	paused  bool
	state   State
}

// New returns the recovery of app. With an error, which says what is wrong with the URL, it has no
// replica.
func New(app core.App, rootCmd *cobra.Command, options Options) (*Recovery, error) {
	var b bucket
	var err error
	if options.URL != "" {
		b, err = openBucket(options.URL)
		if f, ok := b.(folder); ok {
			err = f.isApart(app.DataDir())
		}
		if err != nil {
			b, err = nil, fmt.Errorf("REPLICA_URL: %w", err)
		}
	}
	return &Recovery{
		app: app, rootCmd: rootCmd, options: options, bucket: b, unusable: err, local: newLocal(app.DataDir()), exit: os.Exit,
		client: newEpochClient(b, epoch{}), run: newId(),
		wake: make(chan struct{}, 1), state: State{URL: options.URL, Ack: options.Ack},
	}, err
}

// say tells the operator, in the terminal and, once there is one, in the log.
func (r *Recovery) say(text string) {
	end := "."
	if strings.HasSuffix(text, "?") {
		end = ""
	}
	fmt.Fprintln(os.Stderr, "Replica: "+text+end)
	if r.app.IsBootstrapped() {
		r.app.Logger().Info("Replica: " + text)
	}
}

// tellRestored tells the app once that its database was restored.
func (r *Recovery) tellRestored() error {
	id, err := r.local.readIdentity()
	if err != nil || id.RestoredTo == nil {
		return err
	}
	for _, line := range r.options.Describe(r.app.DB()) {
		r.say(line)
	}
	if err := r.options.Restored(r.app); err != nil {
		return err
	}
	id.RestoredTo = nil
	return r.local.writeIdentity(id)
}

package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/mattn/go-isatty"
	"github.com/pocketbase/dbx"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

const restoreName = "restore"

// addFlag adds the flag of serve and restore, unless an earlier call did.
func (r *Recovery) addFlag() {
	if r.rootCmd.PersistentFlags().Lookup("takeover") == nil {
		r.rootCmd.PersistentFlags().Bool("takeover", false, "for serve and restore: do not look, for up to 35 seconds, whether another server writes to the replica (REPLICA_URL), but end it")
	}
}

// A restoration is one call of the command.
type restoration struct {
	r      *Recovery
	out    io.Writer
	into   string
	to     string
	dryRun bool
	verify bool
}

// NewCommand returns the command "restore".
func (r *Recovery) NewCommand() *cobra.Command {
	var call restoration
	command := &cobra.Command{
		Use:   restoreName,
		Short: "Restores the database from the replica (REPLICA_URL)",
		Long: `Restores the database from the replica that REPLICA_URL names: as it is there now, or as
it was at a time: to the second for the last five minutes, to 30 seconds within REPLICA_RETENTION. A
server that starts without a database does the first by itself.

Into the data directory it is restored while no server runs there; the database that is
there is put into a directory beside it, and the next start of the server goes on from the
restored one. Into another directory it is a copy, to look at.`,
		Example: `  pocketriver restore --dry-run
  pocketriver restore --to "2026-01-31 14:05:00"
  pocketriver restore --to "2026-01-31 14:05:00" --into /tmp/before
  pocketriver restore --verify || mail -s "The replica could not be verified" ops@example.com </dev/null`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt)
			defer stop()
			call.r, call.out = r, command.OutOrStdout()
			return call.run(ctx)
		},
	}
	flags := command.Flags()
	flags.StringVar(&call.to, "to", "", "the moment to restore, as in \"2026-01-31 14:05:00\" (UTC) or 2026-01-31T14:05:00+01:00 (default the newest)")
	flags.StringVar(&call.into, "into", "", "the directory to restore into (default the data directory)")
	flags.BoolVar(&call.dryRun, "dry-run", false, "only tell what would be restored, and since when any moment can be")
	flags.BoolVar(&call.verify, "verify", false, "restore into a temporary directory, check it, count its records, and delete it")
	return command
}

func (c *restoration) run(ctx context.Context) (err error) {
	r := c.r
	if r.unusable != nil {
		return r.unusable
	}
	if !r.Configured() {
		return errors.New("there is no replica: set REPLICA_URL, as the server has it")
	}
	to, err := parseMoment(c.to)
	if err != nil {
		return err
	}
	epochs, err := readEpochs(ctx, r.bucket)
	if err != nil {
		return err
	}
	from, err := findSource(ctx, r.bucket, epochs, to)
	if errors.Is(err, errNothing) && !to.IsZero() {
		return fmt.Errorf("the replica has nothing of %s or before: it is too long ago, or no server had shipped to it yet", to.Format(time.RFC3339))
	}
	if errors.Is(err, errNothing) {
		return fmt.Errorf("%s holds no replica: is REPLICA_URL right?", r.options.URL)
	}
	if err != nil {
		return err
	}
	moment, err := from.moment(ctx)
	if err != nil {
		return err
	}
	inPlace := c.into == "" || sameDir(c.into, r.local.dataDir)
	if inPlace && !c.dryRun && !c.verify {
		lock, err := r.local.lock()
		if err != nil {
			return err
		}
		defer func() { _ = lock.Unlock() }()
	}
	fmt.Fprintf(c.out, "%s has the database as of %s, its last change there (%s), in %s of %s.\n", r.options.URL,
		moment.Format(time.RFC3339), humanize.Time(moment), english.Plural(len(from.files), "file", ""), humanize.IBytes(uint64(from.size())))
	if c.dryRun {
		return c.tellRange(ctx, epochs)
	}
	defer func() { err = cmp.Or(err, c.giveToOwners()) }()
	switch {
	case c.verify:
		return c.runVerify(ctx, from, epochs, to)
	case inPlace:
		return c.replace(ctx, from, epochs, !to.IsZero())
	}
	return c.copyInto(ctx, from)
}

// giveToOwners gives what root has written to whom the server runs as.
func (c *restoration) giveToOwners() error {
	err := giveToOwner(c.r.local.dataDir, localDir, dataFile+"*", asidePrefix+"*")
	if c.into != "" {
		err = cmp.Or(err, giveToOwner(c.into, dataFile))
	}
	if f, ok := c.r.bucket.(folder); ok {
		err = cmp.Or(err, giveToOwner(string(f), replicaKey, aliveKey, epochsDir+"*"))
	}
	return err
}

func parseMoment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05"} {
		if moment, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
			return moment, nil
		}
	}
	return time.Time{}, fmt.Errorf("--to %q: write the moment as in \"2026-01-31 14:05:00\" (UTC) or 2026-01-31T14:05:00+01:00", text)
}

func sameDir(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && resolve(a) == resolve(b)
}

func (c *restoration) restore(ctx context.Context, from *source, path string) error {
	bar := c.newBar(from)
	err := from.restore(ctx, path, bar)
	_ = bar.Finish()
	return err
}

// newBar returns a progress bar, which is seen on a terminal only.
func (c *restoration) newBar(from *source) *progressbar.ProgressBar {
	if file, ok := c.out.(*os.File); !ok || !isatty.IsTerminal(file.Fd()) {
		return progressbar.DefaultBytesSilent(from.size())
	}
	return progressbar.NewOptions64(from.size(), progressbar.OptionSetWriter(c.out), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("restoring"), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetElapsedTime(false))
}

// fetch restores a state beside the database, to be put in its place.
func (c *restoration) fetch(ctx context.Context, from *source) (time.Time, error) {
	bar := c.newBar(from)
	moment, err := c.r.fetch(ctx, from, bar)
	_ = bar.Finish()
	return moment, err
}

// describe tells what is in a restored database.
func (c *restoration) describe(ctx context.Context, path string) error {
	counts, err := countRecords(ctx, path)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "Records: %s.\n", cmp.Or(inWords(counts), "none"))
	return withDB(path, func(db *dbx.DB) error {
		for _, line := range c.r.options.Describe(db) {
			fmt.Fprintln(c.out, line+".")
		}
		return nil
	})
}

// runVerify restores into a place that is deleted again.
func (c *restoration) runVerify(ctx context.Context, from *source, epochs []epoch, to time.Time) error {
	l := c.r.local
	dir, done, err := l.verifyPlace()
	if err != nil {
		return err
	}
	defer done()
	path := filepath.Join(dir, dataFile)
	verified := Verified{At: time.Now().UTC()}
	err = c.restore(ctx, from, path)
	if errors.Is(err, litestream.ErrTxNotAvailable) { // a server that runs has put its files together meanwhile
		if from, err = findSource(ctx, c.r.bucket, epochs, to); err == nil {
			err = c.restore(ctx, from, path)
		}
	}
	if err != nil {
		verified.Error = err.Error()
	}
	if _, err := os.Stat(l.dataDir); err == nil && ctx.Err() == nil {
		if err := l.write(verifiedFile, verified); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("the replica cannot be restored: %w", err)
	}
	if err := c.describe(ctx, path); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "The replica is whole: what it has was restored, and SQLite finds no fault in it.")
	return nil
}

// copyInto restores into a directory that no server uses.
func (c *restoration) copyInto(ctx context.Context, from *source) error {
	path := filepath.Join(c.into, dataFile)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("%s is there already: restore into another directory, or move it away", path)
	}
	if err := c.restore(ctx, from, path); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "Restored into %s.\n", path)
	return c.describe(ctx, path)
}

// tellRange tells which moments can be restored.
func (c *restoration) tellRange(ctx context.Context, epochs []epoch) error {
	first, err := firstMoment(ctx, c.r.bucket, epochs)
	if err == nil && !first.IsZero() {
		fmt.Fprintf(c.out, "With --to it can be restored as of any moment since %s.\n", first.Add(time.Second).Format(time.RFC3339)) // told to the second
	}
	return err
}

// replace restores into the data directory, which this process has locked, in a new epoch, so that the
// next start of the server goes on from there.
func (c *restoration) replace(ctx context.Context, from *source, epochs []epoch, past bool) error {
	r := c.r
	id, err := r.local.readIdentity()
	if err != nil {
		return err
	}
	newest := epochs[len(epochs)-1]
	say := func(text string) { fmt.Fprintln(c.out, text+".") }
	defer func() { _ = os.Remove(r.local.restored()) }() // if it is not put in place
	moment, err := c.fetch(ctx, from)                    // before an epoch begins, which each start would go on with
	if err != nil {
		return err
	}
	last, err := readSign(ctx, r.bucket)
	if err != nil {
		return err
	}
	if r.hasOthers(last, newest, takeOver) && !r.takesOver() {
		if err := awaitSilence(ctx, r.bucket, newest, signWait, say); err != nil {
			return err
		}
	}
	if id, err = r.claim(ctx, id); err != nil {
		return err
	}
	begins := &position{Epoch: newest.Number}
	if past {
		begins = &position{Epoch: from.epoch(), TXID: from.txid()}
	}
	e, err := beginEpoch(ctx, r.bucket, newest.Number+1, id.Owner, begins)
	if err != nil {
		return err
	}
	r.client.begin(e)
	_ = r.giveSign(ctx, false) // what is given next is seen to be another

	if !past { // with what the server that is ended wrote to its end
		ended, err := findSource(ctx, r.bucket, epochs, time.Time{})
		if err != nil {
			return err
		}
		if ended.epoch() != from.epoch() || ended.txid() != from.txid() {
			if moment, err = c.fetch(ctx, ended); err != nil {
				return err
			}
		}
	}
	if err := r.putBack(ctx, id, e, moment, say); err != nil {
		return err
	}
	_ = r.giveSign(ctx, true) // the next start need not look
	fmt.Fprintf(c.out, "Restored into %s. The next start of the server goes on from there.\n", r.local.data())
	return c.describe(ctx, r.local.data())
}

// quiet keeps PocketBase from warning that it was not bootstrapped, which restore does without:
// it would make the database that is to be restored.
func quiet() { slog.SetDefault(slog.New(slog.DiscardHandler)) }

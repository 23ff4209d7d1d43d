//go:build linux

// Command bench measures PocketRiver beside stock PocketBase, on this machine and over
// loopback, and prints tables with ratios. It needs Linux and the Go tool:
//
//	go run ./tests/bench                       # everything, about 20 minutes
//	go run ./tests/bench -only ingest -connections 32 -rounds 1 -duration 1s
//
// It builds PocketRiver and PocketBase's own examples/base, starts each on a fresh copy
// of the same data and compares them interleaved: every round measures every program
// once, and the figures are medians over the rounds. Load generator, subscribers, pages and
// callback receiver are processes of their own. Rows, callbacks and events are counted
// after each measurement; one that is missing, or there twice, ends the run.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

//go:embed webhook.pb.js
var webhookScript []byte

// roles are what this program is when it starts itself as another process.
var roles = map[string]func() error{
	"load":       runLoad,
	"receiver":   runReceiver,
	"viewers":    runViewers,
	"inserts":    runInserts,
	"verify":     runVerifyOnly,
	"stock-full": runStockFull,
	"node":       runNode,
}

// parts are what can be measured, in this order.
var parts = []struct {
	name string
	run  func(b *bench) error
}{
	{"ingest", (*bench).ingest},
	{"keep", (*bench).keep},
	{"replica", (*bench).replica},
	{"node", (*bench).node},
	{"nodes", (*bench).nodes},
	{"recovery", (*bench).recovery},
	{"fanout", (*bench).fanout},
	{"viewers", (*bench).viewers},
	{"own", (*bench).own},
	{"live", (*bench).live},
	{"storm", (*bench).storm},
	{"size", (*bench).size},
	{"outbox", (*bench).outbox},
	{"ask", (*bench).ask},
	{"start", (*bench).start},
}

// A bench is one run.
type bench struct {
	ctx         context.Context
	dir         string // removed at the end
	rounds      int
	duration    time.Duration
	watched     time.Duration
	asked       time.Duration
	replicaURL  string
	connections []int
	subscribers []int

	stock, ours, self string // binaries

	privateData, publicData string   // see makeData
	tokens                  []string // of the users in privateData

	tables  []*table
	targets *table
}

func main() {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		role := os.Args[1]
		if role == "stock-full" || role == "verify" || role == "node" {
			os.Args = append(os.Args[:1], os.Args[2:]...)
		}
		if err := roles[role](); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	runtime.LockOSThread() // see start
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{targets: &table{title: "Targets", head: []string{"target", "measured", "wanted", ""}}}
	options, err := b.parseFlags()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Hour)
	defer cancel()
	b.ctx = ctx
	if err := b.prepare(); err != nil {
		return errors.Join(err, os.RemoveAll(b.dir))
	}
	defer os.RemoveAll(b.dir)
	began, machine := time.Now(), readMachineTime()
	if options.compare != "" {
		err = b.compare(options.compare, options.parts)
	} else {
		err = b.runParts(options.parts)
	}
	if err != nil {
		return err
	}

	if options.markdown {
		fmt.Printf("Measured with `go run ./tests/bench %s`.\n\n", strings.Join(os.Args[1:], " "))
	}
	for _, line := range b.describeMachine() {
		fmt.Println(line)
	}
	fmt.Printf("%s%d round(s) in %s; other programs used %.0f %% of the machine meanwhile.\n", map[bool]string{true: "- "}[options.markdown], b.rounds, time.Since(began).Round(time.Second), 100*machine.others())
	for _, t := range append(b.tables, b.targets) {
		if len(t.rows) > 0 {
			t.print(os.Stdout, options.markdown)
		}
	}
	return nil
}

// options say what is run and how it is printed.
type options struct {
	parts    []string
	compare  string // a revision, or ""
	markdown bool
}

// parseFlags reads the flags, and sets those of b that say how much is measured.
func (b *bench) parseFlags() (options, error) {
	var o options
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	only := flag.String("only", strings.Join(names, ","), "the parts to run")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each measurement is made, for the median")
	flag.DurationVar(&b.duration, "duration", time.Second, "how long one measurement sends")
	flag.DurationVar(&b.watched, "watched", shortWatch, "how long live has 1,000 pages watch rows of their own")
	flag.DurationVar(&b.asked, "asked", shortAsk, "how long ask sends 200 requests a second")
	flag.StringVar(&b.replicaURL, "replica", "", "where recovery ships to, as REPLICA_URL; a folder on the same disk by default")
	connections := flag.String("connections", "1,8,32,128", "the numbers of connections of ingest")
	subscribers := flag.String("subscribers", "0,1,100,1000,5000", "the numbers of subscribers of fanout")
	flag.BoolVar(&o.markdown, "markdown", false, "print the tables for docs/benchmarks.md")
	flag.StringVar(&o.compare, "compare", "", "a revision of this repository to compare with, figure by figure")
	flag.Parse()
	if flag.NArg() > 0 || b.rounds < 1 || b.duration < 100*time.Millisecond {
		return o, errors.New("use flags only, at least 1 round and 100ms; see -help")
	}
	var err error
	if b.connections, err = parseNumbers(*connections); err != nil {
		return o, fmt.Errorf("-connections: %w", err)
	}
	if b.subscribers, err = parseNumbers(*subscribers); err != nil {
		return o, fmt.Errorf("-subscribers: %w", err)
	}
	o.parts = strings.Split(*only, ",")
	for _, name := range o.parts {
		if !slices.Contains(names, name) {
			return o, fmt.Errorf("-only %q: the parts are %s", name, strings.Join(names, ", "))
		}
	}
	return o, nil
}

func (b *bench) runParts(wanted []string) error {
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		if err := p.run(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// prepare builds the binaries and the data that servers are started with.
func (b *bench) prepare() (err error) {
	if b.dir, err = os.MkdirTemp("", "pocketriver-bench"); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	b.stock = filepath.Join(b.dir, "pocketbase")
	b.ours = filepath.Join(b.dir, "pocketriver")
	for binary, pkg := range map[string]string{
		b.stock: "github.com/pocketbase/pocketbase/examples/base",
		b.ours:  "github.com/pocketriver/pocketriver",
	} {
		progress("building %s", pkg)
		if output, err := exec.CommandContext(b.ctx, "go", "build", "-o", binary, pkg).CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, output)
		}
	}
	progress("preparing data")
	b.publicData = filepath.Join(b.dir, "public")
	if err := makeData(b.publicData, true, nil); err != nil {
		return err
	}
	b.privateData = filepath.Join(b.dir, "private")
	return makeData(b.privateData, false, func(app core.App) (err error) {
		b.tokens, err = addUsers(app, 1000)
		return err
	})
}

// target notes a measured figure beside what is wanted of it.
func (b *bench) target(what string, measured float64, sign string, wanted float64) {
	if measured == 0 {
		return
	}
	reached := "missed"
	if sign == "≥" && measured >= wanted || sign == "≤" && measured <= wanted {
		reached = "reached"
	}
	b.targets.add(what, ratio(measured), sign+" "+strconv.FormatFloat(wanted, 'g', -1, 64), reached)
}

// targetCount is target for a number of things that went wrong.
func (b *bench) targetCount(what string, measured, wanted int) {
	reached := "missed"
	if measured <= wanted {
		reached = "reached"
	}
	b.targets.add(what, strconv.Itoa(measured), "≤ "+strconv.Itoa(wanted), reached)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func parseNumbers(list string) (all []int, err error) {
	for _, item := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(item))
		if err != nil || n < 0 || n > 10000 {
			return nil, fmt.Errorf("%q is not a number up to 10000", item)
		}
		all = append(all, n)
	}
	return all, nil
}

// raiseFileLimit makes room for thousands of connections, also in the servers, which
// inherit the limit.
func raiseFileLimit() error {
	const want = 16384
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Max = max(limit.Max, want)
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w; run: ulimit -Hn %d", want, err, want)
	}
	return nil
}

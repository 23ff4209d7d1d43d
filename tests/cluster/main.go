// Command cluster runs three nodes that have one database on this machine, to try them out, as `make cluster` does. A
// balancer is before them, as one would be, and a stand-in for ModelRiver feeds them. A node that ends is started again.
// What they have is in a folder, with which the next run goes on.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	email      = "demo@example.com"
	otherPorts = "end what has it, as nodes of a run that was killed, or: make cluster CLUSTER_PORT=8190 DEMO_API=127.0.0.1:8887"

	// restartPause is how long a node stays away that has ended, and stopTimeout how long one may take to end.
	restartPause = 10 * time.Second
	stopTimeout  = 20 * time.Second
)

var names = []string{"a", "b", "c"}

// A cluster is what the flags say.
type cluster struct {
	binary, dir, api, migrations string
	port                         int
	every                        time.Duration
}

func main() {
	var c cluster
	flag.StringVar(&c.binary, "binary", "./pocketriver", "the binary")
	flag.StringVar(&c.dir, "dir", "cluster", "the folder of the nodes' data")
	flag.StringVar(&c.migrations, "migrations", "docs/demo", "what the database has beside PocketRiver's own")
	flag.IntVar(&c.port, "port", 8090, "the balancer's; the nodes have the three after it, and six from 11 after it on for each other")
	flag.StringVar(&c.api, "api", "127.0.0.1:8787", "where the stand-in for ModelRiver listens")
	flag.DurationVar(&c.every, "every", 4*time.Second, "how often that asks for content")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func (c *cluster) run(ctx context.Context) error {
	password, err := c.password()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	listener, err := net.Listen("tcp", c.address(0))
	if err != nil {
		return fmt.Errorf("%w: %s", err, otherPorts)
	}
	balancer := &http.Server{Handler: c.balance(), ReadHeaderTimeout: time.Minute}
	running.Go(func() { balancer.Serve(listener) })
	defer balancer.Close()
	fmt.Println("Three nodes start, and find each other: that takes some seconds.")
	started := make(chan struct{}, len(names))
	for i := range names {
		running.Go(func() { c.keep(ctx, cancel, i, started) })
	}
	running.Go(func() {
		for range names {
			select {
			case <-started:
			case <-ctx.Done():
				return
			}
		}
		fmt.Printf("Page:      http://%s/    before them all. Sign in to ask: asker@example.com with %s\n"+
			"Dashboard: http://%[1]s/_/  sign in as %[3]s with %[2]s\n"+
			"End a node with kill -9 PID, and see the page go on. Ctrl-C ends all; %[4]s is kept for the next time.\n", c.address(0), password, email, c.dir)
		c.simulate(ctx, cancel)
	})
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (c *cluster) address(more int) string { return fmt.Sprintf("127.0.0.1:%d", c.port+more) }

// password returns that of the two who may sign in, with whom the nodes' database begins the first time.
func (c *cluster) password() (string, error) {
	if password, err := os.ReadFile(filepath.Join(c.dir, "password")); err == nil {
		return string(password), nil
	}
	fresh, password := c.dir+".new", rand.Text()[:12]
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o700)); err != nil {
		return "", err
	}
	first := filepath.Join(fresh, names[0])
	for _, args := range [][]string{
		{"migrate", "up", "--migrationsDir", c.migrations},
		{"superuser", "upsert", email, password},
		{"cluster", "init"},
		append([]string{"cluster", "certs"}, names...),
	} {
		command := exec.Command(c.binary, append(args, "--dev=false", "--dir", first)...)
		command.Env = append(os.Environ(), "DEMO_PASSWORD="+password)
		if out, err := command.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(args[:2], " "), err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(fresh, "password"), []byte(password), 0o600); err != nil {
		return "", err
	}
	return password, os.Rename(fresh, c.dir)
}

// balance passes each request on to the first node that takes it.
func (c *cluster) balance() http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: c.address(1)})
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(io.Discard, "", 0) // of connections that end with a node
	proxy.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		for i := range names {
			if conn, err = (&net.Dialer{}).DialContext(ctx, network, c.address(i+1)); err == nil {
				break
			}
		}
		return conn, err
	}}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	return proxy
}

// keep runs a node until the end, and again whenever it has ended. If it never comes to serve, that is the end.
func (c *cluster) keep(ctx context.Context, cancel context.CancelCauseFunc, i int, started chan<- struct{}) {
	var peers []string
	for i, name := range names {
		peers = append(peers, name+"="+c.address(11+2*i))
	}
	last := ""
	for served := false; ; {
		err := c.process(ctx, names[i], func(line string, pid int) {
			last = line
			switch {
			case strings.Contains(line, "Server started at"):
				fmt.Printf("Node %s:    http://%s/    pid %d\n", names[i], c.address(i+1), pid)
				if !served {
					started <- struct{}{}
				}
				served = true
			case strings.HasSuffix(line, " leads"):
				fmt.Printf("Node %s leads.\n", names[i])
			}
		}, []string{"POCKETRIVER_NODE=" + names[i], "POCKETRIVER_PEERS=" + strings.Join(peers, ",")}, "serve", "--http", c.address(i+1))
		if ctx.Err() != nil {
			return
		}
		if !served {
			cancel(fmt.Errorf("the node %s: %w: %s\nif a port is taken: %s", names[i], err, last, otherPorts))
			return
		}
		fmt.Printf("Node %s has ended (%v), and starts again in %s.\n", names[i], err, restartPause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause):
		}
	}
}

// simulate runs the stand-in for ModelRiver until the end, which it is if that ends.
func (c *cluster) simulate(ctx context.Context, cancel context.CancelCauseFunc) {
	err := c.process(ctx, "simulator", func(string, int) {}, nil, "modelriver", "simulate",
		"--listen", c.api, "--every", c.every.String(), "--target", "http://"+c.address(0)+"/webhooks/modelriver")
	cancel(fmt.Errorf("the stand-in for ModelRiver: %w: see %s; if its port is taken: %s", err, filepath.Join(c.dir, "simulator.log"), otherPorts))
}

// process runs the binary until it or the context ends, with a data directory and a log of that name, and tells of each line of that.
func (c *cluster) process(ctx context.Context, name string, tell func(line string, pid int), env []string, args ...string) error {
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.CommandContext(ctx, c.binary, append(args, "--dev=false", "--dir", filepath.Join(c.dir, name))...)
	command.Env = append(os.Environ(), env...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = stopTimeout
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	command.Stderr = command.Stdout
	if err := command.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(io.TeeReader(out, log)); lines.Scan(); {
		tell(lines.Text(), command.Process.Pid)
	}
	return command.Wait()
}

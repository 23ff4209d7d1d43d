//go:build linux

package main

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is one that this program started, and ends by its id.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a command that dies with this program. It must be called from the main
// goroutine, which keeps its thread: the kernel watches the thread that forked.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(cleanEnvironment(), cmd.Env...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// cleanEnvironment is the environment without what would change a server.
func cleanEnvironment() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "MODELRIVER_") {
			env = append(env, entry)
		}
	}
	return env
}

// end sends the signal, and kills what has not ended five seconds later.
func (p *process) end(signal syscall.Signal) {
	p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// cpu returns the processor time that the process has used, in steps of 10 ms.
func (p *process) cpu() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // the name before it may hold spaces
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// memory returns the resident memory of the process in bytes.
func (p *process) memory() int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// mostMemory returns the resident memory that the process has had at most, in bytes.
func (p *process) mostMemory() int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), "VmHWM:")
	kilobytes, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kilobytes << 10
}

// ownCPU returns the processor time that this process has used.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// A helper is this program again, in one of its roles: it reads its configuration and
// commands from stdin and writes results to stdout.
type helper struct {
	*process
	in  io.WriteCloser
	enc *gob.Encoder
	dec *gob.Decoder
}

// startPiped starts a command that is written to and read from while it runs.
func startPiped(cmd *exec.Cmd) (p *process, in io.WriteCloser, out io.Reader, err error) {
	cmd.Stderr = os.Stderr
	if in, err = cmd.StdinPipe(); err != nil {
		return nil, nil, nil, err
	}
	read, write, err := os.Pipe() // StdoutPipe would be closed by Wait
	if err != nil {
		return nil, nil, nil, err
	}
	cmd.Stdout = write
	p, err = start(cmd)
	write.Close()
	if err != nil {
		read.Close()
		return nil, nil, nil, err
	}
	go func() {
		<-p.done
		time.Sleep(time.Second) // for what is left in the pipe
		read.Close()
	}()
	return p, in, read, nil
}

func startHelper(role string, config any) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, in, out, err := startPiped(exec.Command(self, role))
	if err != nil {
		return nil, err
	}
	h := &helper{process: p, in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
	if config != nil {
		if err := h.enc.Encode(config); err != nil {
			h.close()
			return nil, fmt.Errorf("%s: %w", role, err)
		}
	}
	return h, nil
}

// startReady starts a helper that says when it is ready, and waits for that.
func startReady(role string, config any) (*helper, error) {
	h, err := startHelper(role, config)
	if err != nil {
		return nil, err
	}
	var ready bool
	if err := h.read(&ready); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// ask sends a command and reads its result.
func (h *helper) ask(command, result any) error {
	if err := h.enc.Encode(command); err != nil {
		return err
	}
	return h.read(result)
}

func (h *helper) read(result any) error {
	err := h.dec.Decode(result)
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
		return errors.New("a helper process ended early; see its message above")
	}
	return err
}

func (h *helper) close() {
	h.in.Close()
	h.end(syscall.SIGKILL)
}

// A server is a process that serves a data directory of its own.
type server struct {
	*process
	addr string
	dir  string // with pb_data and pb_hooks; empty if it has none

	also   []string  // where the others take requests, if those go to each
	root   string    // of nodes that keep one database: where all are
	others []*server // of them
	kind   serverKind
}

// A serverKind is one of the programs that are compared.
type serverKind struct {
	binary  string
	args    []string // before "serve"
	env     []string
	script  bool   // with webhook.pb.js in pb_hooks
	fresh   bool   // on an empty data directory
	nodes   string // which of three requests come to; empty for a server alone
	request string
}

// serve starts a server on a copy of a data directory and waits until it is healthy.
// It returns how long that took from the process's start.
func (b *bench) serve(kind serverKind, data string) (s *server, took time.Duration, err error) {
	dir, err := os.MkdirTemp(b.dir, "server")
	if err != nil {
		return nil, 0, err
	}
	if !kind.fresh {
		if err := copyData(data, filepath.Join(dir, "pb_data")); err != nil {
			return nil, 0, err
		}
	}
	s, took, err = b.serveIn(kind, dir)
	if err != nil {
		os.RemoveAll(dir)
	}
	return s, took, err
}

// serveIn is serve in a directory that is there, and is kept.
func (b *bench) serveIn(kind serverKind, dir string) (s *server, took time.Duration, err error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, 0, err
	}
	return b.serveAt(kind, dir, addr)
}

func (b *bench) serveAt(kind serverKind, dir, addr string) (s *server, took time.Duration, err error) {
	if kind.nodes != "" {
		return b.serveNodes(kind, dir)
	}
	began := time.Now()
	if s, err = b.startAt(kind, dir, addr); err == nil {
		if err = s.waitHealthy(); err != nil {
			s.end(syscall.SIGKILL)
		}
	}
	text, _ := os.ReadFile(filepath.Join(dir, outputName))
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w\n%s", filepath.Base(kind.binary), err, text)
	}
	took = time.Since(began)
	if bytes.Contains(text, []byte("SELECT ")) {
		s.end(syscall.SIGKILL)
		return nil, 0, errors.New("the server runs in development mode: it logs its SQL")
	}
	return s, took, nil
}

const outputName = "output.txt"

// startAt starts a server in a directory.
func (b *bench) startAt(kind serverKind, dir, addr string) (*server, error) {
	if kind.script {
		hooksDir := filepath.Join(dir, "pb_hooks")
		if err := os.MkdirAll(hooksDir, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(hooksDir, "webhook.pb.js"), webhookScript, 0o600); err != nil {
			return nil, err
		}
	}
	output, err := os.Create(filepath.Join(dir, outputName))
	if err != nil {
		return nil, err
	}
	defer output.Close()

	args := append([]string{}, kind.args...)
	args = append(args, "serve", "--http="+addr, "--dir="+filepath.Join(dir, "pb_data"))
	cmd := exec.Command(kind.binary, args...)
	cmd.Args[0] = filepath.Base(kind.binary) // a path below TMPDIR would look like "go run", and PocketBase log all SQL
	cmd.Dir = dir
	cmd.Env = kind.env
	cmd.Stdout, cmd.Stderr = output, output
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	return &server{process: p, addr: addr, dir: dir}, nil
}

// stop kills the server and removes its directory.
func (s *server) stop() {
	s.end(syscall.SIGKILL)
	for _, other := range s.others {
		other.end(syscall.SIGKILL)
	}
	os.RemoveAll(cmp.Or(s.root, s.dir))
}

func (s *server) waitHealthy() error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case <-s.done:
			return errors.New("the server ended at once")
		default:
		}
		response, err := client.Get("http://" + s.addr + "/api/health")
		if err == nil {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	return errors.New("the server is not healthy after a minute")
}

func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

package replica

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// dialTimeout is how long a node waits for another one to take a connection: they are near.
	dialTimeout = time.Second

	// peerTimeout is how long a request of another node may take, as PocketBase's server has it for those of clients.
	peerTimeout = 5 * time.Minute
)

// A peer is what one of several nodes is for the others, on the port after that of the log's server: it
// takes the requests that only the node that leads can, and has snapshots. Others connect with certificates of the nodes.
type peer struct {
	config  Config
	process string // this one, of a node: a command is none
	server  *http.Server
	client  *http.Transport
	handler atomic.Pointer[http.Handler] // of the app, once that serves
	ended   chan struct{}

	mu       sync.Mutex
	closing  bool
	sessions sync.WaitGroup // of commands
}

// newPeer returns one that only asks other nodes.
func newPeer(config Config) (*peer, error) {
	certs, err := loadCerts(config.Certs)
	if err != nil {
		return nil, err
	}
	return &peer{config: config, client: &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig: certs, TLSHandshakeTimeout: dialTimeout, MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second,
		DisableCompression: true,
	}}, nil
}

// serve listens for the other nodes, and answers them.
func (p *peer) serve(handler http.HandlerFunc, logger func() *slog.Logger) error {
	address, err := peerAddress(p.config.Listen)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for other nodes: %w", err)
	}
	p.ended = make(chan struct{})
	p.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute, ReadTimeout: peerTimeout, WriteTimeout: peerTimeout,
		ErrorLog: log.New(errorLog(logger), "", 0),
	}
	go func() {
		defer close(p.ended)
		if err := p.server.Serve(tls.NewListener(listener, p.client.TLSClientConfig)); !errors.Is(err, http.ErrServerClosed) {
			logger().Error("Other nodes can't connect any more: restart the server", "error", err)
		}
	}()
	return nil
}

// An errorLog puts what the server for other nodes says into the app's logs.
type errorLog func() *slog.Logger

func (l errorLog) Write(line []byte) (int, error) {
	l().Debug("The server for other nodes says", "notice", strings.TrimSpace(string(line)))
	return len(line), nil
}

// peerAddress returns where a node is reached for what isn't the log: at the port after that.
func peerAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || number == 65535 {
		return "", fmt.Errorf("%q is no port of two in a row", port)
	}
	return net.JoinHostPort(host, strconv.FormatUint(number+1, 10)), nil
}

// enter reports whether a command's session may begin, which close waits for.
func (p *peer) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.sessions.Add(1)
	}
	return !p.closing
}

// close waits for requests that are answered, and for commands' sessions, which end once the node leads no more, but for
// neither for long: SQLite may have a session wait for what holds the write lock.
func (p *peer) close() {
	defer p.client.CloseIdleConnections()
	if p.server == nil { // it only asks
		return
	}
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p.server.Shutdown(ctx) != nil {
		_ = p.server.Close() // what is still answered ends
	}
	<-p.ended
	ended := make(chan struct{})
	go func() {
		p.sessions.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// A peerState is what a node tells another one that asks.
type peerState struct {
	Begun     bool     `json:"begun"`     // the log has
	Leads     bool     `json:"leads"`     // this node does
	Starting  bool     `json:"starting"`  // the app doesn't serve yet
	Behind    []string `json:"behind"`    // if so: nodes that don't have all of the log on disk, as far as it knows
	Snapshots []string `json:"snapshots"` // their files, the newest first
}

// answerPeer tells another node what it asks, about the node whose database is at path.
func (n *Node) answerPeer(path string, w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, "/snapshots/"); ok {
		if !slices.ContainsFunc(snapshots(snapshotDir(path)), func(s snapshot) bool { return filepath.Base(s.path) == name }) {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, filepath.Join(snapshotDir(path), name))
		return
	}
	if id, ok := strings.CutPrefix(r.URL.Path, streamsPath); ok {
		if !n.serving.Load() || !n.hasStream(id) {
			http.NotFound(w, r)
		}
		return
	}
	if r.URL.Path == sqlPath {
		n.serveSQL(path, w, r)
		return
	}
	if r.URL.Path == reportPath {
		n.answerReport(w, r)
		return
	}
	if r.URL.Path == processPath {
		_, _ = io.WriteString(w, n.log.process) // or whoever has asked asks again
		return
	}
	if r.URL.Path != "/state" || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	state := peerState{Begun: hasBegun(path + logSuffix), Leads: n.Leads(), Starting: !n.serving.Load()}
	for _, s := range snapshots(snapshotDir(path)) {
		state.Snapshots = append(state.Snapshots, filepath.Base(s.path))
	}
	if state.Leads {
		info, err := n.log.info()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		state.Behind = n.log.config.behind(info.Cluster.Replicas)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(state) // whoever has asked asks again
}

// behind returns the nodes but this one that aren't among those that have all of the log. Servers that started while a node was
// away don't know its name.
func (c Config) behind(replicas []*jetstream.PeerInfo) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		if name != c.Node && !slices.ContainsFunc(replicas, func(r *jetstream.PeerInfo) bool {
			return r.Name == name && r.Current && !r.Offline && r.Active <= quorumTimeout
		}) {
			names = append(names, name)
		}
	}
	return names
}

// ask asks another node for its state, for one of its snapshots, or for a connection of its database.
func (p *peer) ask(ctx context.Context, name, path string, header http.Header) (*http.Response, error) {
	address, err := peerAddress(p.config.Peers[name])
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, header)
	response, err := p.client.RoundTrip(request)
	if err == nil && response.StatusCode >= 300 {
		response.Body.Close()
		err = fmt.Errorf("the node %s answers %s", name, response.Status)
	}
	return response, err
}

// first asks nodes, all at once, and returns the first of which the answer is no error.
func (p *peer) first(names []string, ask func(name string) error) (string, error) {
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer, len(names))
	for _, name := range names {
		go func() { answers <- answer{name, ask(name)} }()
	}
	var errs []error
	for range names {
		a := <-answers
		if a.err == nil {
			return a.name, nil
		}
		errs = append(errs, fmt.Errorf("the node %s: %w", a.name, a.err))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return "", errors.Join(errs...)
}

func (p *peer) state(name string) (s peerState, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	response, err := p.ask(ctx, name, "/state", nil)
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	return s, json.NewDecoder(response.Body).Decode(&s)
}

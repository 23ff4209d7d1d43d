package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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

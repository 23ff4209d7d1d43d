package replica

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "log"
	subject    = "log"

	// appended is where a node tells the others that the log has grown, and kept where each tells how much of it
	// may be cut off.
	appendedSubject = "appended"
	keptSubject     = "kept"

	// maxLog bounds the log. It is full only if no snapshot could be made for long.
	maxLog = 2 << 30
)

// A streamLog is a log in a stream of NATS JetStream, whose server runs in this process. What
// it has taken is on disk, on most of the nodes if there are several.
type streamLog struct {
	config Config
	logger func() *slog.Logger
	max    int64 // bytes

	process string // this one: no other has it, nor this node when it runs again
	admits  admission

	mu     sync.Mutex
	dir    string
	lock   *flock.Flock
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	id     string // of the stream, which no other has

	fatal atomic.Bool // the server can't work, and stands there all the same

	told chan *nats.Msg // what other nodes tell, of several
}

func newStreamLog(config Config, logger func() *slog.Logger) *streamLog {
	return &streamLog{config: config, logger: logger, max: maxLog, process: rand.Text(), told: make(chan *nats.Msg, 256)}
}

var (
	errClosed   = errors.New("the log is closed")
	errNoStream = errors.New("there is no log yet")
)

// hold makes a folder, of a database that stands there, this process's alone, until it's closed.
func (l *streamLog) hold(dir string, at standing) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dir = dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && at.log != "" && !at.seeded() && !l.config.several() {
		return fmt.Errorf("the database has the first %d of a log, and the folder %s, where that was, is gone: put it back, or, if it is lost, %w", at.position, dir, errNewLog)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l.lock = flock.New(filepath.Join(dir, "lock"))
	if locked, err := l.lock.TryLock(); err != nil || !locked {
		return errors.Join(fmt.Errorf("another process has the log in %s: stop it first", dir), err)
	}
	return nil
}

// open starts the log's server in the folder that it holds, for a database that follows the log of that id.
func (l *streamLog) open(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id = id
	err := l.start()
	if err != nil {
		l.stop()
	}
	return err
}

// checkNodes refuses a log of one node for several, which would delete it, and the other way round.
func (c Config) checkNodes(dir string) error {
	switch {
	case isOfSeveral(dir) && !c.several():
		return fmt.Errorf("the log in %s is one of several nodes: say which, as before", dir)
	case !isOfSeveral(dir) && c.several() && hasBegun(dir):
		return fmt.Errorf("the log in %s is one of one node: for several, %w", dir, errNewLog)
	}
	return nil
}

// isOfSeveral reports whether a server of several nodes has been in the folder.
func isOfSeveral(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, server.JetStreamStoreDir, server.DEFAULT_SYSTEM_ACCOUNT))
	return err == nil
}

// start starts the server. A stream that is there is opened, unless there are several nodes, which agree
// on it later.
func (l *streamLog) start() (err error) {
	token := rand.Text()
	options := &server.Options{
		// Nobody connects to this address: without any, servers never connect to each other.
		Host: "127.0.0.1", Port: server.RANDOM_PORT, Authorization: token,
		JetStream: true, StoreDir: l.dir, SyncAlways: true,
		JetStreamMaxStore: 2 * l.max, // the stream's bound, and what a large entry is collected in: 0 would be three quarters of what is free now
		NoSigs:            true, DisableJetStreamBanner: true,
		ReconnectErrorReports: 600, // about one in ten minutes that another node is away, which sayAway tells
	}
	if l.config.several() {
		if err := l.join(options); err != nil {
			return err
		}
	} else if err := l.removeUnfinished(); err != nil {
		return err
	}
	l.fatal.Store(false)
	l.server, err = server.NewServer(options)
	if err != nil {
		return err
	}
	l.server.SetLoggerV2(natsLogger{l}, false, false, false)
	l.server.Start()
	if !l.server.JetStreamEnabled() || l.fatal.Load() {
		return fmt.Errorf("the log in %s can't be opened: the app's own logs say why", l.dir)
	}
	// It isn't connected again: see restart.
	l.conn, err = nats.Connect("", nats.InProcessServer(l.server), nats.Token(token), nats.NoReconnect(), nats.NoEcho(), nats.FlusherTimeout(logTimeout),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.logger().Info("What other nodes tell was too much to keep: what was lost is read from the log", "error", err)
		}))
	if err != nil {
		return err
	}
	if l.js, err = jetstream.New(l.conn); err != nil {
		return err
	}
	if l.config.several() {
		for _, subject := range []string{appendedSubject, keptSubject} {
			if _, err := l.conn.ChanSubscribe(subject, l.told); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.find(); err != nil && !errors.Is(err, errNoStream) {
		return err
	}
	return nil
}

// join has the server find those of the other nodes. They know each other by certificates, and one whose
// database follows another log by the name of that. It tells nobody of addresses but those that are
// configured.
func (l *streamLog) join(options *server.Options) error {
	c := l.config
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("the address %q to listen at: %w", c.Listen, err)
	}
	options.ServerName = c.Node
	options.CustomRouterAuthentication = l.admits
	options.Cluster = server.ClusterOpts{
		Name: l.id, Username: l.process, Host: host, PoolSize: -1, TLSTimeout: 5,
		// Servers tell each other of those they know, also if NoAdvertise, which is of clients: of where one listens, unless told of this.
		Advertise: c.Peers[c.Node], NoAdvertise: true,
	}
	if options.Cluster.Port, err = strconv.Atoi(port); err != nil {
		return fmt.Errorf("the address %q to listen at: %w", c.Listen, err)
	}
	if options.Cluster.TLSConfig, err = loadCerts(c.Certs); err != nil {
		return err
	}
	for _, address := range c.Peers { // of which one is this node itself: so the server knows how many there are
		options.Routes = append(options.Routes, &url.URL{Scheme: "nats", User: url.User(l.process), Host: address})
	}
	return nil
}

func (l *streamLog) stop() {
	if l.conn != nil {
		l.conn.Close()
	}
	if l.server != nil {
		l.server.Shutdown()
		l.server.WaitForShutdown()
	}
	l.conn, l.server, l.js, l.stream = nil, nil, nil, nil
}

// restart ends what is under way, so that nothing is appended any more that nobody waits for,
// and has a server again that may have switched its storage off, as it does on a full disk.
func (l *streamLog) restart() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	err := l.start()
	if err == nil && !l.config.several() && l.stream == nil {
		err = errNoStream
	}
	return err
}

// revive restarts the server if it doesn't work: a full disk switches its storage off.
func (l *streamLog) revive() error {
	if l.works() {
		return nil
	}
	return l.restart()
}

// works reports whether the server is up, with its storage and its connections.
func (l *streamLog) works() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.server != nil && l.server.JetStreamEnabled() && !l.fatal.Load() && l.conn != nil && !l.conn.IsClosed()
}

// leads reports whether this node's server leads the stream.
func (l *streamLog) leads() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.server != nil && l.server.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, streamName)
}

// stepDown has another node's server lead the stream.
func (l *streamLog) stepDown() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == nil {
		return errClosed
	}
	return l.server.JetStreamStepdownStream(server.DEFAULT_GLOBAL_ACCOUNT, streamName)
}

// tell tells the other nodes something that may be lost.
func (l *streamLog) tell(subject string, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return errClosed
	}
	return l.conn.Publish(subject, data)
}

// halt ends this node's part in the log.
func (l *streamLog) halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
}

func (l *streamLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	if l.lock == nil { // it never held a folder
		return nil
	}
	return l.lock.Close()
}

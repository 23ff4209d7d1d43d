package replica

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "log"
	subject    = "log"

	// maxMessage is how much of an entry one message has: a large entry is several, of which
	// the stream takes all or none.
	maxMessage = 512 << 10

	// logTimeout is how long an answer of the log is waited for, and messageTimeout how much
	// longer for each message of a batch, which a slow disk takes time for. An append holds
	// SQLite's write lock meanwhile, which others wait 10 s for.
	logTimeout     = 2 * time.Second
	messageTimeout = 50 * time.Millisecond

	// maxLog bounds the log. It is full only if no snapshot could be made for long.
	maxLog = 2 << 30
)

// messages returns how many messages an entry is, and so how far it moves the position: that is
// the sequence of its last message in the stream.
func messages(entry []byte) uint64 { return max(1, uint64(len(entry)+maxMessage-1)/maxMessage) }

// A streamLog is a log in a stream of NATS JetStream, whose server runs in this process. What
// it has taken is on disk.
type streamLog struct {
	logger func() *slog.Logger
	max    int64 // bytes

	mu     sync.Mutex
	dir    string
	lock   *flock.Flock
	server *server.Server
	conn   *nats.Conn
	stream jetstream.Stream
	id     string // of the stream, which no other has
}

func newStreamLog(logger func() *slog.Logger) *streamLog {
	return &streamLog{logger: logger, max: maxLog}
}

var (
	errClosed  = errors.New("the log is closed")
	errFull    = errors.New("the log is full")
	errTrimmed = errors.New("the log has been cut off behind it")
	errHole    = errors.New("the log is damaged there")
)

// open opens the log in a folder for a database at the position.
func (l *streamLog) open(dir string, position uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dir = dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && position > 0 {
		return fmt.Errorf("the database has the first %d of a log, and the folder %s, where that was, is gone: put it back, or, if it is lost, drop the table %s and begin a new log with replica.Seed", position, dir, positionTable)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l.lock = flock.New(filepath.Join(dir, "lock"))
	if locked, err := l.lock.TryLock(); err != nil || !locked {
		return errors.Join(fmt.Errorf("another process has the log in %s: stop it first", dir), err)
	}
	err := l.start()
	if err != nil {
		l.stop()
		err = errors.Join(err, l.lock.Close())
	}
	return err
}

// start starts the server and opens the stream.
func (l *streamLog) start() (err error) {
	token := rand.Text()
	l.server, err = server.NewServer(&server.Options{
		// Nobody connects to this address: without any, servers never connect to each other.
		Host: "127.0.0.1", Port: server.RANDOM_PORT, Authorization: token,
		JetStream: true, StoreDir: l.dir, SyncAlways: true,
		JetStreamMaxStore: 2 * l.max, // the stream's bound, and what a large entry is collected in: 0 would be three quarters of what is free now
		NoSigs:            true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return err
	}
	l.server.SetLoggerV2(natsLogger{l.logger}, false, false, false)
	l.server.Start()
	if !l.server.JetStreamEnabled() {
		return fmt.Errorf("the log in %s can't be opened: the app's own logs say why", l.dir)
	}
	// It isn't connected again: see restart.
	l.conn, err = nats.Connect("", nats.InProcessServer(l.server), nats.Token(token), nats.NoReconnect(), nats.FlusherTimeout(logTimeout))
	if err != nil {
		return err
	}
	js, err := jetstream.New(l.conn)
	if err != nil {
		return err
	}
	if err := l.openStream(js); err != nil {
		return err
	}
	l.id = l.stream.CachedInfo().Config.Metadata["id"]
	return nil
}

// openStream opens the stream, or creates it.
func (l *streamLog) openStream(js jetstream.JetStream) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	l.stream, err = js.Stream(ctx, streamName)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	if l.hasMessages() {
		return fmt.Errorf("the log in %s is damaged: put a copy of it back (the app's own logs say what is wrong)", l.dir)
	}
	l.stream, err = js.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: 1,
		AllowAtomicPublish: true, AllowDirect: true, DenyDelete: true, Discard: jetstream.DiscardNew, MaxBytes: l.max,
		Metadata: map[string]string{"id": rand.Text()},
	})
	return err
}

// hasMessages reports whether a stream was written to, which the server didn't find all the same.
func (l *streamLog) hasMessages() bool {
	files, _ := os.ReadDir(filepath.Join(l.dir, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", streamName, "msgs"))
	return slices.ContainsFunc(files, func(file fs.DirEntry) bool {
		info, err := file.Info()
		return err == nil && info.Size() > 0 && filepath.Ext(file.Name()) == ".blk"
	})
}

func (l *streamLog) stop() {
	if l.conn != nil {
		l.conn.Close()
	}
	if l.server != nil {
		l.server.Shutdown()
		l.server.WaitForShutdown()
	}
	l.conn, l.server, l.stream = nil, nil, nil
}

// restart ends what is under way, so that nothing is appended any more that nobody waits for,
// and has a server again that may have switched its storage off, as it does on a full disk.
func (l *streamLog) restart() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	return l.start()
}

func (l *streamLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	return l.lock.Close()
}

// append puts an entry into the log, after the position that it ends at.
func (l *streamLog) append(after uint64, entry []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return errClosed
	}
	n, batch := messages(entry), rand.Text()
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout+time.Duration(n-1)*messageTimeout)
	defer cancel()
	for i := uint64(1); i <= n; i++ {
		m := nats.NewMsg(subject)
		m.Data = entry[(i-1)*maxMessage : min(i*maxMessage, uint64(len(entry)))]
		if i == 1 {
			m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(after, 10))
		}
		if n > 1 {
			m.Header.Set(batchHeader, batch)
			m.Header.Set(batchSequenceHeader, strconv.FormatUint(i, 10))
		}
		if n > 1 && i == n {
			m.Header.Set(batchCommitHeader, "1")
		}
		if 1 < i && i < n {
			if err := l.conn.PublishMsg(m); err != nil {
				return err
			}
			continue
		}
		answer, err := l.conn.RequestMsgWithContext(ctx, m)
		if err != nil {
			return err
		}
		if err := checkAnswer(answer.Data, i == n, after+n); err != nil {
			return err
		}
	}
	return nil
}

// Headers of a batch, by which an entry is also read: it begins with a message that has no
// sequence in a batch or the first, and ends with one that has none or commits.
const (
	batchHeader         = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

// checkAnswer returns an error unless the stream has taken a message: the last of an entry, at
// the position, or one of a batch, to which it answers nothing.
func checkAnswer(answer []byte, last bool, position uint64) error {
	if len(answer) == 0 && !last {
		return nil
	}
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return fmt.Errorf("the log answers %q: %w", answer, err)
	}
	if ack.Error != nil && ack.Error.Description == "maximum bytes exceeded" { // whose code is also that of others
		return errFull
	}
	if ack.Error != nil {
		return ack.Error
	}
	if ack.Seq != position {
		return fmt.Errorf("the log has the entry at %d instead of %d", ack.Seq, position)
	}
	return nil
}

// opened returns the stream, for what may be done beside an append.
func (l *streamLog) opened() (jetstream.Stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil {
		return nil, errClosed
	}
	return l.stream, nil
}

// state returns what the log has.
func (l *streamLog) state() (jetstream.StreamState, error) {
	stream, err := l.opened()
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return stateOf(stream)
}

func stateOf(stream jetstream.Stream) (jetstream.StreamState, error) {
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	info, err := stream.Info(ctx)
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return info.State, nil
}

// read calls apply with each entry after the position, and where it ends, to the end of the log.
// Nothing is appended meanwhile.
func (l *streamLog) read(after uint64, apply func(position uint64, entry []byte) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil {
		return errClosed
	}
	return l.entries(l.stream, after, apply)
}

// readBeside is read while the log is appended to: what it calls the last entry may be a part of one.
func (l *streamLog) readBeside(after uint64, apply func(position uint64, entry []byte) error) error {
	stream, err := l.opened()
	if err != nil {
		return err
	}
	return l.entries(stream, after, apply)
}

func (l *streamLog) entries(stream jetstream.Stream, after uint64, apply func(position uint64, entry []byte) error) error {
	state, err := stateOf(stream)
	if err != nil {
		return err
	}
	first, last := state.FirstSeq, state.LastSeq
	if after > last {
		return fmt.Errorf("the database has the first %d of a log, and that in %s ends at %d: it lacks what was last in it: put the right one back", after, l.dir, last)
	}
	if after+1 < first {
		return fmt.Errorf("the database has the first %d of a log, and that in %s begins with %d: %w", after, l.dir, first, errTrimmed)
	}
	var entry []byte
	// What is left of an entry that a power failure has cut off is one that changes nothing: a database that
	// was brought to the end of the log then has its position there.
	cutOff := func(position uint64) error {
		entry = nil
		return apply(position, []byte{entryVersion})
	}
	for at := after + 1; at <= last; at++ {
		m, err := message(stream, at)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			err = errHole
		}
		if err != nil {
			return fmt.Errorf("read %d of the log: %w", at, err)
		}
		sequence := m.Header.Get(batchSequenceHeader)
		if len(entry) > 0 && (sequence == "" || sequence == "1") {
			if err := cutOff(at - 1); err != nil {
				return err
			}
		}
		entry = append(entry, m.Data...)
		if sequence == "" || m.Header.Get(batchCommitHeader) != "" {
			if err := apply(at, entry); err != nil {
				return err
			}
			entry = nil
		} else if at == last {
			return cutOff(at)
		}
	}
	return nil
}

func message(stream jetstream.Stream, at uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	return stream.GetMsg(ctx, at)
}

// trim forgets what is before a position. That itself stays: a log that has had entries has one.
func (l *streamLog) trim(position uint64) error {
	stream, err := l.opened()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	return stream.Purge(ctx, jetstream.WithPurgeSequence(position))
}

// A natsLogger puts what the server says into the app's logs.
type natsLogger struct{ logger func() *slog.Logger }

func (l natsLogger) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

func (l natsLogger) Errorf(format string, v ...any) {
	l.logger().Error("The log's server has failed", "error", fmt.Sprintf(format, v...))
}

func (l natsLogger) Warnf(format string, v ...any) {
	l.logger().Warn("The log's server warns", "warning", fmt.Sprintf(format, v...))
}

func (l natsLogger) Noticef(format string, v ...any) {
	l.logger().Debug("The log's server says", "notice", fmt.Sprintf(format, v...))
}

func (l natsLogger) Debugf(string, ...any) {}

func (l natsLogger) Tracef(string, ...any) {}

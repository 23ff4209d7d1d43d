package replica

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What an entry is cut into, and how long an answer is waited for.
const (
	// maxMessage is how much of an entry one message has: a large entry is several, of which
	// the stream takes all or none.
	maxMessage = 512 << 10

	// logTimeout is how long an answer of the log is waited for, and messageTimeout how much
	// longer for each message of a batch, which a slow disk takes time for. An append holds
	// SQLite's write lock meanwhile, which others wait 10 s for.
	logTimeout     = 2 * time.Second
	messageTimeout = 50 * time.Millisecond

	// maxNotice is how large an entry may be that nodes are told: as many as wait to be heard are in memory.
	maxNotice = 64 << 10

	// requestTimeout is how long one of several nodes waits before it asks again: what is asked while they
	// elect who leads, nobody answers.
	requestTimeout = 500 * time.Millisecond

	// lagPause is how long a node waits for what the log has, and its own server doesn't have yet.
	lagPause = time.Millisecond
)

// messages returns how many messages an entry is, and so how far it moves the position: that is
// the sequence of its last message in the stream.
func messages(entry []byte) uint64 { return max(1, uint64(len(entry)+maxMessage-1)/maxMessage) }

var (
	errFull    = errors.New("the log is full")
	errTrimmed = errors.New("the log has been cut off behind it")
	errHole    = errors.New("the log is damaged there")
	errBehind  = errors.New("the log has more than the database")
)

// request returns how long an answer is waited for, but for an append.
func (l *streamLog) request() (context.Context, context.CancelFunc) {
	if l.config.several() {
		return context.WithTimeout(context.Background(), requestTimeout)
	}
	return context.WithTimeout(context.Background(), logTimeout)
}

// append puts an entry into the log, after the position that it ends at. It fails with errBehind if
// that isn't the end of the log.
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
	if l.config.several() {
		_ = l.conn.Publish(appendedSubject, notice{after, after + n, entry}.encode()) // who isn't told reads the log
	}
	return nil
}

// A notice is what the node that leads tells the others of an entry that the log has taken: they needn't read it from there.
type notice struct {
	after, end uint64
	entry      []byte // none of a large one
}

func (t notice) encode() []byte {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, t.after), t.end)
	if len(t.entry) <= maxNotice {
		b = append(b, t.entry...)
	}
	return b
}

func decodeNotice(b []byte) (t notice) {
	if len(b) >= 16 {
		t = notice{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), b[16:]}
	}
	return t
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
	if ack.Error != nil && ack.Error.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return fmt.Errorf("%w: %w", errBehind, ack.Error)
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
	if l.server == nil {
		return nil, errClosed
	}
	if l.stream == nil {
		return nil, errNoStream
	}
	return l.stream, nil
}

// info returns what the log has, and of several nodes which one's server leads it.
func (l *streamLog) info() (*jetstream.StreamInfo, error) {
	stream, err := l.opened()
	if err != nil {
		return nil, err
	}
	ctx, cancel := l.request()
	defer cancel()
	info, err := stream.Info(ctx)
	if err == nil && l.config.several() && info.Cluster == nil {
		err = errors.New("the log isn't one of several nodes")
	}
	return info, err
}

// state returns what the log has.
func (l *streamLog) state() (jetstream.StreamState, error) {
	stream, err := l.opened()
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return l.stateOf(stream)
}

func (l *streamLog) stateOf(stream jetstream.Stream) (jetstream.StreamState, error) {
	ctx, cancel := l.request()
	defer cancel()
	info, err := stream.Info(ctx)
	if err != nil {
		return jetstream.StreamState{}, err
	}
	return info.State, nil
}

// read calls apply with each entry after the position, and where it ends, to the end of the log.
// This node appends nothing meanwhile.
func (l *streamLog) read(after uint64, apply func(position uint64, entry []byte) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil {
		return errClosed
	}
	return l.entries(l.stream, after, endOfLog, apply)
}

// readBeside is read while the log is appended to, up to an entry that ends at a position at least.
func (l *streamLog) readBeside(after, to uint64, apply func(position uint64, entry []byte) error) error {
	stream, err := l.opened()
	if err != nil {
		return err
	}
	return l.entries(stream, after, to, apply)
}

func (l *streamLog) entries(stream jetstream.Stream, after, to uint64, apply func(position uint64, entry []byte) error) error {
	last := to
	if !l.config.several() || to == endOfLog {
		state, err := l.stateOf(stream)
		if err != nil {
			return err
		}
		if err := l.check(after, state); err != nil {
			return err
		}
		last = state.LastSeq
	}
	var entry []byte
	// What is left of an entry that a power failure has cut off is one that changes nothing: a database that
	// was brought to the end of the log then has its position there.
	cutOff := func(position uint64) error {
		entry = nil
		return apply(position, []byte{entryVersion})
	}
	for at := after + 1; at <= last; at++ {
		m, err := l.message(stream, at)
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
			if l.config.several() { // most of the nodes have all of it
				last++
				continue
			}
			return cutOff(at)
		}
	}
	return nil
}

// check fails unless the log has what follows a position.
func (l *streamLog) check(after uint64, state jetstream.StreamState) error {
	if after > state.LastSeq {
		return fmt.Errorf("the database has the first %d of a log, and that in %s ends at %d: it lacks what was last in it: put the right one back", after, l.dir, state.LastSeq)
	}
	if after+1 < state.FirstSeq {
		return fmt.Errorf("the database has the first %d of a log, and that in %s begins with %d: %w", after, l.dir, state.FirstSeq, errTrimmed)
	}
	return nil
}

// message returns one that the log has. This node's server may get it only now.
func (l *streamLog) message(stream jetstream.Stream, at uint64) (*jetstream.RawStreamMsg, error) {
	for since := time.Now(); ; time.Sleep(lagPause) {
		ctx, cancel := l.request()
		m, err := stream.GetMsg(ctx, at)
		cancel()
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return m, err
		}
		if !l.config.several() {
			return nil, errHole
		}
		if time.Since(since) < requestTimeout {
			continue
		}
		state, stateErr := l.stateOf(stream)
		if stateErr != nil {
			return nil, stateErr
		}
		return nil, errors.Join(err, l.check(at-1, state))
	}
}

// trim forgets what is before a position. That itself stays: a log that has had entries has one.
func (l *streamLog) trim(position uint64) error {
	stream, err := l.opened()
	if err != nil {
		return err
	}
	ctx, cancel := l.request()
	defer cancel()
	return stream.Purge(ctx, jetstream.WithPurgeSequence(position))
}

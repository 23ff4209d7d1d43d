package replica

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// fetchTries is how often a node goes on with a snapshot of another one that was cut off.
const fetchTries = 10

// states asks all other nodes.
func (p *peer) states() (map[string]peerState, error) {
	all := map[string]peerState{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.config.Peers)) { // so that what is wrong is said in the same words again
		if name == p.config.Node {
			continue
		}
		state, err := p.state(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("the node %s: %w", name, err))
			continue
		}
		all[name] = state
	}
	return all, errors.Join(errs...)
}

// join waits until a node that has no part of the log on its disk may have one. It has confirmed what it doesn't have any more, so
// if another node hadn't that either, it could help that to lead, and what was acknowledged would be lost. So all the others
// must be there, and have all of the log, or have none: from then on, nothing is acknowledged that two of them don't have.
// A node that doesn't know which log there is has a snapshot then, which says so.
func (n *Node) join(path string, at *standing) {
	for waits := n.newWait(); ; time.Sleep(healPause) {
		n.asking.Add(1)
		err := n.mayJoin(path, at)
		if err == nil {
			return
		}
		waits.say(err)
	}
}

// quietWait is how long a node waits before it says so: others start at the same time, and agree on who leads.
const quietWait = 15 * time.Second

// A wait is a node's for the others, or for its log.
type wait struct {
	node  *Node
	began time.Time
	said  saying
}

func (n *Node) newWait() *wait { return &wait{node: n, began: time.Now()} }

// say says why the node waits, once it has for long, and when that changes.
func (w *wait) say(why error) {
	if time.Since(w.began) < quietWait {
		return
	}
	var refused *jetstream.APIError
	if errors.Is(why, context.DeadlineExceeded) || errors.As(why, &refused) && refused.Code == http.StatusServiceUnavailable {
		why = w.node.whyNoAnswer()
	}
	if w.said.isNew(why.Error()) {
		w.node.logger().Warn("This node waits for the others", "because", why)
	}
}

// whyNoAnswer returns why the log doesn't answer: that doesn't say who is away.
func (n *Node) whyNoAnswer() error {
	states, err := n.peer.states()
	for _, name := range slices.Sorted(maps.Keys(states)) {
		for _, file := range states[name].Snapshots {
			if s, ok := parseSnapshot(file); ok && n.log.id != "" && s.log != n.log.id {
				return fmt.Errorf("the database of the node %s follows another log, as after \"cluster init\" on two of them: have all begin with one, the others with an empty data directory", name)
			}
		}
	}
	if err != nil {
		return err
	}
	return errors.New("all others run, and the log doesn't answer: see that each node reaches each other one at both ports, that of its address and the next one")
}

var (
	errNoBeginning = errors.New("no node has a database: make one ready on one of them, by \"cluster init\"")
	errNoLog       = fmt.Errorf("no node has the log that the database follows: put it back, or, if it is lost or the database is a backup's, %w", errNewLog)
)

func (n *Node) mayJoin(path string, at *standing) error {
	if isOfSeveral(path+logSuffix) && at.log != "" {
		return nil
	}
	states, err := n.peer.states()
	if err != nil {
		return err
	}
	begun, leads := false, false
	var behind []string
	for _, state := range states {
		begun = begun || state.Begun
		if state.Leads {
			leads = true
			behind = state.Behind
		}
	}
	behind = slices.DeleteFunc(behind, func(name string) bool { return name == n.log.config.Node })
	switch {
	case begun && !leads:
		return errNoLeader
	case begun && len(behind) > 0:
		return fmt.Errorf("not all of the log is on the disks of %s: a node that has nothing of it can't begin before", strings.Join(behind, ", "))
	case !begun && at.log != "" && !at.seeded():
		return errNoLog
	case at.log != "":
		return nil
	}
	s, err := n.fetch(path, "")
	if err != nil {
		return err
	}
	at.log = s.log
	return nil
}

// fetch gets the newest snapshot that another node has, of a log or, if none is named, of any.
func (n *Node) fetch(path, log string) (snapshot, error) {
	states, err := n.peer.states()
	var from string
	var newest snapshot
	for name, state := range states {
		for _, file := range state.Snapshots {
			s, ok := parseSnapshot(filepath.Join(snapshotDir(path), filepath.Base(file)))
			if ok && (log == "" || s.log == log) && s.position >= newest.position {
				from, newest = name, s
			}
		}
	}
	if from == "" {
		return snapshot{}, errors.Join(errNoBeginning, err)
	}
	began := time.Now()
	if err := n.download(from, newest); err != nil {
		return snapshot{}, fmt.Errorf("fetch a snapshot of the node %s: %w", from, err)
	}
	n.logger().Info("A snapshot was fetched", "from", from, "position", newest.position, "after", time.Since(began))
	return newest, nil
}

// download makes a snapshot of another node one of this node's. If it is cut off, it goes on from there.
func (n *Node) download(from string, s snapshot) error {
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	part := filepath.Join(dir, "fetched")
	defer os.Remove(part)
	file, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	hash, size := sha256.New(), int64(0)
	for range fetchTries {
		var more int64
		more, err = n.downloadFrom(from, s, io.MultiWriter(file, hash), size)
		size += more
		if err == nil {
			break
		}
	}
	if err == nil && hex.EncodeToString(hash.Sum(nil)) != s.hash {
		err = errors.New("its hash is another one than its name says")
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(part, s.path), disk.Sync(dir), disk.Sync(filepath.Dir(dir)))
}

func (n *Node) downloadFrom(from string, s snapshot, to io.Writer, size int64) (more int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), peerTimeout)
	defer cancel()
	header := http.Header{}
	if size > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", size))
	}
	response, err := n.peer.ask(ctx, from, "/snapshots/"+filepath.Base(s.path), header)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	return io.Copy(to, response.Body)
}

// usable yields the snapshots that may do, the newest first: of several nodes, at the end one that is fetched from another.
func (n *Node) usable(path string) iter.Seq2[snapshot, error] {
	return func(yield func(snapshot, error) bool) {
		for _, s := range snapshots(snapshotDir(path)) {
			if !yield(s, nil) {
				return
			}
		}
		if n.several() {
			yield(n.fetch(path, n.log.id))
		}
	}
}

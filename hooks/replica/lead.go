package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// lookPause is how often a node looks who leads, and infoPause how often it asks how far the log is.
	lookPause = 10 * time.Millisecond
	infoPause = time.Second

	// quorumTimeout is how long a node may hear nothing of most of the others, who tell each second that they
	// are there, before it takes no write any more.
	quorumTimeout = 2500 * time.Millisecond
)

var errNoQuorum = errors.New("most of the other nodes can't be heard")

// lead brings the database of one of several nodes to the end of the log, again and again, and has the
// node lead while its server leads the stream.
func (n *Node) lead(ctx context.Context) {
	for said := saying(""); ; {
		err := n.turn(ctx)
		n.ready.Store(false)
		if isDiverged(err) || errors.Is(err, errTrimmed) {
			err = n.condemn(err.Error())
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil && n.condemned.Load() {
			n.log.halt() // so that another one leads
			return
		}
		if err == nil {
			said = ""
			continue
		}
		if said.isNew(err.Error()) {
			n.logger().Error("The log can't be followed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * lookPause):
		}
	}
}

// turn follows or leads, until the other one is to be done.
func (n *Node) turn(ctx context.Context) error {
	if n.condemned.Load() {
		return nil
	}
	if err := n.log.revive(); err != nil {
		return err
	}
	if err := n.log.look(); err != nil {
		return err
	}
	if !n.log.leads() {
		return n.keepUp(ctx)
	}
	if n.handsOver() {
		return n.handOver(ctx)
	}
	if err := n.takeOver(ctx); err != nil {
		if errors.Is(err, errUnapplied) { // and by another node maybe
			err = errors.Join(err, n.log.stepDown())
		}
		return err
	}
	return n.stayLeading(ctx)
}

// keepUp applies what the node that leads appends, until this one does.
func (n *Node) keepUp(ctx context.Context) error {
	look, info := time.NewTicker(lookPause), time.NewTicker(infoPause)
	defer look.Stop()
	defer info.Stop()
	ask := true // what is told may be lost
	var told notice
	for end := uint64(0); ; {
		asked := time.Now()
		if ask {
			info, err := n.log.info()
			if err != nil {
				return err
			}
			n.hearLeader(info.Cluster.Leader)
			end = max(end, info.State.LastSeq)
		}
		if err := n.applyTo(ctx, end, told); err != nil {
			return err
		}
		if ask {
			n.current.Store(true)
			n.caughtUp.set(asked)
		}
		ask, told = false, notice{}
		select {
		case <-ctx.Done():
			return nil
		case m := <-n.log.told:
			told = n.hear(m)
			end = max(end, told.end)
		case <-info.C:
			if !n.log.works() { // a full disk has switched its storage off, and others' is read all the same
				return nil
			}
			ask = true
			if err := n.tellKept(); err != nil {
				return err
			}
		case <-look.C:
			if n.condemned.Load() || n.log.leads() {
				return nil
			}
		}
	}
}

// applyTo brings the database to a position. An entry that it is told, and that comes next, isn't read from the log.
func (n *Node) applyTo(ctx context.Context, end uint64, told notice) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(told.entry) > 0 && told.after == n.applier.at {
		if err := n.applyAndTell(told.after, told.end, told.entry); err != nil {
			return err
		}
	}
	if err := n.catchUp(ctx, n.applier, end); err != nil {
		return err
	}
	n.grow(n.applier.applied)
	n.applier.applied = 0
	if leader := n.applier.leader; leader != "" {
		n.hearLeader(leader)
		n.applier.leader = ""
	}
	return nil
}

// hearLeader is told that a node leads, or with "" that none does.
func (n *Node) hearLeader(name string) {
	n.leader.Store(name)
	if name != "" {
		n.heard.set(time.Now())
	}
}

// takeOver brings the database to the end of the log, and fences who led before by an entry of its own: what
// that one still appends follows no end of the log.
func (n *Node) takeOver(ctx context.Context) error {
	began := time.Now()
	var marker changes
	marker.leads(n.log.config.Node)
	for ctx.Err() == nil && n.log.leads() {
		position, err := n.fence(ctx, marker.entry())
		if errors.Is(err, errBehind) {
			select {
			case <-ctx.Done():
			case <-time.After(lookPause): // until the log has it
			}
			continue
		}
		if errors.Is(err, errFull) { // also for the marker: who leads the stream can cut it off all the same
			err = errors.Join(n.refuseFull(err), n.overlook())
		}
		if err != nil {
			return fmt.Errorf("take over: %w", err)
		}
		select {
		case cause := <-n.fell: // as it led before
			n.logger().Debug("What ended that this node led before is over", "error", cause)
		default:
		}
		n.logger().Info("This node leads", "position", position, "after", time.Since(began))
		n.ready.Store(!n.condemned.Load())
		if !n.starting.Load() {
			n.begins()
		}
		return nil
	}
	return nil
}

func (n *Node) fence(ctx context.Context, marker []byte) (position uint64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.catchUp(ctx, n.applier, endOfLog); err != nil {
		return 0, err
	}
	position, err = n.applier.position()
	if err == nil {
		err = n.append(position, marker)
	}
	if err == nil {
		err = n.applyAndReload(position, position+1, marker, func() {})
	}
	if err != nil {
		return 0, err
	}
	n.hearLeader(n.log.config.Node)
	n.applier.leader = ""
	return position + 1, nil
}

// stayLeading returns once another node leads, or this one mustn't.
func (n *Node) stayLeading(ctx context.Context) error {
	look, info := time.NewTicker(lookPause), time.NewTicker(infoPause/2)
	defer look.Stop()
	defer info.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case cause := <-n.fell:
			return cause
		case m := <-n.log.told:
			n.hear(m)
		case <-info.C:
			if err := n.overlook(); err != nil {
				return err
			}
			n.heard.set(time.Now()) // it leads, for when it does no more
			n.caughtUp.set(time.Now())
		case <-look.C:
			if n.condemned.Load() || !n.log.leads() {
				n.logger().Info("This node leads no more")
				return nil
			}
			if n.handsOver() {
				return n.handOver(ctx)
			}
		}
	}
}

// overlook fails if most of the nodes can't be heard, and cuts off what no node needs of the log. That it can't
// ask is no reason: then nothing can be appended.
func (n *Node) overlook() error {
	info, err := n.log.info()
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	heard := 1 // itself
	for _, replica := range info.Cluster.Replicas {
		if replica.Active < quorumTimeout && !replica.Offline {
			heard++
		}
	}
	if heard <= len(n.log.config.Peers)/2 {
		return errNoQuorum
	}
	if err := n.tellKept(); err != nil {
		return err
	}
	return n.trimTo(info.State)
}

// A kept is from where on a node needs the log.
type kept struct {
	Node     string `json:"node"`
	Position uint64 `json:"position"`
}

func (n *Node) tellKept() error {
	position := n.keeps.Load()
	if position == 0 { // it has made no snapshot yet
		return nil
	}
	n.kept[n.log.config.Node] = position
	data, err := json.Marshal(kept{n.log.config.Node, position})
	if err != nil {
		return err
	}
	return n.log.tell(keptSubject, data)
}

// hear takes what a node tells, and returns what the log has taken, if it's told that.
func (n *Node) hear(m *nats.Msg) notice {
	switch m.Subject {
	case appendedSubject:
		return decodeNotice(m.Data)
	case keptSubject:
		var k kept
		if json.Unmarshal(m.Data, &k) == nil {
			n.kept[k.Node] = k.Position
		}
	}
	return notice{}
}

// trimTo cuts off what none of the nodes needs. If the log is so long that it may be full soon, it's what
// this one doesn't need: another one then needs a copy.
func (n *Node) trimTo(state jetstream.StreamState) error {
	low := n.keeps.Load()
	if state.Bytes > uint64(n.log.max/2) {
		low = n.newest.Load()
	} else if len(n.kept) < len(n.log.config.Peers) {
		return nil
	} else {
		for _, position := range n.kept {
			low = min(low, position)
		}
	}
	if low <= state.FirstSeq {
		return nil
	}
	return n.log.trim(low)
}

package replica

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/nodes"
)

// reportPath is where a node tells another one how it stands, and reportPause how often each asks.
const (
	reportPath  = "/report"
	reportPause = 2 * time.Second
)

// NodeState is how a node stands, as another one has heard last, or as it knows itself: hooks.NodeState says what it tells.
type NodeState = nodes.State

// A report is what a node tells of itself.
type report struct {
	Node   string            `json:"node"`
	Peers  []string          `json:"peers"`  // their names
	Clock  time.Time         `json:"clock"`  // what that says now
	Format int               `json:"format"` // of the entries that it writes, and the last that it can read
	Same   map[string]string `json:"same"`   // Config.Same

	Secrets map[string]string `json:"secrets"` // hashes of them
	Twin    string            `json:"twin"`    // the address of who asks, where another process is that

	// Of a node that has opened its database:
	Log      string        `json:"log"` // its name, short
	Leads    bool          `json:"leads"`
	Position uint64        `json:"position"`
	Lag      time.Duration `json:"lag"`    // how long ago it had all of the log
	Astray   bool          `json:"astray"` // its clock is
}

// report returns what this node tells one that asks with some salt.
func (n *Node) report(salt string) report {
	config := n.log.config
	r := report{
		Node: config.Node, Peers: slices.Sorted(maps.Keys(config.Peers)), Clock: n.clock(), Format: entryVersion, Same: config.Same, Secrets: n.hashes(salt),
	}
	if n.stop.Load() == nil {
		return r
	}
	r.Log, r.Position, r.Leads, r.Astray = n.name, n.reached.at(), n.Leads(), n.watch.astray.Load()
	if !r.Leads {
		r.Lag = n.caughtUp.ago()
	}
	return r
}

// hashes returns hashes of the secrets, that tell nobody what they are, nor who has the same elsewhere. A command may lack some, as
// in another user's shell.
func (n *Node) hashes(salt string) map[string]string {
	hashes := map[string]string{}
	n.secrets.Range(func(what, value any) bool {
		if value != "" || !n.isCommand() {
			mac := hmac.New(sha256.New, []byte(value.(string)))
			mac.Write([]byte(salt))
			hashes[what.(string)] = hex.EncodeToString(mac.Sum(nil))[:hashLength]
		}
		return true
	})
	return hashes
}

func (n *Node) answerReport(w http.ResponseWriter, r *http.Request) {
	told := n.report(r.URL.Query().Get("salt"))
	told.Twin = n.twin(r.Context(), nameOf(r.TLS), r.Header.Get(processHeader))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(told) // whoever has asked asks again
}

func (p *peer) report(ctx context.Context, name, salt string) (r report, err error) {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	response, err := p.ask(ctx, name, reportPath+"?salt="+salt, http.Header{processHeader: {p.process}})
	if err != nil {
		return r, err
	}
	defer response.Body.Close()
	return r, json.NewDecoder(response.Body).Decode(&r)
}

// A watch is what a node knows of the others; a command, of all.
type watch struct {
	states atomic.Pointer[[]NodeState] // which nobody changes
	astray atomic.Bool                 // this node's clock differs by much from those of most nodes
	right  atomic.Bool                 // that of another one, which is there, doesn't

	mu     sync.Mutex // is held while they are asked
	others map[string]*other
}

// An other is a node as another one knows it.
type other struct {
	report
	heard   moment // when it told that, or when it began to be asked
	reached bool
	failed  error // why it isn't
	away    bool  // not reached for so long that it's said
	clock   clock
	differs []string // but for its clock
	said    saying
}

// watchOthers asks the other nodes again and again how they stand, and at once when this one's clock was set, and says what
// differs.
func (n *Node) watchOthers(ctx context.Context, p *peer) {
	pause := time.NewTicker(reportPause)
	defer pause.Stop()
	for {
		own := clock{said: n.clock().Round(0), at: time.Now()}
		twin := n.askOthers(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if twin != "" {
			n.giveWay(twin)
			return
		}
		n.sayDifferences()
		n.awaitStep(ctx, own, pause.C)
		if ctx.Err() != nil {
			return
		}
	}
}

// awaitStep returns once this node's clock was set since it said so, or at the end of the pause.
func (n *Node) awaitStep(ctx context.Context, own clock, pause <-chan time.Time) {
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for own.ahead(n.clock()).Abs() < skewBegins {
		select {
		case <-ctx.Done():
			return
		case <-pause:
			return
		case <-look.C:
		}
	}
}

// askOthers asks all other nodes at once; a command asks all, its own server too. It returns the address of this node's twin, if one knows that.
func (n *Node) askOthers(ctx context.Context, p *peer) (twin string) {
	w := &n.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	salt := rand.Text()
	var all sync.WaitGroup
	for name := range p.config.Peers {
		if name == p.config.Node && !n.isCommand() {
			continue
		}
		o := w.others[name]
		if o == nil {
			o = &other{}
			o.heard.set(time.Now())
			w.others[name] = o
		}
		all.Go(func() {
			sent := time.Now()
			told, err := p.report(ctx, name, salt)
			o.reached, o.failed = err == nil, err
			if err == nil {
				o.report = told
				o.heard.set(sent)
				o.clock.hear(told.Clock, sent)
			}
		})
	}
	all.Wait()
	w.astray.Store(!n.isCommand() && isAstray(w.others, n.clock()))
	own, right := n.report(salt), false
	for name, o := range w.others {
		right = right || o.isRight()
		if o.reached {
			o.differs = differences(name, own, o.report)
			o.clock.look(n.clock())
			twin = cmp.Or(twin, o.Twin)
		}
	}
	w.right.Store(right)
	w.states.Store(n.tellStates(own))
	return twin
}

// differences tells in which ways another node, by that name, is not as this one is.
func differences(name string, own, other report) (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if other.Node != name {
		add("at its address answers the node %s", other.Node)
	}
	if !slices.Equal(own.Peers, other.Peers) {
		add("its peers are %s, and here %s", strings.Join(other.Peers, ", "), strings.Join(own.Peers, ", "))
	}
	if own.Log != other.Log && own.Log != "" && other.Log != "" {
		add("its database follows another log")
	}
	if own.Format != other.Format {
		add("its format of the log is %d, and here %d: run the newer program on both", other.Format, own.Format)
	}
	both := slices.AppendSeq(slices.Collect(maps.Keys(own.Same)), maps.Keys(other.Same))
	slices.Sort(both)
	for _, what := range slices.Compact(both) {
		if own.Same[what] != other.Same[what] {
			add("its %s is %s, and here %s", what, cmp.Or(other.Same[what], "unknown"), cmp.Or(own.Same[what], "unknown"))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(own.Secrets)) {
		if own.Secrets[what] != other.Secrets[what] {
			add("its %s is another one", what)
		}
	}
	return all
}

// sayDifferences logs what has begun to differ, and what differs no more, and who is away.
func (n *Node) sayDifferences() {
	w := &n.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, o := range w.others {
		n.sayAway(name, o)
		differs := strings.Join(o.allDiffers(n.clock()), "; ")
		known := strings.Join(o.differs, "; ")
		if o.clock.differs { // by other seconds each time
			known += "; clock"
		}
		switch {
		case !o.said.isNew(known):
		case known == "":
			n.logger().Info("Another node is as this one again", "node", n.log.config.Node, "other", name)
		default:
			n.logger().Warn("Another node is not as this one", "node", n.log.config.Node, "other", name, "differs", differs)
		}
	}
}

func (n *Node) sayAway(name string, o *other) {
	away := !o.reached && o.heard.ago() > quietWait
	switch {
	case away && !o.away:
		n.logger().Warn("Another node can't be reached", "node", n.log.config.Node, "other", name, "because", o.failed)
	case !away && o.away:
		n.logger().Info("Another node is reached again", "node", n.log.config.Node, "other", name)
	}
	o.away = away
}

// allDiffers is what differs, the clock too.
func (o *other) allDiffers(now time.Time) []string {
	if !o.clock.differs {
		return o.differs
	}
	return append(slices.Clone(o.differs), o.clock.inWords(now))
}

// tellStates returns how all nodes stand.
func (n *Node) tellStates(own report) *[]NodeState {
	now, end := n.clock(), own.Position
	for _, o := range n.watch.others {
		if o.Log == own.Log || own.Log == "" {
			end = max(end, o.Position)
		}
	}
	var states []NodeState
	for _, name := range own.Peers {
		s := NodeState{Name: name, Address: n.log.config.Peers[name], Here: name == own.Node, Reached: true}
		told, lag := own, own.Lag
		if o := n.watch.others[name]; o != nil {
			s.Reached, told, lag = o.reached, o.report, o.Lag
			if !o.reached && o.Log != "" {
				lag += o.heard.ago()
			}
			s.ClockSeconds, s.Differs = o.clock.ahead(now).Seconds(), o.allDiffers(now)
		}
		s.Leads, s.Position, s.LagSeconds, s.Same = told.Leads && s.Reached, told.Position, lag.Seconds(), told.Same
		if told.Log != "" {
			s.Behind = end - min(end, told.Position)
		}
		if told.Astray {
			s.Differs = append(slices.Clone(s.Differs), astrayClock)
		}
		states = append(states, s)
	}
	return &states
}

// State returns how all nodes stand, in the order of their names, as this one has heard some seconds ago. A command asks them
// now, and compares them with itself. Of a node without others, and before it has a database, it is nil.
func (n *Node) State() []NodeState {
	if n.isCommand() {
		p, err := newPeer(n.log.config)
		if err != nil { // it was right when the node was opened
			return nil
		}
		defer p.client.CloseIdleConnections()
		n.askOthers(context.Background(), p)
	}
	if states := n.watch.states.Load(); states != nil {
		return *states
	}
	return nil
}

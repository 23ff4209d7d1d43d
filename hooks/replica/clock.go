package replica

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// slowAnswer is how long an answer may take that still tells what a clock says: it's off by half of that at most.
	slowAnswer = time.Second

	// Clocks are said to differ from skewBegins on until they differ by less than skewEnds.
	skewBegins = 2 * time.Second
	skewEnds   = time.Second

	// maxSkew is by how much the clock of a node that leads may differ from those of most nodes. It then has another one
	// lead; if the log comes back to it within handPause, no other one can.
	maxSkew   = time.Minute
	handPause = time.Minute
)

// astrayClock is what is said of a node that won't lead if another one can.
const astrayClock = "its clock is far from those of most nodes: it doesn't lead if another one can"

// A clock is another node's. Once heard, it's known also while the node isn't reached.
type clock struct {
	said    time.Time // what it said
	at      time.Time // when, by this process's own time, which nobody sets
	differs bool      // by so much that it's said
}

// hear is told what the clock said in an answer that came now.
func (c *clock) hear(said, sent time.Time) {
	if took := time.Since(sent); took <= slowAnswer {
		c.said, c.at = said, sent.Add(took/2)
	}
}

// ahead returns what the clock is ahead of another one that says now.
func (c *clock) ahead(now time.Time) time.Duration {
	if c.at.IsZero() {
		return 0
	}
	return c.said.Add(time.Since(c.at)).Sub(now)
}

// look finds out whether the clock differs from another one.
func (c *clock) look(now time.Time) {
	ahead := c.ahead(now).Abs()
	c.differs = ahead > skewBegins || c.differs && ahead > skewEnds
}

func (c *clock) inWords(now time.Time) string {
	ahead := c.ahead(now).Round(time.Second)
	if ahead < 0 {
		return fmt.Sprintf("its clock is %s behind", -ahead)
	}
	return fmt.Sprintf("its clock is %s ahead", ahead)
}

// isAstray reports whether a clock that says now is far from the one in the middle of all that are known, or from both of
// an even number. So the node of that one, at least, isn't astray, and of two nodes none.
func isAstray(others map[string]*other, now time.Time) bool {
	all := []time.Duration{0}
	for _, o := range others {
		if !o.clock.at.IsZero() {
			all = append(all, o.clock.ahead(now))
		}
	}
	slices.Sort(all)
	low, high := all[(len(all)-1)/2], all[len(all)/2]
	return low > maxSkew || high < -maxSkew
}

// isRight reports whether another node can lead in place of one that is astray: it is there, and its clock isn't far from most.
func (o *other) isRight() bool { return o.reached && o.Log != "" && !o.Astray }

// handsOver reports whether this node is to have another one lead, because of its clock.
func (n *Node) handsOver() bool {
	return n.watch.astray.Load() && n.watch.right.Load() && n.handed.ago() > handPause
}

// handOver has another node lead, if one can.
func (n *Node) handOver(ctx context.Context) error {
	n.ready.Store(false)
	n.handed.set(time.Now())
	n.logger().Error("This node has another one lead, as its clock is wrong: set it. Times that are stored, and those at which tokens end, are of the node that leads", "node", n.log.config.Node)
	if err := n.log.stepDown(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for n.log.leads() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(lookPause):
		}
	}
	return nil
}

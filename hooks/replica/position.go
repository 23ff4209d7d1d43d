package replica

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// positionHeader is what [Node.Position] tells, of answers to clients and of what they ask then, and positionQuery the same
// where no header can be set.
const (
	positionHeader = "Replica-Position"
	positionQuery  = "replicaPosition"
)

// Position tells how far this node's database has come: what was written before is there. A request with it in the
// header Replica-Position, or the query's replicaPosition, is answered by a node that has come as far, and every answer of one of several nodes
// has that header. It's the same on all nodes, and says nothing to those of another log.
func (n *Node) Position() string {
	return n.name + "-" + strconv.FormatUint(n.reached.at(), 10)
}

// has reports whether this node's database has come to what Position says, or will never.
func (n *Node) has(ctx context.Context, position string) bool {
	number, ok := strings.CutPrefix(position, n.name+"-")
	at, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return true
	}
	return n.reached.wait(ctx, at)
}

// positioned tells with the answer how far the database has come by then: what was read or written for it is there.
type positioned struct {
	http.ResponseWriter
	node *Node
}

// tell does so unless another node has, which has answered.
func (p *positioned) tell() {
	if p.Header().Get(positionHeader) == "" {
		p.Header().Set(positionHeader, p.node.Position())
		p.Header().Add("Access-Control-Expose-Headers", positionHeader)
	}
}

func (p *positioned) WriteHeader(status int) {
	if status >= http.StatusOK { // others come before the answer
		p.tell()
	}
	p.ResponseWriter.WriteHeader(status)
}

func (p *positioned) Write(b []byte) (int, error) {
	p.tell()
	return p.ResponseWriter.Write(b)
}

func (p *positioned) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// reached is the position that a database is known to be at.
type reached struct {
	mu       sync.Mutex
	position uint64
	moved    chan struct{} // closed when it is; nil if nobody waits
}

func (r *reached) at() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position
}

func (r *reached) set(position uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if position <= r.position {
		return
	}
	r.position = position
	if r.moved != nil {
		close(r.moved)
		r.moved = nil
	}
}

// wait reports whether the position is reached, before ctx ends.
func (r *reached) wait(ctx context.Context, position uint64) bool {
	for {
		r.mu.Lock()
		if r.position >= position {
			r.mu.Unlock()
			return true
		}
		if r.moved == nil {
			r.moved = make(chan struct{})
		}
		moved := r.moved
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return false
		case <-moved:
		}
	}
}

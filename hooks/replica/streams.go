package replica

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/router"
)

// staleTimeout is how long streams of events go on where nothing is heard of the node that leads: one may do so that
// this node can't hear. It's longer than an election takes.
const staleTimeout = 15 * time.Second

// serveStream keeps streams of events from where they would bring nothing.
func (n *Node) serveStream(e *core.RealtimeConnectRequestEvent) error {
	if n.several() && !n.heardWithin(staleTimeout) {
		return unavailable(e.RequestEvent, errNoLeader)
	}
	defer func() { n.listened.set(time.Now()) }()
	return e.Next()
}

// endStale ends the streams of events while nothing is heard of the node that leads: a balancer has others to come back to.
func (n *Node) endStale(ctx context.Context) {
	look := time.NewTicker(infoPause)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if n.serving.Load() && !n.heardWithin(staleTimeout) {
				n.endStreams()
			}
		}
	}
}

// endStreams ends all streams of events: who has one comes back, and fetches again what there is.
func (n *Node) endStreams() {
	for _, client := range n.applied.SubscriptionsBroker().Clients() {
		client.Discard()
	}
}

// streamOf returns the id of the stream that a request is about, empty if it's about none: that stream is at
// one node, and the request may come to any. The body is there again behind it.
func streamOf(e *core.RequestEvent) string {
	var about struct {
		Client string `json:"clientId" form:"clientId"`
		State  string `json:"state" form:"state"`
	}
	r := e.Request
	switch {
	case r.URL.Path == realtimePath && r.Method == http.MethodPost:
		_ = e.BindBody(&about) // PocketBase says what is wrong with it
		return about.Client
	case r.URL.Path == redirectPath && r.Method == http.MethodPost:
		_ = e.BindBody(&about)
		return about.State
	case r.URL.Path == redirectPath:
		return r.URL.Query().Get("state")
	}
	return ""
}

const (
	realtimePath = "/api/realtime"
	redirectPath = "/api/oauth2-redirect" // where somebody comes back to who has signed in somewhere else
	streamsPath  = "/streams/"            // of the nodes' own port, before a stream's id
)

// passToStream has the node answer that has the stream which a request is about.
func (n *Node) passToStream(e *core.RequestEvent) error {
	body, err := readBody(e.Request.Body)
	if err != nil {
		return e.BadRequestError("The request was cut off.", err)
	}
	e.Request.Body = &router.RereadableReadCloser{ReadCloser: body.again()} // as PocketBase has it
	if body.rest != nil {
		return e.Next() // more than any such request is
	}
	id := streamOf(e)
	if id == "" || n.hasStream(id) {
		return e.Next()
	}
	address := n.findStream(e.Request.Context(), id)
	if address == "" {
		return e.Next() // which says so
	}
	if done, err := n.passTo(e, address, body, false); !done {
		return unavailable(e, errors.Join(errMissed, err))
	}
	return nil
}

func (n *Node) hasStream(id string) bool {
	_, err := n.applied.SubscriptionsBroker().ClientById(id)
	return err == nil
}

// findStream returns where the node is reached that has a stream, empty if none has it.
func (n *Node) findStream(ctx context.Context, id string) string {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	others := slices.DeleteFunc(slices.Collect(maps.Keys(n.log.config.Peers)), func(name string) bool { return name == n.log.config.Node })
	name, err := n.peer.first(others, func(name string) error {
		response, err := n.peer.ask(ctx, name, streamsPath+id, nil)
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	if err != nil {
		return ""
	}
	address, _ := peerAddress(n.log.config.Peers[name])
	return address
}

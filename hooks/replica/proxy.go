package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/router"
)

const (
	// clientHeader and schemeHeader tell the node that leads who has sent a request to another one, and how.
	clientHeader = "Replica-Client"
	schemeHeader = "Replica-Scheme"

	// streamHeader is of a request that is about a stream of events: the node that has it answers, whoever leads.
	streamHeader = "Replica-Stream"

	// notLeadingHeader is of an answer to such a request by a node that doesn't lead, and has done nothing.
	notLeadingHeader = "Replica-Not-Leading"

	// repeatable is how long a body may be that a node keeps, so that it can pass it on again. leaderWait is how long a request
	// waits for a node that leads, and appliedWait for this node to have what the answer to it says. While it isn't answered,
	// it's looked each answerPause whether that node still leads.
	repeatable  = 1 << 20
	leaderWait  = 5 * time.Second
	appliedWait = 5 * time.Second
	answerPause = time.Second
)

type passedOn struct{}

// passOn has the node that leads answer what may write, so that every node takes it, and what is about a stream of events
// the one that has it. It answers nobody with less than they have seen of another node.
func (n *Node) passOn(e *core.RequestEvent) error {
	answer := &positioned{e.Response, n}
	e.Response = &router.ResponseWriter{ResponseWriter: answer} // which has all that handlers may ask of one
	err := n.answer(e)
	if err != nil { // which PocketBase writes past that
		answer.tell()
	}
	return err
}

func (n *Node) answer(e *core.RequestEvent) error {
	r := e.Request
	ctx, cancel := context.WithTimeout(r.Context(), appliedWait)
	defer cancel()
	if !n.has(ctx, cmp.Or(r.Header.Get(positionHeader), r.URL.Query().Get(positionQuery))) {
		e.Response.Header().Set("Retry-After", retryAfter)
		return apis.NewApiError(http.StatusServiceUnavailable, "This server is behind another one, of which the request tells. Try again later.", errLate)
	}
	switch {
	case r.Context().Value(passedOn{}) != nil:
		return e.Next()
	case r.URL.Path == realtimePath, r.URL.Path == redirectPath:
		return n.passToStream(e)
	case n.Leads(), r.Method == http.MethodGet, r.Method == http.MethodHead, r.Method == http.MethodOptions:
		return e.Next()
	}
	return n.passToLeader(e)
}

func (n *Node) passToLeader(e *core.RequestEvent) error {
	r := e.Request
	body, err := readBody(r.Body)
	if err != nil {
		return e.BadRequestError("The request was cut off.", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), leaderWait)
	defer cancel()
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for {
		if n.Leads() { // by now
			r.Body = &router.RereadableReadCloser{ReadCloser: body.again()} // as PocketBase has it
			return e.Next()
		}
		if leader := n.leaderAddress(); leader != "" {
			done, err := n.passTo(e, leader, body, true)
			if done {
				return nil
			}
			if err != nil {
				return unavailable(e, err)
			}
		}
		if ctx.Err() != nil || !n.healthy() {
			return unavailable(e, errNoLeader)
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		}
	}
}

var (
	errNoLeader = errors.New("no node leads that can be reached from here")
	errMayBe    = errors.New("the node that leads was lost: whether it has done this isn't known")
	errMissed   = errors.New("it doesn't lead")
	errLate     = errors.New("this node doesn't have yet what another one has told")
)

// leaderAddress returns where the node that leads takes requests, empty if none is known or it's this one.
func (n *Node) leaderAddress() string {
	name, _ := n.leader.Load().(string)
	if name == n.log.config.Node {
		return ""
	}
	address, _ := peerAddress(n.log.config.Peers[name])
	return address
}

// A body is one of which the beginning was read.
type body struct {
	start []byte
	rest  io.ReadCloser // nil if that is all of it
}

// readBody reads all of a body that is repeatable. It reads past PocketBase's copy of it, which nobody may read any more once the request
// is answered: what sends the rest to another node may still do so then, where that has answered before it had all.
func readBody(r io.ReadCloser) (b body, err error) {
	if copied, ok := r.(*router.RereadableReadCloser); ok {
		r = copied.ReadCloser
	}
	b.start = make([]byte, 0, 512)
	for err == nil && len(b.start) <= repeatable {
		var n int
		b.start = slices.Grow(b.start, 512)
		n, err = r.Read(b.start[len(b.start):cap(b.start)])
		b.start = b.start[:len(b.start)+n]
	}
	if err == nil {
		b.rest = r
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

// again returns all of it: of one that isn't repeatable, once.
func (b body) again() io.ReadCloser {
	if b.rest == nil {
		return io.NopCloser(bytes.NewReader(b.start))
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(b.start), b.rest))
}

// passTo has another node answer, and reports whether anything was answered. If nothing was, and there is no error,
// nothing was done.
func (n *Node) passTo(e *core.RequestEvent, address string, body body, leads bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(e.Request.Context())
	defer cancel()
	answered := make(chan struct{})
	if leads {
		go n.giveUp(ctx, address, answered, cancel)
	}
	r := e.Request.Clone(ctx)
	r.Body = body.again()
	if body.rest == nil {
		r.ContentLength = int64(len(body.start))
	}
	proxy := &httputil.ReverseProxy{
		Transport: n.peer.client, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) { n.rewrite(p, address, leads) },
		ModifyResponse: func(response *http.Response) error {
			close(answered)
			if response.Header.Get(notLeadingHeader) != "" {
				return errMissed
			}
			ctx, cancel := context.WithTimeout(r.Context(), appliedWait)
			defer cancel()
			n.has(ctx, response.Header.Get(positionHeader)) // or the client wouldn't find here what it has written
			for header := range response.Header {           // rather than have it twice
				e.Response.Header().Del(header)
			}
			done = true
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, cause error) { err = cause },
	}
	proxy.ServeHTTP(e.Response, r)
	switch {
	case done || err == nil:
		return true, nil
	case body.rest == nil && (errors.Is(err, errMissed) || isUnsent(err)):
		return false, nil
	}
	return false, errors.Join(errMayBe, err)
}

// rewrite makes a request that came here one for another node, which says who has sent it, and how.
func (n *Node) rewrite(p *httputil.ProxyRequest, address string, leads bool) {
	p.SetURL(&url.URL{Scheme: "https", Host: address})
	p.Out.Host, p.Out.URL.RawQuery = p.In.Host, p.In.URL.RawQuery
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := p.In.Header[header]; ok { // as whoever is before this node has set it
			p.Out.Header[header] = values
		}
	}
	for _, header := range []string{"Idempotency-Key", "X-Idempotency-Key"} { // with which net/http would send it again by itself
		if values, ok := p.Out.Header[header]; ok {
			delete(p.Out.Header, header)
			p.Out.Header[strings.ToLower(header)] = values
		}
	}
	p.Out.Header.Del("Expect") // this node has let the client go on: a 100 of the other one would be taken for the answer
	p.Out.Header.Del(streamHeader)
	if !leads {
		p.Out.Header.Set(streamHeader, "1")
		p.Out.Header.Set(positionHeader, n.Position()) // or that one may not know yet who has signed in
	}
	p.Out.Header.Set(clientHeader, p.In.RemoteAddr)
	p.Out.Header.Set(schemeHeader, "http")
	if p.In.TLS != nil {
		p.Out.Header.Set(schemeHeader, "https")
	}
}

// giveUp cancels a request that is not answered by a node which leads no more: it may have been cut off or stand still, and
// nobody would tell.
func (n *Node) giveUp(ctx context.Context, address string, answered <-chan struct{}, cancel context.CancelFunc) {
	look := time.NewTicker(answerPause)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
			return
		case <-look.C:
			if now := n.leaderAddress(); now != "" && now != address || n.Leads() || !n.healthy() {
				cancel()
			}
		}
	}
}

// isUnsent reports whether a request failed before anything of it was sent.
func isUnsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// servePeer answers what another node passes on, or asks for itself.
func (n *Node) servePeer(path string, w http.ResponseWriter, r *http.Request) {
	if _, passed := r.Header[clientHeader]; !passed { // it may be empty, as over a Unix socket
		n.answerPeer(path, w, r)
		return
	}
	handler := n.peer.handler.Load()
	if handler == nil || r.Header.Get(streamHeader) == "" && !n.Leads() {
		w.Header().Set(notLeadingHeader, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), passedOn{}, true))
	r.RemoteAddr = r.Header.Get(clientHeader)
	if r.Header.Get(schemeHeader) != "https" {
		r.TLS = nil
	}
	r.Header.Del(clientHeader)
	r.Header.Del(schemeHeader)
	r.Header.Del(streamHeader)
	(*handler).ServeHTTP(w, r)
}

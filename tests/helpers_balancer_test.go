package tests

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A balancer sends each request to any of the nodes that say they are well, as one before several servers does: no
// two requests of a page need come to the same. It ends what a node answers that isn't well any more.
type balancer struct {
	URL   string
	nodes []*upstream
}

// An upstream is a node as the balancer knows it.
type upstream struct {
	url *url.URL

	mu   sync.Mutex
	well context.Context // ends when the node isn't well
	end  context.CancelFunc
}

func startBalancer(t testing.TB, urls ...string) *balancer {
	t.Helper()
	b := &balancer{}
	ctx, stop := context.WithCancel(context.Background())
	var checks sync.WaitGroup
	for _, address := range urls {
		target, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		u := &upstream{url: target}
		u.well, u.end = context.WithCancel(ctx)
		b.nodes = append(b.nodes, u)
		checks.Go(func() { u.check(ctx) })
	}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	b.URL = server.URL
	t.Cleanup(func() {
		stop()
		checks.Wait()
		server.CloseClientConnections()
		server.Close()
	})
	return b
}

// check asks the node how it is, again and again.
func (u *upstream) check(ctx context.Context) {
	client := &http.Client{Timeout: time.Second}
	for ctx.Err() == nil {
		response, err := client.Get(u.url.String() + "/api/health")
		if err == nil {
			response.Body.Close()
		}
		u.mu.Lock()
		switch well := err == nil && response.StatusCode == http.StatusOK; {
		case !well:
			u.end()
		case u.well.Err() != nil:
			u.well, u.end = context.WithCancel(ctx)
		}
		u.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// cut ends all that is being answered, so that every page comes again, to any node.
func (b *balancer) cut() {
	for _, u := range b.nodes {
		u.mu.Lock()
		u.end()
		u.mu.Unlock()
	}
}

func (b *balancer) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	for _, i := range rand.Perm(len(b.nodes)) {
		u := b.nodes[i]
		u.mu.Lock()
		well := u.well
		u.mu.Unlock()
		if well.Err() != nil {
			continue
		}
		ctx, cancel := context.WithCancel(r.Context())
		stop := context.AfterFunc(well, cancel)
		again := r.Clone(ctx)
		again.Body = io.NopCloser(bytes.NewReader(body))
		failed := false
		proxy := httputil.NewSingleHostReverseProxy(u.url)
		proxy.FlushInterval = -1
		proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { failed = true }
		func() {
			defer stop()
			defer cancel()
			proxy.ServeHTTP(w, again)
		}()
		if !failed {
			return
		}
		if r.Method != http.MethodGet {
			break // it may have been done
		}
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

package realtime

import (
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
)

// After a restart, or a proxy's, all viewers come back at once, and each subscribes and
// lists. So a stream is told when its turn is, as PocketRiver's client waits for it, and as
// long as some wait, one processor is kept free of what they ask: it is for webhooks.
const (
	comeAtOnce = 100               // streams that come together and need not wait
	comeEvery  = time.Second / 370 // one of the others
	maxTurn    = 30 * time.Second  // some proxies end a stream that is silent for longer
)

// turn returns how long a stream that has just come is to wait before it asks for anything.
func (f *FanOut) turn() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.nextTurn.Before(now) {
		f.nextTurn = now
	}
	wait := f.nextTurn.Sub(now) - comeAtOnce*comeEvery
	if wait > maxTurn { // more than the machine can take in that time: they share it
		return rand.N(maxTurn)
	}
	f.nextTurn = f.nextTurn.Add(comeEvery)
	return max(0, wait)
}

// inTurn has the requests of those who come back wait for each other. PocketBase logs only those
// that fail: thousands of lines at once would take the disk that webhooks wait for.
func (f *FanOut) inTurn(e *core.RequestEvent) error {
	if !isOfViewer(e.Request) || !f.inStorm() {
		return e.Next()
	}
	select {
	case f.turns <- struct{}{}:
		defer func() { <-f.turns }()
	case <-e.Request.Context().Done():
		return e.Request.Context().Err()
	}
	return apis.SkipSuccessActivityLog().Func(e)
}

// inStorm reports whether streams wait for their turns.
func (f *FanOut) inStorm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.nextTurn.Add(-comeAtOnce * comeEvery))
}

// isOfViewer reports whether the request is one that a stream begins with.
func isOfViewer(r *http.Request) bool {
	path := r.URL.Path
	return r.Method == http.MethodPost && path == "/api/realtime" ||
		r.Method == http.MethodGet && strings.HasPrefix(path, "/api/collections/") && strings.HasSuffix(path, "/records")
}

// newTurns returns a place for each processor but one.
func newTurns() chan struct{} { return make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)) }

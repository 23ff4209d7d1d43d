package realtime

import (
	"math/rand/v2"
	"time"
)

// After a restart, or a proxy's, all viewers come back at once, and each subscribes and
// lists. So a stream is told when its turn is, as PocketRiver's client waits for it: the
// rest of the machine is for webhooks meanwhile.
const (
	comeAtOnce = 100               // streams that come together and need not wait
	comeEvery  = time.Second / 450 // one of the others
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

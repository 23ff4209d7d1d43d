package outbox

import (
	"math/rand/v2"
	"time"
)

// retryDelays are the waits after each failed attempt, made for the 5 minutes that
// ModelRiver waits for a callback. The last one repeats in a longer window.
var retryDelays = []time.Duration{
	1 * time.Second,  // elapsed, save for the attempts themselves: 1 s
	2 * time.Second,  // 3 s
	5 * time.Second,  // 8 s
	10 * time.Second, // 18 s
	20 * time.Second, // 38 s
	30 * time.Second, // 1 min 8 s
	45 * time.Second, // 1 min 53 s
	60 * time.Second, // 2 min 53 s
	60 * time.Second, // 3 min 53 s
	60 * time.Second, // 4 min 53 s
}

// jitter returns what a delay is multiplied by, so that callbacks that failed together do
// not return together.
func jitter() float64 { return 0.9 + 0.2*rand.Float64() }

// nextDelay returns how long to wait after the given number of attempts. A longer
// retryAfter wins. It returns false if the wait would go past what remains of the window.
func nextDelay(attempts int, retryAfter, remaining time.Duration, jitter float64) (time.Duration, bool) {
	i := min(max(attempts, 1), len(retryDelays)) - 1
	delay := max(time.Duration(float64(retryDelays[i])*jitter), retryAfter)
	return delay, delay <= remaining
}

package replica

import (
	"math"
	"sync/atomic"
	"time"
)

// began is when this process did. What is told from there doesn't change when somebody sets the clock.
var began = time.Now()

// A moment is when something was last.
type moment struct{ at atomic.Int64 } // after began; 0 if it never was

func (m *moment) set(at time.Time) { m.at.Store(max(1, int64(at.Sub(began)))) }

// ago returns how long ago it was; very long if it never was.
func (m *moment) ago() time.Duration {
	at := m.at.Load()
	if at == 0 {
		return math.MaxInt64
	}
	return time.Since(began) - time.Duration(at)
}

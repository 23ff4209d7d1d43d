package outbox

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNextDelay(t *testing.T) {
	t.Parallel()
	const window = 5 * time.Minute
	// Attempts that fail at once: the schedule must end within the window.
	elapsed := time.Duration(0)
	attempts := 1
	for {
		delay, ok := nextDelay(attempts, 0, window-elapsed, jitter())
		if !ok {
			break
		}
		if delay < 900*time.Millisecond {
			t.Fatalf("attempt %d: delay %s is a busy loop", attempts, delay)
		}
		elapsed += delay
		attempts++
	}
	if elapsed > window || elapsed < window/2 || attempts < 8 {
		t.Errorf("got %d attempts over %s, want at least 8 over most of %s", attempts, elapsed, window)
	}

	for _, row := range []struct {
		name                  string
		attempts              int
		retryAfter, remaining time.Duration
		atLeast, atMost       time.Duration
		ok                    bool
	}{
		{"first", 1, 0, window, 900 * time.Millisecond, 1100 * time.Millisecond, true},
		{"no attempt counted", 0, 0, window, 900 * time.Millisecond, 1100 * time.Millisecond, true},
		{"beyond the table", 100, 0, window, 54 * time.Second, 66 * time.Second, true},
		{"longer Retry-After", 1, 2 * time.Minute, window, 2 * time.Minute, 2 * time.Minute, true},
		{"shorter Retry-After", 8, time.Second, window, 54 * time.Second, 66 * time.Second, true},
		{"Retry-After past the window", 1, 10 * time.Minute, window, 10 * time.Minute, 10 * time.Minute, false},
		{"window ended", 1, 0, -time.Second, 900 * time.Millisecond, 1100 * time.Millisecond, false},
	} {
		delay, ok := nextDelay(row.attempts, row.retryAfter, row.remaining, jitter())
		if delay < row.atLeast || delay > row.atMost || ok != row.ok {
			t.Errorf("%s: got %s, %t, want %s to %s, %t", row.name, delay, ok, row.atLeast, row.atMost, row.ok)
		}
	}
}

// Whatever a receiver asks for, the delays end with the window and never spin.
func TestNextDelayStaysInTheWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		window := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Hour)).Draw(t, "window"))
		elapsed, attempts := time.Duration(0), 0
		for {
			attempts++
			elapsed += time.Duration(rapid.Int64Range(0, int64(30*time.Second)).Draw(t, "attempt takes"))
			retryAfter := time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "Retry-After"))
			delay, ok := nextDelay(attempts, retryAfter, window-elapsed, jitter())
			if delay < 900*time.Millisecond || delay < retryAfter || delay > max(66*time.Second, retryAfter) {
				t.Fatalf("attempt %d: delay %s after Retry-After %s", attempts, delay, retryAfter)
			}
			if ok != (elapsed+delay <= window) {
				t.Fatalf("attempt %d: %s of %s are over, delay %s: got %t", attempts, elapsed, window, delay, ok)
			}
			if !ok {
				break
			}
			elapsed += delay
		}
		// The table takes 233 s for its first 9 delays, less a tenth, then a minute each.
		if most := 11 + int(window/(54*time.Second)); attempts > most {
			t.Fatalf("%d attempts in %s, want at most %d", attempts, window, most)
		}
	})
}

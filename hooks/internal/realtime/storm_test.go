package realtime

import (
	"testing"
	"time"
)

// Those who come together are given turns one after the other, nobody is kept beyond the
// longest, and when the storm is over nobody waits.
func TestTurns(t *testing.T) {
	t.Parallel()
	_, f := newTwo(t)
	began, waited := time.Now(), 0
	var before, longest time.Duration
	for i := range 5000 {
		wait := f.turn()
		if i < comeAtOnce && wait > 0 {
			t.Fatalf("stream %d, which is one of the first, waits %s", i, wait)
		}
		if at := time.Since(began) + wait; wait > 0 {
			waited++
			if at < before {
				t.Fatalf("stream %d has its turn after %s, and the one before it after %s", i, at, before)
			}
			before = at
		}
		longest = max(longest, wait)
	}
	took := time.Since(began)
	if want := 4000 - int(took/comeEvery); waited < want {
		t.Errorf("of 5000 that came within %s, %d wait, want at least %d", took, waited, want)
	}
	if want := 5000 * comeEvery; longest > want {
		t.Errorf("one waits %s, want at most %s", longest, want)
	}

	for range 50_000 {
		if wait := f.turn(); wait > maxTurn {
			t.Fatalf("one waits %s, want at most %s", wait, maxTurn)
		}
	}
	f.nextTurn = f.nextTurn.Add(-maxTurn - 5*time.Second) // as if that time had passed
	if wait := f.turn(); wait > 0 {
		t.Errorf("one waits %s after the storm", wait)
	}
}

package tests

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What waits for a store that is away is bounded, however long that takes.
func TestReplicaBoundsWhatWaitsOnceOnly(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, _ := startShipping(t, store, "First")
	store.set(storeCuts)
	for _, time := range []string{"first", "second", "third"} {
		s.sendTitled("While the store is away, " + time)
		if !givenUp(t, s.Dir) {
			t.Fatalf("the %s gigabyte that waits is not given up within 30 seconds", time)
		}
	}
}

// givenUp lets a gigabyte wait, a sparse one, and reports whether it goes.
func givenUp(t testing.TB, dir string) bool {
	t.Helper()
	large := filepath.Join(dir, ".replica/ltx/0/large")
	await(t, "there is a place", func() bool {
		file, err := os.Create(large)
		if err != nil {
			return false
		}
		defer file.Close()
		return file.Truncate(1<<30+1) == nil
	})
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(large); errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

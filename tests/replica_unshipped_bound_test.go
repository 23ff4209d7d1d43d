package tests

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
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

// A backup that cannot be restored lets nobody forget that what waited for the store was given up.
func TestReplicaBackupFailsAfterWhatWaitsIsGivenUp(t *testing.T) {
	t.Parallel()
	store := newBucketStore(t)
	s, token := startShipping(t, store, numbered("Shipped", 3)...)
	store.set(storeCuts)
	s.sendTitled("While the store is away")
	if !givenUp(t, s.Dir) {
		t.Fatal("what waits is not given up within 30 seconds")
	}
	backup := filepath.Join(s.Dir, "backups", "damaged.zip")
	if err := os.MkdirAll(filepath.Dir(backup), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(backup, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	logged := func() int {
		var logs struct{ TotalItems int }
		s.API(token, http.MethodGet, "/api/logs?filter="+url.QueryEscape(`message = "Failed to restore backup"`), nil, &logs)
		return logs.TotalItems
	}
	s.API(token, http.MethodPost, "/api/backups/damaged.zip/restore", nil, nil)
	await(t, "it cannot be restored", func() bool { return logged() > 0 })
	store.set(storeIsWell)
	s.awaitShipped(token) // it would have ended
	if state := s.replicaState(token); state.Epoch != 2 {
		t.Errorf("got %+v, want epoch 2", state)
	}
}

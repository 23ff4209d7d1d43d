package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// A machine that dies while it puts its database aside for its successor's parts no database from its
// WAL: what only that has is whole, in one place.
func TestReplicaDiesWhilePuttingAside(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"data.db-wal", "data.db", ".replica/restored.db"} { // which it moves when it dies
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newBucketStore(t)
			only := numbered("Only here", 3)
			old, _ := startShipping(t, store, "Before")
			store.set(storeCuts)
			old.sendTitled(only...)
			old.Kill()
			store.set(storeIsWell)
			next := old.another(newDataDir(t, t.TempDir()))
			next.args = []string{"--takeover"}
			next.Start()
			next.sendTitled("After")
			next.Stop()

			dying := exec.Command("strace", "-f", "-o", os.DevNull, "-P", filepath.Join(old.Dir, name),
				"-e", "trace=/^rename", "-e", "inject=/^rename:signal=KILL",
				old.binary, "serve", "--dev=false", "--dir", old.Dir, "--http", "127.0.0.1:0")
			dying.Env = old.env
			said, _ := dying.CombinedOutput()
			if dying.ProcessState.Exited() {
				t.Fatalf("it was not killed: %s", said)
			}
			left := t.TempDir()
			if err := os.CopyFS(left, os.DirFS(old.Dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(left, "data.db")); err == nil {
				if n := countRows(t, openDatabase(t, left), "aiContent WHERE title LIKE 'Only here%'"); n != len(only) {
					t.Errorf("where it was: got %d of %d records", n, len(only))
				}
			}

			old.Start()
			old.wantTitles([]string{"Before", "After"}, only...)
			if !slices.ContainsFunc(old.asideDirs(), func(dir string) bool {
				_, err := os.Stat(filepath.Join(dir, "data.db"))
				return err == nil && countRows(t, openDatabase(t, dir), "aiContent WHERE title LIKE 'Only here%'") == len(only)
			}) {
				t.Errorf("no database that was put aside has the records: %s%s", said, old.output)
			}
		})
	}
}

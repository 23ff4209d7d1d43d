package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What root restores belongs to whom the directory does: a server that runs as that reads and writes it.
func TestRestoreAsRootKeepsTheOwner(t *testing.T) {
	t.Parallel()
	const owner = 65532
	store := newFolderStore(t)
	s, _ := startShipping(t, store, "First")
	s.Stop()
	into, replica := t.TempDir(), strings.TrimPrefix(store.env[0], "REPLICA_URL=file://")
	for _, dir := range []string{s.Dir, into, replica} {
		if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return os.Chown(path, owner, owner)
		}); err != nil {
			t.Fatal("this test needs root, who gives files away: ", err)
		}
	}
	for _, args := range [][]string{{"restore", "--verify"}, {"restore"}, {"restore", "--into", into}} {
		if out, errs, ok := runOn(t, s.binary, s.Dir, s.env, args...); !ok {
			t.Fatalf("%v: %s%s", args, out, errs)
		}
	}
	if len(s.asideDirs()) != 1 {
		t.Errorf("put aside: got %v", s.asideDirs())
	}
	for _, dir := range []string{s.Dir, into, replica} {
		if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil && info.Sys().(*syscall.Stat_t).Uid != owner {
				t.Errorf("%s belongs to another", path)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
}

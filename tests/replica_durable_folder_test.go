package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is acknowledged as shipped to a folder outlives a power failure there: each new directory is synced
// into the one that it is in.
func TestReplicaFolderIsDurable(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	folder := filepath.Join(base, "some", "folder")
	if err := os.WriteFile(filepath.Join(base, "some"), nil, 0o600); err != nil { // which keeps it from being made yet
		t.Fatal(err)
	}
	s := startServer(t, newDataDir(t, t.TempDir()))
	token := s.Superuser()
	s.Stop()
	s.env = append(s.env, "REPLICA_URL=file://"+folder)
	s.Start()
	log := filepath.Join(t.TempDir(), "log")
	stop := s.strace("-y", "-e", "trace=fsync", "-o", log)
	defer stop()
	if err := os.Remove(filepath.Join(base, "some")); err != nil {
		t.Fatal(err)
	}
	s.awaitShipped(token)
	stop()
	said, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{base, filepath.Dir(folder), folder, filepath.Join(folder, "epochs"), filepath.Join(folder, "0000000001"), filepath.Join(folder, "0000000001/0")} {
		if !strings.Contains(string(said), "<"+dir+">") {
			t.Errorf("%s is not synced", dir)
		}
	}
}

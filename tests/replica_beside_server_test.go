package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// "restore" replaces no database under a server, one that runs without REPLICA_URL either: that
// would go on in the file that was moved away.
func TestRestoreUnderARunningServer(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, _ := startShipping(t, store, "First")
	s.Stop()
	other := s.another(newDataDir(t, t.TempDir())) // a new machine, on which REPLICA_URL was forgotten
	other.env = append(other.env, "REPLICA_URL=")
	other.Start()
	out, errs, ok := runOn(t, s.binary, other.Dir, s.env, "restore")
	if ok || !strings.Contains(errs, "a server runs on "+other.Dir) {
		t.Errorf("it restored under a server: %s%s", out, errs)
	}
	other.sendTitled("Acknowledged")
	other.Restart()
	other.wantTitles([]string{"Acknowledged"})
}

// Nor is the data directory another one by the name of a link.
func TestRestoreIntoALinkToTheDataDirectory(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, _ := startShipping(t, store, "First")
	s.Stop()
	link := filepath.Join(t.TempDir(), "link")
	other := s.another(newDataDir(t, t.TempDir()))
	for _, err := range []error{os.MkdirAll(other.Dir, 0o700), os.Symlink(other.Dir, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out, errs, ok := runOn(t, s.binary, other.Dir, s.env, "restore", "--into", link)
	if !ok {
		t.Fatalf("restore: %s%s", out, errs)
	}
	other.Start()
	other.wantTitles([]string{"First"})
}

// A command that runs before the first start, as a container's entrypoint does, keeps no machine
// from restoring itself.
func TestReplicaAndACommandBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	s, _ := startShipping(t, store, "First")
	s.Stop()
	for _, command := range [][]string{{"superuser", "upsert", "a@example.com", "1234567890"}, {"modelriver", "status"}, {"modelriver", "doctor"}} {
		next := s.another(newDataDir(t, t.TempDir()))
		next.runCommand(command...)
		next.args = []string{"--takeover"}
		next.launch()
		await(t, "it serves or ends", func() bool {
			select {
			case <-next.exited:
				t.Errorf("after %v, an empty machine does not restore itself: %s", command, next.output)
				return true
			default:
				return next.Send(payload("c", "Second", "")) == 200
			}
		})
		next.Kill()
	}
}

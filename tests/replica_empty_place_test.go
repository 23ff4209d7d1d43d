package tests

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What the refusal of a start advises, "to ship the one that is here, set REPLICA_URL to an empty
// place", ships all of it, also when the server is older than five minutes and the first local files
// are gone.
func TestReplicaInAnEmptyPlaceAfterFiveMinutes(t *testing.T) {
	t.Parallel()
	s := startServer(t, newDataDir(t, t.TempDir()), append(newFolderStore(t).env, "REPLICA_ACK=wait")...)
	s.sendTitled(numbered("Before", 5)...)
	s.Stop()
	// What keeper.forgetSeconds leaves: the newest only.
	files, err := filepath.Glob(filepath.Join(s.Dir, ".replica/ltx/0/*.ltx"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files[:len(files)-1] {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s.env = append(s.env, newFolderStore(t).env...)
	s.Start()
	status := 0
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && status != 200; time.Sleep(time.Second) {
		status = s.Send(payload("channel-after", "After", ""))
	}
	if status != 200 {
		state, _ := os.ReadFile(filepath.Join(s.Dir, ".replica/state.json"))
		t.Errorf("webhook: got %d for 20 seconds: %s", status, state)
	}
}

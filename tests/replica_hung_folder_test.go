package tests

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A folder of another machine that hangs, as a hard NFS mount does, keeps no server from serving and
// from ending. A named pipe hangs as well.
func TestReplicaFolderHangs(t *testing.T) {
	t.Parallel()
	store := newFolderStore(t)
	folder := strings.TrimPrefix(store.env[0], "REPLICA_URL=file://")
	s, _ := startShipping(t, store, "First")
	hang := func(name string) (mend func()) {
		path := filepath.Join(folder, name)
		_ = os.Rename(path, path+".away")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return func() { os.Remove(path); os.Rename(path+".away", path) }
	}
	mend := hang("epochs/0000000002.json")
	s.sendTitled("Second")
	time.Sleep(2 * time.Second)
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		t.Error("the server does not end within 20 seconds of SIGTERM")
		s.Kill()
	}
	wantText(t, s.output.String(), "the last changes are not shipped yet")
	mend()
	mend = hang("replica.json")
	defer mend()
	s.launch()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("the server does not serve within 30 seconds: %s", s.output)
		}
		if s.Send(payload("c", "Third", "")) == 200 {
			return
		}
	}
}

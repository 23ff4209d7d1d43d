package tests

import (
	"testing"
	"time"
)

// A server that has nothing to write notices all the same that another one took the replica over.
func TestReplicaIdleOwnerAcknowledgesAfterATakeover(t *testing.T) {
	t.Parallel()
	s, _ := startShipping(t, newFolderStore(t), "First")
	time.Sleep(3 * time.Second)
	next := s.another(newDataDir(t, t.TempDir()))
	next.args = []string{"--takeover"}
	next.Start()
	next.sendTitled("Of the successor")
	select {
	case <-s.exited:
		return
	case <-time.After(25 * time.Second):
		t.Error("the server before does not notice within 25 seconds: the documentation says a second")
	}
	if status := s.Send(payload("late", "Late", "")); status != 200 {
		return
	}
	<-s.exited
	next.wantTitles([]string{"Late"})
}

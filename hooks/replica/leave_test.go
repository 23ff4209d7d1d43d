package replica

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A database whose log is ended is one without, with all that it had; what the log was is kept. A leave that was cut off is done again.
func TestLeave(t *testing.T) {
	t.Parallel()
	p := newStreamPair(t)
	db := p.open(t)
	mustExec(t, db, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	if _, err := Leave(p.path); err == nil || !strings.Contains(err.Error(), "the node runs: stop it first") {
		t.Errorf("beside the node: %v", err)
	}
	db.Close()
	if err := p.leader.Close(); err != nil {
		t.Fatal(err)
	}

	other, err := newApplier(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Leave(p.path); err == nil || !strings.Contains(err.Error(), "stop what else has it open") {
		t.Errorf("beside another process: %v", err)
	}
	if err := other.close(); err != nil {
		t.Fatal(err)
	}

	condemned := condemnedPath(p.path)
	if err := os.WriteFile(condemned, []byte("a row differs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Leave(p.path); err == nil || !strings.Contains(err.Error(), "(a row differs)") || !strings.Contains(err.Error(), "deleting "+condemned) {
		t.Errorf("of a database that differs: %v", err)
	}
	if err := os.Remove(condemned); err != nil {
		t.Fatal(err)
	}

	before := filepath.Join(t.TempDir(), "data.db")
	copyFile(t, p.path, before, 1)
	aside, err := Leave(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if !hasBegun(filepath.Join(aside, "data.db"+logSuffix)) {
		t.Errorf("%s hasn't the log", aside)
	}
	copyFile(t, before, p.path, 1) // as if the process had ended before the table was dropped
	if aside, err = Leave(p.path); err != nil || aside != "" {
		t.Errorf("again: %q, %v", aside, err)
	}
	if at, err := standingOf(p.path); err != nil || at.log != "" || at.empty {
		t.Errorf("got %+v, %v", at, err)
	}
	a, err := newApplier(p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	var rows int
	if err := a.conn.QueryRowContext(context.Background(), "SELECT count(*) FROM a").Scan(&rows); err != nil || rows != 1 {
		t.Errorf("rows: %d, %v", rows, err)
	}
}

// Who is behind is who isn't known to be up to date, whatever name the log's servers have for them.
func TestBehind(t *testing.T) {
	t.Parallel()
	config := Config{Node: "a", Peers: map[string]string{"a": "", "b": "", "c": ""}}
	current := &jetstream.PeerInfo{Name: "b", Current: true}
	for _, row := range []struct {
		name, want string
		replica    *jetstream.PeerInfo
	}{
		{"all of it", "", &jetstream.PeerInfo{Name: "c", Current: true}},
		{"not all of it", "c", &jetstream.PeerInfo{Name: "c"}},
		{"away", "c", &jetstream.PeerInfo{Name: "c", Current: true, Offline: true}},
		{"not heard of lately", "c", &jetstream.PeerInfo{Name: "c", Current: true, Active: time.Minute}},
		{"away since the servers started", "c", &jetstream.PeerInfo{Name: "Server name unknown at this time (peerID: 0ZkM0vRC)"}},
	} {
		if got := strings.Join(config.behind([]*jetstream.PeerInfo{current, row.replica}), ","); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

// Nodes that don't serve yet aren't well: who upgrades one after the other waits for that.
func TestStatusOfNodesThatStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2) // without an app
	c.insert(t, "a")
	var out strings.Builder
	if err := c.configs[0].status(&out); err == nil || strings.Count(out.String(), "\tstarts\n") != 3 {
		t.Errorf("got %v, %q", err, out.String())
	}
}

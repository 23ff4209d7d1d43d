package replica

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A node that believes that it leads, while another one does, changes nothing.
func TestNodeThatLedIsFenced(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	leader := c.leader(t)
	_, believes := others(leader)
	// It has not applied what the leader wrote since.
	c.nodes[believes].mu.Lock()
	c.insert(t, "since")
	c.nodes[believes].ready.Store(true)
	_, err := c.dbs[believes].Exec("INSERT INTO a VALUES ('fenced')")
	c.nodes[believes].mu.Unlock()
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errBehind) {
		t.Errorf("got %v", err)
	}
	c.same(t)
	if got := fmt.Sprint(query(t, c.dbs[believes], "SELECT b FROM a")); got != "[before since]" {
		t.Errorf("got %s", got)
	}
}

// A leader whose answer is lost steps down, and finds out what the log has.
func TestLeaderWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	leader := c.nodes[c.leader(t)]
	take := leader.append
	var lost atomic.Bool
	leader.append = func(after uint64, entry []byte) error {
		err := take(after, entry)
		if lost.CompareAndSwap(false, true) {
			return errors.Join(err, errors.New("the answer is lost"))
		}
		return err
	}
	if _, err := c.dbs[c.leader(t)].Exec("INSERT INTO a VALUES ('lost')"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	c.insert(t, "after")
	c.same(t)
	if got := fmt.Sprint(query(t, c.dbs[0], "SELECT b FROM a")); got != "[lost after]" {
		t.Errorf("got %s", got)
	}
}

// What a node was told while it could not apply it, and was too much to keep, it reads from the log.
func TestNodeIsToldTooMuch(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	var apps [3]*loggingApp
	c.prepare = func(i int, node *Node) {
		apps[i] = newLoggingApp(node, "secret")
	}
	c.start(t, 0, 1, 2)
	slow, _ := others(c.leader(t))
	c.nodes[slow].mu.Lock() // as while entries are applied
	unlock := sync.OnceFunc(c.nodes[slow].mu.Unlock)
	defer unlock()
	apptest.Eventually(t, "what the node is told is lost", func() bool {
		c.insert(t, "lost")
		return strings.Contains(apps[slow].log.String(), nats.ErrSlowConsumer.Error())
	})
	unlock()
	c.same(t)
}

// makeLead has a node lead.
func (c *cluster) makeLead(t testing.TB, i int) {
	t.Helper()
	apptest.Eventually(t, "the node leads", func() bool {
		if c.leader(t) != i {
			c.giveWay(t, i)
		}
		return c.nodes[i].Leads()
	})
}

// A node that led, and changed a table meanwhile, knows its columns when it follows again.
func TestNodeThatLedKnowsTheSchema(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b, c, d)")
	c.start(t, 0, 1, 2)
	insert := func() {
		c.exec(t, "INSERT INTO a (b, c, d) VALUES ('b', 'c', 'd')")
		c.same(t)
	}
	c.makeLead(t, 0)
	insert()
	c.makeLead(t, 1)
	mustExec(t, c.dbs[1], "ALTER TABLE a DROP COLUMN c", "ALTER TABLE a ADD COLUMN c")
	c.same(t)
	c.makeLead(t, 0)
	insert()
	if got := query(t, c.dbs[1], "SELECT b, d, c FROM a"); fmt.Sprint(got) != "[b|d|<nil> b|d|c]" {
		t.Errorf("got %s", got)
	}
}

// A log that is full has no room for who begins to lead either.
func TestFullLogIsCutOffAfterAnElection(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.max = 2 << 20
	c.start(t, 0, 1, 2)
	var blocked []string
	for i := range 3 { // no snapshot can be made after the first
		if err := c.nodes[i].Snapshot(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(temporary(snapshotDir(c.paths[i])), "in the way")
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		blocked = append(blocked, filepath.Dir(path))
	}
	for _, size := range []int{100_000, 10_000, 1000, 1} { // until nothing goes in
		apptest.Eventually(t, "the log is full", func() bool {
			_, err := c.dbs[c.leader(t)].Exec("INSERT INTO a VALUES (randomblob(?))", size)
			return errors.Is(err, errFull)
		})
	}
	c.same(t)
	for _, path := range blocked { // and none is tried for a minute where one failed
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	leader := c.leader(t)
	c.stop(t, leader)
	c.start(t, leader)
	c.insert(t, "after")
	c.same(t)
}

// A node that leads without the others, whose marker may get into the log later, waits between its attempts.
func TestLeaderWithoutTheOthersWaits(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	leader := c.leader(t)
	a, b := others(leader)
	began := time.Now()
	var attempts atomic.Int64
	take := c.nodes[leader].append
	c.nodes[leader].append = func(after uint64, entry []byte) error {
		attempts.Add(1)
		return take(after, entry)
	}
	c.stop(t, a)
	c.stop(t, b)
	apptest.Eventually(t, "its server leads no more", func() bool { return !c.nodes[leader].log.leads() })
	if n, most := attempts.Load(), int64(time.Since(began)/lookPause); n > most {
		t.Errorf("%d attempts, and %d pauses have passed at most", n, most)
	}
}

// A node whose log's server fails while it waits for the others, begins all the same.
func TestLogFailsWhileANodeWaits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	node, err := Open(c.configs[0])
	if err != nil {
		t.Fatal(err)
	}
	second, third := c.answer(t, 1), c.answer(t, 2)
	var opening sync.WaitGroup
	opening.Go(func() {
		if err := node.open(c.paths[0]); err != nil {
			t.Error(err)
		}
	})
	apptest.Eventually(t, "the log's server runs", node.log.works)
	node.log.mu.Lock()
	err = node.log.server.DisableJetStream() // as on a full disk
	node.log.mu.Unlock()
	if err != nil {
		t.Error(err)
	}
	if err := errors.Join(second.shutAll(), third.shutAll()); err != nil {
		t.Fatal(err)
	}
	c.open(t, 1, 2)
	opening.Wait()
	c.nodes[0], c.dbs[0] = node, newDB(node, c.paths[0])
	c.insert(t, "after")
	c.same(t)
}

// A node that has much to apply stops before it has done so.
func TestCloseDoesNotWaitForWhatIsApplied(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	node := c.nodes[0]
	node.mu.Lock() // as while entries are applied
	unlock := sync.OnceFunc(node.mu.Unlock)
	defer unlock()
	ended := make(chan error)
	go func() { ended <- node.Close() }()
	apptest.Eventually(t, "the node is told to end", func() bool {
		select {
		case <-node.closed:
			return true
		default:
			return false
		}
	})
	unlock()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Another node leads while the database of the one that should can't be written to.
func TestNodeThatCannotWriteLetsAnotherOneLead(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	locked, _ := others(c.leader(t))
	db, err := sql.Open("sqlite", c.paths[locked])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	mustExec(t, db, "BEGIN IMMEDIATE")
	c.giveWay(t, locked)
	c.insert(t, "after")
	db.Close()
	c.same(t)
}

// giveWay has the node that leads give way to another one, which may not be able to.
func (c *cluster) giveWay(t testing.TB, to int) {
	t.Helper()
	leader := c.nodes[c.leader(t)]
	leader.log.mu.Lock()
	_, err := leader.log.conn.Request(fmt.Sprintf(server.JSApiStreamLeaderStepDownT, streamName), fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, c.configs[to].Node), logTimeout)
	leader.log.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	apptest.Eventually(t, "the node that led has noticed", func() bool { return !leader.Leads() })
}

// Another node leads while the app of the one that should doesn't take what the log has.
func TestNodeWhoseAppFailsLetsAnotherOneLead(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	apps, clients := c.apps(t)
	leader := c.leader(t)
	failing, other := others(leader)
	apps[failing].OnSettingsReload().BindFunc(func(*core.SettingsReloadEvent) error { return errors.New("it fails") })
	clients[leader].call(t, "PATCH", "/api/settings", `{"meta":{"appName":"new"}}`)
	c.same(t)
	c.giveWay(t, failing)
	apptest.Eventually(t, "another node leads", func() bool {
		return clients[other].status(t, "PATCH", "/api/settings", `{"meta":{"appName":"newer"}}`) == http.StatusOK
	})
}

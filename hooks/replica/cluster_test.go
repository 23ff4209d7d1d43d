package replica

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A cluster is three nodes that run in one process.
type cluster struct {
	configs [3]Config
	paths   [3]string
	nodes   [3]*Node
	dbs     [3]*sql.DB
	ran     [3]*[]string // the jobs of apps
	max     int64        // bytes of the log, if not as usual
	readers pair         // which dumps

	register func(core.App, *Node)   // what else apps have
	prepare  func(i int, node *Node) // before a node without an app opens its database

	standing atomic.Bool // one of their apps has a request that it doesn't answer
}

// newCluster returns nodes that start with copies of a database that was seeded.
func newCluster(t testing.TB, statements ...string) *cluster {
	t.Helper()
	c := &cluster{readers: pair{readers: map[string]*sql.DB{}, rows: map[string]string{}}}
	dir := t.TempDir()
	peers, names := map[string]string{}, []string{"n1", "n2", "n3"}
	for _, name := range names {
		peers[name] = freePorts(t)
	}
	if err := WriteCerts(filepath.Join(dir, "certs"), names...); err != nil {
		t.Fatal(err)
	}
	seeded := filepath.Join(dir, "data.db")
	if len(statements) > 0 {
		edit(t, seeded, statements...)
	}
	if err := Seed(seeded); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		c.configs[i] = Config{Node: name, Peers: peers, Certs: filepath.Join(dir, "certs", name)}
		c.paths[i] = filepath.Join(dir, name, "data.db")
		if err := os.Mkdir(filepath.Dir(c.paths[i]), 0o700); err != nil {
			t.Fatal(err)
		}
		copyFile(t, seeded, c.paths[i], 1)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(t, i)
		}
	})
	return c
}

// startCluster returns nodes that run, with a table a that has a row "before" on each.
func startCluster(t testing.TB) *cluster {
	t.Helper()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
	return c
}

// openLog has a log's server run for a database that nobody opens.
func openLog(t *testing.T, l *streamLog, path string) {
	t.Helper()
	at, err := standingOf(path)
	if err == nil {
		err = l.hold(path+logSuffix, at)
	}
	if err == nil {
		err = l.open(at.log)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lastPort is the last port that freePorts gave.
var lastPort atomic.Int32

func init() { lastPort.Store(int32(24000 + os.Getpid()%3000*2)) }

// freePorts returns an address whose port and the next one nobody has. They are given once, and they lie below those that are
// given to connections, so that nobody takes them meanwhile.
func freePorts(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := lastPort.Add(2)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if a, err := net.Listen("tcp", address); err == nil {
			a.Close()
			if b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1)); err == nil {
				b.Close()
				return address
			}
		}
	}
	t.Fatal("no free ports")
	return ""
}

// start starts nodes, and waits until one leads.
func (c *cluster) start(t testing.TB, which ...int) {
	t.Helper()
	c.open(t, which...)
	c.leader(t)
}

func (c *cluster) open(t testing.TB, which ...int) {
	t.Helper()
	var all sync.WaitGroup
	for _, i := range which {
		all.Go(func() {
			node, err := Open(c.configs[i])
			if err != nil {
				t.Error(err)
				return
			}
			node.log.max = cmp.Or(c.max, node.log.max)
			if c.prepare != nil {
				c.prepare(i, node)
			}
			if err := node.open(c.paths[i]); err != nil { // PocketBase would wait until it is migrated
				t.Error(err)
				return
			}
			c.nodes[i], c.dbs[i] = node, newDB(node, c.paths[i])
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func (c *cluster) stop(t testing.TB, i int) {
	t.Helper()
	if c.nodes[i] == nil {
		return
	}
	c.dbs[i].Close()
	if err := c.nodes[i].Close(); err != nil {
		t.Error(err)
	}
	c.nodes[i] = nil
	if reader := c.readers.readers[c.paths[i]]; reader != nil { // of a file that may be replaced
		reader.Close()
		delete(c.readers.readers, c.paths[i])
	}
}

// leader waits until a node leads, and returns which.
func (c *cluster) leader(t testing.TB) (leader int) {
	t.Helper()
	apptest.Eventually(t, "a node leads", func() bool {
		for i, n := range c.nodes {
			if n != nil && n.Leads() {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// same waits until all nodes that run are where the leader is, and fails unless they are the same.
func (c *cluster) same(t testing.TB) {
	t.Helper()
	var dumps [3][]string
	apptest.Eventually(t, "all nodes are at one position", func() bool {
		before := c.positions(t)
		if before[0] != before[len(before)-1] {
			return false // and one may change its schema right now
		}
		for i, n := range c.nodes {
			if n != nil {
				dumps[i] = c.readers.dump(t, c.paths[i])
			}
		}
		return slices.Equal(before, c.positions(t))
	})
	for i, n := range c.nodes {
		if leader := c.leader(t); n != nil {
			mustEqual(t, dumps[leader], dumps[i])
		}
	}
}

// positions returns those of all nodes that run, the lowest first.
func (c *cluster) positions(t testing.TB) (all []uint64) {
	t.Helper()
	for _, n := range c.nodes {
		if n != nil {
			position, err := n.position()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, position)
		}
	}
	slices.Sort(all)
	return all
}

// newClusterPair returns the node of a cluster that leads, and the others.
func newClusterPair(t testing.TB) *pair {
	t.Helper()
	c := newCluster(t)
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	return &pair{cluster: c, leader: c.nodes[leader], path: c.paths[leader], readers: c.readers.readers, rows: c.readers.rows}
}

// others returns the nodes but one.
func others(i int) (a, b int) { return (i + 1) % 3, (i + 2) % 3 }

// insert is exec of one row.
func (c *cluster) insert(t testing.TB, value string) {
	t.Helper()
	c.exec(t, "INSERT INTO a VALUES (?)", value)
}

// exec writes to the node that leads, as often as another one has to.
func (c *cluster) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	apptest.Eventually(t, "a node takes a write", func() bool {
		_, err := c.dbs[c.leader(t)].Exec(statement, args...)
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// What is written on the node that leads is on all of them, and the others take nothing.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	c.start(t, 0, 1, 2)
	for i := range 100 {
		c.insert(t, fmt.Sprint(i))
	}
	c.exec(t, "CREATE TABLE IF NOT EXISTS c (d)")
	c.exec(t, "INSERT INTO c VALUES (randomblob(?))", 10*maxMessage)
	c.same(t)
	a, b := others(c.leader(t))
	for _, i := range []int{a, b} {
		if _, err := c.dbs[i].Exec("INSERT INTO a VALUES (1)"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if got := query(t, c.dbs[i], "SELECT count(*) FROM a"); got[0] != "101" {
			t.Errorf("got %s rows", got)
		}
	}
	c.same(t)
}

// Whichever node stops, another one leads, and it comes back to what was written meanwhile.
func TestClusterGoesOnWithoutOne(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	for i := range 4 {
		stopped := c.leader(t)
		if i == 3 {
			stopped, _ = others(stopped)
		}
		c.stop(t, stopped)
		c.insert(t, fmt.Sprint("without one, ", i))
		c.same(t)
		c.start(t, stopped)
		c.insert(t, fmt.Sprint("with all, ", i))
		c.same(t)
	}
	for i := range 3 {
		c.stop(t, i)
	}
	c.start(t, 0, 1, 2)
	c.insert(t, "again")
	c.same(t)
	if got := query(t, c.dbs[0], "SELECT count(DISTINCT b) FROM a"); got[0] != "9" {
		t.Errorf("got %s", got)
	}
}

// One node of three takes nothing, and is read from.
func TestMostOfTheNodesAreGone(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	left := c.leader(t)
	a, b := others(left)
	c.stop(t, a)
	c.stop(t, b)
	apptest.Eventually(t, "it leads no more", func() bool {
		_, err := c.dbs[left].Exec("INSERT INTO a VALUES ('alone')")
		return errors.Is(err, ErrUnavailable) && !c.nodes[left].Leads()
	})
	if got := query(t, c.dbs[left], "SELECT count(*) FROM a WHERE b = 'before'"); got[0] != "1" {
		t.Errorf("got %s", got)
	}
	c.start(t, a, b)
	c.insert(t, "after")
	c.same(t)
}

// A database that somebody has edited is replaced, on the node that leads and on another one.
func TestClusterFindsAnEditedDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "INSERT INTO a VALUES ('one')")
	c.start(t, 0, 1, 2)
	for i := range 2 {
		edited := c.leader(t)
		if i == 1 {
			edited, _ = others(edited)
		}
		c.insert(t, "two")
		c.same(t)
		c.edit(t, edited, "UPDATE a SET b = 'edited' WHERE b = 'one'")
		if err := c.nodes[edited].Snapshot(); err != nil {
			t.Fatal(err)
		}
		if !c.nodes[edited].condemned.Load() {
			t.Fatal("it isn't found out")
		}
		c.insert(t, "by another one")
		c.stop(t, edited)
		c.start(t, edited)
		c.same(t)
		if got := query(t, c.dbs[edited], "SELECT count(*) FROM a WHERE b = 'edited'"); got[0] != "0" {
			t.Errorf("got %s", got)
		}
	}
}

// edit changes the database of a node that runs, past the log.
func (c *cluster) edit(t *testing.T, i int, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", c.paths[i]+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mustExec(t, db, statement)
}

// What all nodes have in snapshots is cut off of the log, and nothing before all have told so.
func TestClusterCutsOffTheLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	first := func() uint64 {
		state, err := c.nodes[c.leader(t)].log.state()
		if err != nil {
			t.Fatal(err)
		}
		return state.FirstSeq
	}
	snapshots := func(nodes ...int) {
		for _, i := range nodes {
			for range 2 {
				c.insert(t, "more")
				c.same(t)
				if err := c.nodes[i].Snapshot(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	leader := c.leader(t)
	a, b := others(leader)
	snapshots(leader, a)
	if got := first(); got != 1 {
		t.Errorf("the log begins with %d, and a node has told nothing", got)
	}
	snapshots(b)
	lowest := min(c.nodes[leader].keeps.Load(), c.nodes[a].keeps.Load(), c.nodes[b].keeps.Load())
	apptest.Eventually(t, "the log is cut off", func() bool { return first() == lowest })
	c.stop(t, b)
	remove(t, c.paths[b])
	c.start(t, b)
	c.same(t)
}

// The log that an earlier program has made is read from the node that leads only, as one that is made today.
func TestClusterWithTheLogOfAnEarlierProgram(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	direct := func(i int) bool {
		info, err := c.nodes[i].log.info()
		return err != nil || info.Config.AllowDirect
	}
	leader := c.leader(t)
	info, err := c.nodes[leader].log.info()
	if err != nil {
		t.Fatal(err)
	}
	info.Config.AllowDirect = true
	if _, err := c.nodes[leader].log.js.UpdateStream(t.Context(), info.Config); err != nil {
		t.Fatal(err)
	}
	if !direct(leader) {
		t.Fatal("the log isn't as it was made")
	}
	c.insert(t, "before")
	c.same(t)
	a, b := others(leader)
	c.stop(t, a)
	c.start(t, a)
	for _, i := range []int{a, b, leader} {
		apptest.Eventually(t, "it knows", func() bool { return !direct(i) })
	}
	c.insert(t, "after")
	c.same(t)
}

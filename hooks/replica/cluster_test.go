package replica

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A cluster is three nodes that run in one process.
type cluster struct {
	configs [3]Config
	paths   [3]string
	nodes   [3]*Node
	dbs     [3]*sql.DB
	readers pair // which dumps
}

// newCluster returns nodes that start with copies of a database that was seeded.
func newCluster(t testing.TB, statements ...string) *cluster {
	t.Helper()
	c := &cluster{readers: pair{readers: map[string]*sql.DB{}, rows: map[string]string{}}}
	dir := t.TempDir()
	peers, names := map[string]string{}, []string{"n1", "n2", "n3"}
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		peers[name] = listener.Addr().String()
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

// start starts nodes, and waits until one leads.
func (c *cluster) start(t testing.TB, which ...int) {
	t.Helper()
	var all sync.WaitGroup
	for _, i := range which {
		all.Go(func() {
			node, err := Open(c.configs[i])
			if err != nil {
				t.Error(err)
				return
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
	c.leader(t)
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
	leader := c.leader(t)
	want, err := c.nodes[leader].Position()
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range c.nodes {
		if n == nil {
			continue
		}
		apptest.Eventually(t, fmt.Sprintf("node %d is at %d", i+1, want), func() bool {
			got, err := n.Position()
			return err == nil && got >= want
		})
		mustEqual(t, c.readers.dump(t, c.paths[leader]), c.readers.dump(t, c.paths[i]))
	}
}

// What is written on the node that leads is on all of them.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	c.start(t, 0, 1, 2)
	db := c.dbs[c.leader(t)]
	for i := range 100 {
		mustExec(t, db, fmt.Sprintf("INSERT INTO a VALUES (%d)", i))
	}
	mustExec(t, db, "CREATE TABLE c (d)", fmt.Sprintf("INSERT INTO c VALUES (randomblob(%d))", 10*maxMessage))
	c.same(t)
}

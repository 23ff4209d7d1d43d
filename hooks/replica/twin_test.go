package replica

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// moved returns what a node's configuration is where a node has another address.
func (c Config) moved(name, address string) Config {
	c.Peers = maps.Clone(c.Peers)
	c.Peers[name], c.Listen = address, ""
	return c
}

// routes returns the names of the nodes whose logs' servers a node is connected to.
func (c *cluster) routes(t *testing.T, i int) (names []string) {
	t.Helper()
	routes, err := c.nodes[i].log.server.Routez(nil)
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]string{}
	for _, r := range routes.Routes {
		servers[r.RemoteID] = r.RemoteName
	}
	return slices.Sorted(maps.Values(servers))
}

// mustHaveOne waits until each node is connected to one other of each name, and all are the same.
func (c *cluster) mustHaveOne(t *testing.T) {
	t.Helper()
	for i, want := range []string{"[n2 n3]", "[n1 n3]", "[n1 n2]"} {
		apptest.Eventually(t, fmt.Sprintf("n%d is connected to %s", i+1, want), func() bool { return fmt.Sprint(c.routes(t, i)) == want })
	}
	c.same(t)
}

// A machine that was replaced, and is switched on again as it was, doesn't become the node that another one is: it doesn't start, and had
// it known of nobody then, the others don't take it in. It stays so, also when the other one is off.
func TestMachineThatWasReplacedComesBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	var apps [3]*loggingApp
	c.prepare = func(i int, node *Node) { apps[i] = newLoggingApp(node, "HOME") }
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
	for i := range 3 {
		c.stop(t, i)
	}
	old, oldPath, address := c.configs[1], c.paths[1], freePorts(t)
	for i := range c.configs {
		c.configs[i] = c.configs[i].moved("n2", address)
	}
	c.paths[1] = filepath.Join(t.TempDir(), "data.db")
	c.start(t, 0, 1, 2)
	c.insert(t, "after")
	c.same(t)

	unaware, err := Open(old)
	if err != nil {
		t.Fatal(err)
	}
	if unaware.peer, err = newPeer(old); err != nil {
		t.Fatal(err)
	}
	openLog(t, unaware.log, oldPath)
	defer unaware.log.close()
	for _, i := range []int{0, 2} {
		apptest.Eventually(t, "it is turned away", func() bool {
			return strings.Contains(apps[i].log.String(), "A machine is turned away that says it is a node, which is another one\" node=n2 from=127.0.0.1:") &&
				strings.Contains(apps[i].log.String(), " is="+address)
		})
	}
	c.mustHaveOne(t)
	if err := unaware.log.close(); err != nil {
		t.Fatal(err)
	}

	want := "another machine is the node n2, at " + address
	mustRefuse(t, old, oldPath, want)
	c.mustHaveOne(t)
	c.stop(t, 1)
	mustRefuse(t, old, oldPath, want)
	c.start(t, 1)
	c.insert(t, "in the end")
	c.mustHaveOne(t)
}

// The copy of a machine, with all that is configured there, ends when that is back, and doesn't start any more.
func TestMachineThatHasACopy(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	c.stop(t, 1)
	config, path := c.configs[1], filepath.Join(t.TempDir(), "copy", "data.db")
	config.Listen = freePorts(t)
	if err := os.CopyFS(filepath.Dir(path), os.DirFS(filepath.Dir(c.paths[1]))); err != nil {
		t.Fatal(err)
	}
	twin, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.open(path); err != nil { // nobody knows of another one
		t.Fatal(err)
	}
	defer twin.Close()
	c.start(t, 1)
	apptest.Eventually(t, "the copy ends", func() bool { return twin.condemned.Load() && !twin.log.works() })
	c.insert(t, "after")
	c.mustHaveOne(t)
	if err := twin.Close(); err != nil {
		t.Fatal(err)
	}
	c.stop(t, 1)
	mustRefuse(t, config, path, "another machine is the node n2, at "+config.Peers["n2"])
	c.start(t, 1)
	c.insert(t, "in the end")
	c.mustHaveOne(t)
}

// A copy of a machine asks before it answers: who has its address for that of the node would take it for that, and turn away the right one.
func TestCopyOfAMachineAnswersNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.stop(t, 1)
	config, path := c.configs[1], filepath.Join(t.TempDir(), "copy", "data.db")
	config.Listen = freePorts(t)
	if err := os.CopyFS(filepath.Dir(path), os.DirFS(filepath.Dir(c.paths[1]))); err != nil {
		t.Fatal(err)
	}
	c.start(t, 1)
	address, err := peerAddress(config.Listen)
	if err != nil {
		t.Fatal(err)
	}
	c.stop(t, 2)
	third, err := Open(c.configs[2])
	if err != nil {
		t.Fatal(err)
	}
	if third.peer, err = newPeer(third.log.config); err != nil {
		t.Fatal(err)
	}
	var answers atomic.Bool
	if err := third.peer.serve(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			answers.Store(true)
		}
		third.servePeer(c.paths[2], w, r)
	}, slog.Default); err != nil {
		t.Fatal(err)
	}
	defer third.peer.close()
	mustRefuse(t, config, path, "another machine is the node n2, at "+config.Peers["n2"])
	if answers.Load() {
		t.Error("it answers")
	}
}

// A second process with a node's data directory, as in another container while the first one still ends, is none, and leaves the node as it is.
func TestSecondProcessOfANode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	config := c.configs[1]
	config.Listen = freePorts(t)
	mustRefuse(t, config, c.paths[1], "another process has the log in "+c.paths[1]+logSuffix+": stop it first")
	c.insert(t, "beside it")
	c.mustHaveOne(t)
	c.stop(t, 1)
	c.start(t, 1)
	c.mustHaveOne(t)
}

// A node that goes to another address, of which there may be several, isn't kept out by those that know it at the one of before.
func TestNodeThatMoves(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	_, port, err := net.SplitHostPort(freePorts(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 0, 2} {
		c.stop(t, i)
		c.configs[i] = c.configs[i].moved("n2", "localhost:"+port)
		c.start(t, i)
		c.insert(t, fmt.Sprint("after ", i))
		c.mustHaveOne(t)
	}
}

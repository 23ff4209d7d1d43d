package replica

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

func TestConfigsThatAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	good := c.configs[0]
	if _, err := good.check(); err != nil {
		t.Fatal(err)
	}
	two := map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}
	mixed, expired := t.TempDir(), t.TempDir()
	if err := WriteCerts(mixed, "n1", "n2", "n3"); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(good.Certs, caFile), filepath.Join(mixed, "n1", caFile), 1)
	if err := writeCerts(expired, time.Now().AddDate(0, 0, -1), "n1"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		want   string
		config Config
	}{
		{"no peers", Config{Node: "n1"}},
		{"no peers", Config{Certs: good.Certs}},
		{"there are 2 nodes: name three or five", Config{Node: "n1", Peers: two, Certs: good.Certs}},
		{`the node "n4" is none of its peers, which are n1, n2, n3`, Config{Node: "n4", Peers: good.Peers, Certs: good.Certs}},
		{"need certificates", Config{Node: "n1", Peers: good.Peers}},
		{"the certificates in nowhere", Config{Node: "n1", Peers: good.Peers, Certs: "nowhere"}},
		{`those of the node "n1", and this is "n2"`, Config{Node: "n2", Peers: good.Peers, Certs: good.Certs}},
		{"certificate signed by unknown authority", Config{Node: "n1", Peers: good.Peers, Certs: filepath.Join(mixed, "n1")}},
		{"certificate has expired", Config{Node: "n1", Peers: good.Peers, Certs: filepath.Join(expired, "n1")}},
		{"missing port", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:3", "n3": "127.0.0.1"}, Certs: good.Certs}},
		{"have 127.0.0.1:8001: a node has the port of its address and the next one", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:8000", "n2": "127.0.0.1:8001", "n3": "127.0.0.1:8003"}, Certs: good.Certs}},
		{"have 127.0.0.1:8000: a node has", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:8000", "n2": "127.0.0.1:8000", "n3": "127.0.0.1:8003"}, Certs: good.Certs}},
		{`the node's name "n.3": use letters`, Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:3", "n.3": "127.0.0.1:5"}, Certs: good.Certs}},
	} {
		if _, err := Open(row.config); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
}

// A database that is none of the cluster's is refused, and its log isn't touched.
func TestDatabasesThatAreNotTheClusters(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	path := filepath.Join(t.TempDir(), "data.db")
	edit(t, path, "CREATE TABLE a (b)")
	mustRefuse(t, c.configs[0], path, errUnseeded.Error())

	p := newStreamPair(t)
	mustExec(t, p.open(t), "CREATE TABLE a (b)")
	if err := p.leader.Close(); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, c.configs[0], p.path, "is one of one node")
	if _, err := p.leader.Connect(p.path); err != nil { // as before
		t.Fatal(err)
	}
	c.start(t, 0, 1, 2)
	for i := range 3 {
		c.stop(t, i)
	}
	mustRefuse(t, Config{}, c.paths[0], "is one of several nodes")
}

// A copy that was changed before its node's first start isn't what the log begins with.
func TestCopyThatWasChanged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)")
	edit(t, c.paths[2], "UPDATE a SET b = 2")
	// Without its servers, the log can't begin.
	third := c.answer(t, 2)
	openLog(t, third.log, c.paths[2])
	c.open(t, 0, 1)
	if err := third.shutAll(); err != nil { // whose server may lead the log
		t.Fatal(err)
	}
	mustRefuse(t, c.configs[2], c.paths[2], "it isn't what the log begins with")
	c.insert(t, "after")
	c.same(t)
}

// A database of a log that no node has, as one out of a backup, waits for nothing that might come, and says so.
func TestDatabaseWhoseLogNoNodeHas(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for i := range 3 {
		c.stop(t, i)
	}
	if err := os.RemoveAll(c.paths[0] + logSuffix); err != nil {
		t.Fatal(err)
	}
	c.lose(t, 1)
	c.lose(t, 2)
	var nodes [3]*Node
	for i := range nodes {
		nodes[i] = c.answer(t, i)
		defer nodes[i].peer.close()
	}
	at, err := standingOf(c.paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].mayJoin(c.paths[0], &at); !errors.Is(err, errNoLog) {
		t.Errorf("got %v", err)
	}
}

// answer has a node only answer what others ask.
func (c *cluster) answer(t *testing.T, i int) *Node {
	t.Helper()
	node, err := Open(c.configs[i])
	if err != nil {
		t.Fatal(err)
	}
	if node.peer, err = newPeer(node.log.config); err != nil {
		t.Fatal(err)
	}
	if err := node.peer.serve(func(w http.ResponseWriter, r *http.Request) { node.servePeer(c.paths[i], w, r) }, slog.Default); err != nil {
		t.Fatal(err)
	}
	return node
}

// lose deletes all that a node has.
func (c *cluster) lose(t *testing.T, i int) {
	t.Helper()
	remove(t, c.paths[i])
	if err := os.RemoveAll(c.paths[i] + logSuffix); err != nil {
		t.Fatal(err)
	}
}

// Nodes that have nothing get a copy of what one has.
func TestNodesThatBeginWithNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "INSERT INTO a VALUES (randomblob(3000000))")
	c.lose(t, 1)
	c.lose(t, 2)
	c.start(t, 0, 1, 2)
	c.insert(t, "more")
	c.same(t)
}

// A node that has lost all gets it from the others, once they have all that it has confirmed: not while one of them is gone.
func TestNodeThatHasLostAll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	lost, gone := others(leader)
	for range 20 {
		c.insert(t, "before")
	}
	c.same(t)
	c.stop(t, lost)
	c.lose(t, lost)
	c.insert(t, "meanwhile")
	c.stop(t, gone)
	node, err := Open(c.configs[lost])
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan error, 1)
	go func() { began <- node.open(c.paths[lost]) }()
	apptest.Eventually(t, "it asks the others", func() bool { return node.asking.Load() > 3 })
	select {
	case err := <-began:
		t.Fatalf("it began, and a node is gone: %v", err)
	default:
	}
	if hasBegun(c.paths[lost]+logSuffix) || node.log.leads() {
		t.Error("it has a part in the log, and a node is gone")
	}
	c.start(t, gone)
	if err := <-began; err != nil {
		t.Fatal(err)
	}
	c.nodes[lost], c.dbs[lost] = node, newDB(node, c.paths[lost])
	c.insert(t, "after")
	c.same(t)
	leader = c.leader(t)
	apptest.Eventually(t, "it has all of the log on its disk", func() bool {
		state, err := node.peer.state(c.configs[leader].Node)
		return err == nil && state.Leads && len(state.Behind) == 0
	})
	c.stop(t, leader)
	c.insert(t, "without who led")
	c.same(t)
}

// A node that was away for so long that the log doesn't have what it needs gets a snapshot of another one, and so does one
// whose snapshots are damaged.
func TestNodeThatWasAwayForLong(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.max = 4 << 20 // so that the log is cut off, whoever needs it
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	away, other := others(leader)
	c.insert(t, "before")
	c.same(t)
	c.stop(t, away)
	for range 3 {
		for range 3 {
			c.exec(t, "INSERT INTO a VALUES (randomblob(300000))")
		}
		c.same(t)
		for _, i := range []int{leader, other} {
			if err := c.nodes[i].Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	apptest.Eventually(t, "the log is cut off", func() bool {
		state, err := c.nodes[leader].log.state()
		return err == nil && state.FirstSeq > 4
	})
	c.start(t, away)
	c.same(t)
	if aside, err := filepath.Glob(filepath.Join(filepath.Dir(c.paths[away]), asidePrefix+"*")); err != nil || len(aside) != 1 {
		t.Errorf("got %v, %v", aside, err)
	}

	for _, s := range snapshots(snapshotDir(c.paths[away])) {
		if err := os.WriteFile(s.path, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.insert(t, "after")
	c.same(t)
	if err := c.nodes[away].Snapshot(); err != nil {
		t.Error(err)
	}
}

// A snapshot that is cut off on its way is gone on with.
func TestSnapshotThatIsCutOffOnItsWay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)", "INSERT INTO a VALUES (randomblob(5000000))")
	c.lose(t, 1)
	peers := maps.Clone(c.configs[1].Peers)
	var cuts atomic.Int32
	for _, name := range []string{"n1", "n3"} {
		through := freePorts(t)
		forward(t, through, peers[name], math.MaxInt64, &cuts)
		from, err := peerAddress(through)
		if err != nil {
			t.Fatal(err)
		}
		to, err := peerAddress(peers[name])
		if err != nil {
			t.Fatal(err)
		}
		forward(t, from, to, 1<<20, &cuts)
		peers[name] = through
	}
	c.configs[1].Peers, c.configs[1].Listen = peers, peers["n2"]
	c.start(t, 0, 1, 2)
	c.insert(t, "more")
	c.same(t)
	if cuts.Load() < 4 {
		t.Errorf("it was cut off %d times", cuts.Load())
	}
}

// forward carries connections to an address, and cuts each off after so many bytes of what it answers.
func forward(t *testing.T, from, to string, bytes int64, cuts *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go func() { io.Copy(out, in); out.Close() }()
			go func() {
				defer in.Close()
				defer out.Close()
				if n, _ := io.CopyN(in, out, bytes); n == bytes {
					cuts.Add(1)
				}
			}()
		}
	}()
}

// Nobody gets into the log without a certificate of the nodes.
func TestStrangersAreShutOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	dir := t.TempDir()
	if err := WriteCerts(dir, "n1", "n2", "n3"); err != nil {
		t.Fatal(err)
	}
	other, err := loadCerts(filepath.Join(dir, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	none := &tls.Config{InsecureSkipVerify: true}
	other.InsecureSkipVerify = true
	routes := c.configs[0].Peers["n1"]
	requests, err := peerAddress(routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{routes, requests} {
		for name, config := range map[string]*tls.Config{"without one": none, "with another CA's": other} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client := tls.Client(conn, config)
			_ = client.Handshake() // which is right for the client before the server has looked at its certificate
			if n, err := client.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "tls: ") {
				t.Errorf("%s: %d bytes, %v", name, n, err)
			}
		}
	}
}

// Nodes that are told of another one by its log's server are told of the address that it's configured with, also where it listens at
// another one: they would connect to that.
func TestNodesTellOfTheirAddressesOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	config := &c.configs[0]
	config.Listen = freePorts(t)
	from, err := peerAddress(config.Peers["n1"])
	if err != nil {
		t.Fatal(err)
	}
	to, err := peerAddress(config.Listen)
	if err != nil {
		t.Fatal(err)
	}
	var cuts atomic.Int32
	forward(t, config.Peers["n1"], config.Listen, math.MaxInt64, &cuts)
	forward(t, from, to, math.MaxInt64, &cuts)
	c.start(t, 0, 1, 2)
	certs, err := loadCerts(c.configs[1].Certs)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", config.Listen, certs)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var info server.Info
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if tells := net.JoinHostPort(info.Host, strconv.Itoa(info.Port)); tells != config.Peers["n1"] || len(info.ClientConnectURLs) > 0 {
		t.Errorf("it tells of %s and %q, and its address is %s", tells, info.ClientConnectURLs, config.Peers["n1"])
	}
}

// A machine without a battery starts in 1970. Its node reaches the others and is reached, so that all hear how wrong its clock is.
func TestCertsAreValidForAnyEarlierClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := WriteCerts(dir, "n1", "n2", "n3"); err != nil {
		t.Fatal(err)
	}
	var configs [2]*tls.Config
	for i, name := range []string{"n1", "n2"} {
		var err error
		if configs[i], err = loadCerts(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	configs[0].Time = func() time.Time { return time.Unix(1, 0) }
	for _, server := range []int{0, 1} {
		listener, err := tls.Listen("tcp", "127.0.0.1:0", configs[server])
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				err = conn.(*tls.Conn).Handshake()
				conn.Close()
			}
			answered <- err
		}()
		client, asked := tls.Dial("tcp", listener.Addr().String(), configs[1-server])
		if err := errors.Join(asked, <-answered); err != nil {
			t.Errorf("n%d asks n%d: %v", 2-server, server+1, err)
		}
		if asked == nil {
			client.Close()
		}
		listener.Close()
	}
}

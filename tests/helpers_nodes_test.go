package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketriver/pocketriver/hooks/replica"
)

// A nodesRun is three real servers that keep one database, under load, and the ledger of what they were sent.
type nodesRun struct {
	*modelRiver
	t     testing.TB
	rng   *rand.Rand
	nodes [3]*node
	pages []*tab

	kills    int
	stood    bool                       // the node that leads, still: an attempt that was under way has timed out, and is made again
	recovery map[string][]time.Duration // by the failure, how long after it a webhook was accepted
}

// A node is one of them, in a folder of its own.
type node struct {
	*faultRun
	base  string
	cable sync.RWMutex // locked while it is cut off from the others
}

// nodeSize is that of each node's disk, in memory, of which it takes what it writes.
const nodeSize = "4g"

// newNodesRun starts three hosts of a build in folders of base, which have disks of their own.
func newNodesRun(t testing.TB, binary, base string, seed uint64) *nodesRun {
	t.Helper()
	f := &nodesRun{modelRiver: newModelRiver(t, "", seed), t: t, rng: rand.New(rand.NewPCG(seed, 1)), recovery: map[string][]time.Duration{}}
	f.urls, f.client.Timeout = nil, 3*time.Second // a balancer's, which then asks another one
	f.receivers = append(f.receivers, f.newReceiver(accepts))
	names, addresses := []string{"n1", "n2", "n3"}, []string{}
	certs, seeded := filepath.Join(base, "certs"), filepath.Join(base, "data.db")
	if err := replica.WriteCerts(certs, names...); err != nil {
		t.Fatal(err)
	}
	if err := replica.Seed(seeded); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		addresses = append(addresses, freeAddresses(t, 2)[0])
		n := &node{base: filepath.Join(base, name)}
		f.nodes[i] = n
		dir := filepath.Join(n.base, "pb_data")
		if err := os.Mkdir(n.base, 0o700); err != nil {
			t.Fatal(err)
		}
		mount(t, n.base, nodeSize)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		copyDatabase(t, seeded, filepath.Join(dir, "data.db"))
	}
	for i, n := range f.nodes {
		config := replica.Config{Node: names[i], Certs: filepath.Join(certs, names[i]), Listen: addresses[i], Peers: map[string]string{
			names[i]: freeAddresses(t, 2)[0], // of which nodes tell each other, and at which none is reached past the cables
		}}
		for j, other := range f.nodes {
			if j != i {
				config.Peers[names[j]] = connect(t, n, other, addresses[j])
			}
		}
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(t, binary, filepath.Join(n.base, "pb_data"), "TEST_NODE="+string(text), "TEST_CALLBACK_WINDOW=1m", "TEST_CLOCK="+filepath.Join(n.base, clockFile))
		n.faultRun = &faultRun{server: s, modelRiver: f.modelRiver, t: t, rng: f.rng}
		f.urls = append(f.urls, s.URL)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s at %s wrote:\n%s", names[i], addresses[i], s.output)
			}
		})
	}
	f.start(f.nodes[:]...)
	f.accepted = time.Now()
	return f
}

// connect returns an address at which a node reaches another one. While one of them is cut off, nothing arrives, and
// nobody is told so.
func connect(t testing.TB, from, to *node, address string) string {
	t.Helper()
	through := freeAddresses(t, 2)[0]
	pass := func() {
		for _, n := range []*node{from, to} {
			n.cable.RLock()
			n.cable.RUnlock() //nolint:staticcheck // it only waits
		}
	}
	carry := func(out, in net.Conn) {
		defer out.Close()
		defer in.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := in.Read(buffer)
			pass()
			if err != nil {
				return
			}
			if _, err := out.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	for _, more := range []int{0, 1} {
		listener, err := net.Listen("tcp", portAfter(t, through, more))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		address := portAfter(t, address, more)
		go func() {
			for {
				in, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					pass()
					out, err := net.Dial("tcp", address)
					if err != nil {
						in.Close()
						return
					}
					go carry(in, out)
					carry(out, in)
				}()
			}
		}()
	}
	return through
}

// freeAddresses returns n addresses that nobody listens at, whose ports are in a row.
func freeAddresses(t testing.TB, n int) (addresses []string) {
	t.Helper()
	for len(addresses) < n {
		next := freeAddress(t)
		if len(addresses) > 0 && next != portAfter(t, addresses[0], len(addresses)) {
			addresses = nil
		}
		addresses = append(addresses, next)
	}
	return addresses
}

// portAfter returns an address with a port so much further.
func portAfter(t testing.TB, address string, more int) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, strconv.Itoa(number+more))
}

// start starts nodes, which may wait for each other.
func (f *nodesRun) start(nodes ...*node) {
	f.t.Helper()
	for _, n := range nodes {
		n.launch()
	}
	for _, n := range nodes {
		n.awaitStarted()
	}
}

// kill kills nodes at once.
func (f *nodesRun) kill(nodes ...*node) {
	for _, n := range nodes {
		n.cmd.Process.Kill()
		f.kills++
	}
	for _, n := range nodes {
		n.Kill()
	}
}

// leader waits until a node leads, but one that may believe so.
func (f *nodesRun) leader(but ...*node) (leader *node) {
	f.t.Helper()
	await(f.t, "a node leads", func() bool {
		for _, n := range f.nodes {
			if !slices.Contains(but, n) && n.leads() {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// others returns all nodes but these, in any order.
func (f *nodesRun) others(but ...*node) (others []*node) {
	for _, i := range f.rng.Perm(len(f.nodes)) {
		if !slices.Contains(but, f.nodes[i]) {
			others = append(others, f.nodes[i])
		}
	}
	return others
}

func (n *node) leads() bool {
	response, err := n.client.Get(n.URL + "/leads")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusNoContent
}

// logSize returns how many bytes a node's part of the log has.
func (n *node) logSize() (size int64) {
	n.t.Helper()
	blocks, err := filepath.Glob(filepath.Join(n.Dir, "data.db-log", "jetstream", "*", "streams", "*", "msgs", "*.blk"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, path := range blocks {
		if info, err := os.Stat(path); err == nil {
			size += info.Size()
		}
	}
	return size
}

// mustRead fails unless a node answers who reads.
func (n *node) mustRead() {
	n.t.Helper()
	response, err := n.client.Get(n.URL + "/api/collections/aiContent/records")
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK || !strings.Contains(string(answer), `"title":"Webhook `) {
		n.t.Errorf("a read is answered %s: %s", response.Status, answer)
	}
}

// awaitRefusal waits until a node answers a webhook 503.
func (n *node) awaitRefusal() {
	n.t.Helper()
	await(n.t, "a webhook is answered 503 by a node that doesn't see most of the others", func() bool {
		return n.postTo(n.URL, n.nextWebhook()) == http.StatusServiceUnavailable
	})
}

// recovers sends new webhooks after a failure until one is accepted.
func (f *nodesRun) recovers(failure string) {
	f.t.Helper()
	failed := time.Now()
	await(f.t, "a webhook that was sent after the failure is accepted", func() bool { return f.post(f.nextWebhook()) == http.StatusOK })
	f.recovery[failure] = append(f.recovery[failure], time.Since(failed))
}

// changes returns how often a node began to lead.
func (f *nodesRun) changes() (n int) {
	for _, node := range f.nodes {
		n += strings.Count(node.output.String(), beginsToLead)
	}
	return n
}

// run loads the nodes while the fault happens, and balances the ledger, once all of them have the same database, and all
// pages show it.
func (f *nodesRun) run(pause time.Duration, fault func()) {
	f.t.Helper()
	f.load(connections, pause, func() {
		f.await(200, 1)
		f.awaitCaughtUp() // so that every node has something to read
		fault()
	})
	settle(f.t, f.nodes[0].Dir, 8*time.Minute)
	f.mustEqual()
	for _, p := range f.pages {
		p.Converges(slices.Collect(maps.Keys(pageQueries))...)
	}
	changes := f.changes()
	for _, n := range f.nodes {
		n.Stop()
	}
	f.check(f.nodes[0].Dir, f.kills == 0 && !f.stood && changes == 1)
	f.t.Logf("%s; %d kills, %d times a node began to lead, at most %s without an acceptance", f.summary(), f.kills, changes, f.silence.Round(time.Millisecond))
	for failure, took := range f.recovery {
		slices.Sort(took)
		f.t.Logf("%s: a webhook is accepted after %s / %s / %s (min / p50 / max of %d)", failure, took[0].Round(time.Millisecond),
			took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), len(took))
	}
}

// positions returns how far each node's database has come, and whether that's the same.
func (f *nodesRun) positions() (positions [3]uint64, same bool) {
	for i, n := range f.nodes {
		db := openDatabase(f.t, n.Dir)
		err := db.NewQuery("SELECT position FROM _replicaPosition").Row(&positions[i])
		db.Close()
		if err != nil {
			return positions, false // it is being replaced
		}
	}
	return positions, positions[0] == positions[1] && positions[1] == positions[2]
}

// awaitCaughtUp waits until every node has what one of them has now, and answers.
func (f *nodesRun) awaitCaughtUp() {
	f.t.Helper()
	before, _ := f.positions()
	want := slices.Max(before[:])
	await(f.t, "every node has what the first had", func() bool {
		now, _ := f.positions()
		return slices.Min(now[:]) >= want
	})
	for _, n := range f.nodes {
		n.awaitStarted()
	}
}

// mustEqual waits until all nodes are at one position, and fails unless they have the same there.
func (f *nodesRun) mustEqual() {
	f.t.Helper()
	var dumps [3][]string
	await(f.t, "the nodes are at one position", func() bool {
		before, same := f.positions()
		if !same {
			return false
		}
		for i, n := range f.nodes {
			dumps[i] = dumpDatabase(f.t, n.Dir)
		}
		after, same := f.positions()
		return same && before == after
	})
	for i := range f.nodes {
		mustEqual(f.t, fmt.Sprintf("%s has another database", filepath.Base(f.nodes[i].base)), dumps[0], dumps[i])
	}
}

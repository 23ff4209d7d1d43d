package tests

import (
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A nodesFault is what befalls three nodes, which are all well again when it returns.
type nodesFault struct {
	name  string
	fault func(f *nodesRun)
}

var nodesFaults = []nodesFault{
	{"the leader is killed", func(f *nodesRun) {
		for range 2 {
			leader := f.leader()
			f.kill(leader)
			f.recovers("the leader is killed")
			f.await(200, 1+f.rng.IntN(20))
			f.start(leader)
		}
	}},

	{"a follower is killed", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		f.kill(follower)
		f.recovers("a follower is killed")
		f.await(200, 20)
		f.start(follower)
	}},

	{"all are killed", func(f *nodesRun) {
		f.kill(f.nodes[:]...)
		f.start(f.nodes[:]...)
		f.recovers("all are killed, and started")
	}},

	{"two are killed", func(f *nodesRun) {
		left := f.nodes[f.rng.IntN(3)]
		f.kill(f.others(left)...)
		left.awaitRefusal()
		left.mustRead()
		f.start(f.others(left)...)
		f.recovers("two are killed, and started")
	}},

	{"the leader stands still", func(f *nodesRun) {
		leader := f.leader()
		f.stood = true
		leader.cmd.Process.Signal(syscall.SIGSTOP)
		f.recovers("the leader stands still")
		f.await(200, 20)
		var senders sync.WaitGroup
		for range 40 { // what it was sent meanwhile, it goes on with as if it led
			w := f.nextWebhook()
			senders.Go(func() { f.postTo(leader.URL, w) })
		}
		leader.cmd.Process.Signal(syscall.SIGCONT)
		senders.Wait()
	}},

	{"the leader stands still, and who waits has patience", func(f *nodesRun) {
		leader := f.leader()
		f.stood = true
		leader.cmd.Process.Signal(syscall.SIGSTOP)
		answered := make(chan int)
		go func() {
			response, err := http.Post(f.others(leader)[0].URL+"/api/collections/users/auth-with-password", "application/json", strings.NewReader(`{"identity":"nobody","password":"nothing"}`))
			if err != nil {
				answered <- 0
				return
			}
			response.Body.Close()
			answered <- response.StatusCode
		}()
		select {
		case status := <-answered:
			if status != http.StatusBadRequest && status != http.StatusServiceUnavailable {
				f.t.Errorf("got %d", status)
			}
		case <-time.After(patience):
			f.t.Error("no answer came through a follower while the leader stood still")
		}
		leader.cmd.Process.Signal(syscall.SIGCONT)
	}},

	{"a follower stands still", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		follower.cmd.Process.Signal(syscall.SIGSTOP)
		f.recovers("a follower stands still")
		f.await(200, 20)
		follower.cmd.Process.Signal(syscall.SIGCONT)
	}},

	{"SIGTERM of the leader", func(f *nodesRun) {
		leader := f.leader()
		if took := leader.terminate(); took > 5*time.Second {
			f.t.Errorf("exit took %s, want at most 5 s", took)
		}
		f.recovers("SIGTERM of the leader")
		f.await(200, 20)
		f.start(leader)
	}},

	{"each is restarted, one after the other", func(f *nodesRun) {
		for _, n := range f.others() {
			if took := n.terminate(); took > 5*time.Second {
				f.t.Errorf("exit took %s, want at most 5 s", took)
			}
			f.recovers("one of all is restarted")
			f.start(n)
			f.awaitCaughtUp()
		}
	}},

	{"SIGTERM of a follower that is far behind", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		follower.cmd.Process.Signal(syscall.SIGSTOP)
		f.await(200, 60)
		follower.cmd.Process.Signal(syscall.SIGCONT)
		if took := follower.terminate(); took > 5*time.Second {
			f.t.Errorf("exit took %s, want at most 5 s", took)
		}
		f.start(follower)
	}},

	{"somebody else has the leader's database for a while", func(f *nodesRun) {
		release := f.leader().lag()
		time.Sleep(2 * time.Second)
		release()
		f.recovers("somebody else had the leader's database")
	}},

	{"the leader is cut off", func(f *nodesRun) {
		leader := f.leader()
		leader.cable.Lock()
		f.recovers("the leader is cut off")
		leader.awaitRefusal()
		leader.mustRead()
		f.await(200, 20)
		leader.cable.Unlock()
	}},

	{"a follower is cut off", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		follower.cable.Lock()
		f.recovers("a follower is cut off")
		follower.awaitRefusal()
		follower.mustRead()
		f.await(200, 20)
		follower.cable.Unlock()
	}},

	{"the leader's disk is full", func(f *nodesRun) {
		leader := f.leader()
		free := fill(f.t, leader.base, nodeSize)
		f.leader(leader)
		f.recovers("the leader's disk is full, and another node leads")
		f.await(200, 50)
		free()
	}},

	{"the leader's database can't be written, and its log can", func(f *nodesRun) {
		leader := f.leader()
		stop := leader.inject("pwrite64", "ENOSPC")
		f.leader(leader)
		f.recovers("the leader's database can't be written, and another node leads")
		f.await(200, 20)
		stop()
	}},

	{"a follower's disk is full", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		free := fill(f.t, follower.base, nodeSize)
		f.recovers("a follower's disk is full")
		f.await(200, 100)
		before := follower.logSize()
		free()
		await(f.t, "the follower's log grows again", func() bool { return follower.logSize() > before })
	}},

	{"a follower's database is edited", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		f.kill(follower)
		replaced := follower.replaced()
		db := openDatabase(f.t, follower.Dir)
		if _, err := db.NewQuery("UPDATE aiContent SET title = 'edited'").Execute(); err != nil {
			f.t.Fatal(err)
		}
		db.Close()
		f.start(follower)
		await(f.t, "the follower has replaced its database", func() bool { return follower.replaced() == replaced+1 })
		follower.awaitStarted()
	}},

	{"a follower's database is deleted", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		f.kill(follower)
		follower.loseDatabase()
		f.start(follower)
	}},

	{"the leader's power fails", func(f *nodesRun) {
		leader := f.leader()
		trace := leader.traceLog()
		f.await(200, 50)
		f.kill(leader)
		f.recovers("the leader's power fails")
		trace.loseUnsynced()
		f.start(leader)
	}},

	{"the power of all fails", func(f *nodesRun) {
		var traces []*logTrace
		for _, n := range f.nodes {
			traces = append(traces, n.traceLog())
		}
		f.await(200, 50)
		f.kill(f.nodes[:]...)
		for _, trace := range traces {
			trace.loseUnsynced()
		}
		f.start(f.nodes[:]...)
		f.recovers("the power of all fails, and they are started")
	}},
}

// clockFaults are of nodes whose clocks can be set.
var clockFaults = []nodesFault{
	{"the leader's clock goes 90 s ahead", func(f *nodesRun) { f.setLeadersClock(90 * time.Second) }},

	{"the leader's clock goes 90 s behind", func(f *nodesRun) { f.setLeadersClock(-90 * time.Second) }},

	{"the leader's clock goes a year ahead", func(f *nodesRun) { f.setLeadersClock(365 * 24 * time.Hour) }},

	{"a follower's clock is an hour wrong, and the leader is killed", func(f *nodesRun) {
		leader := f.leader()
		follower := f.others(leader)[0]
		ahead := time.Hour
		if f.rng.IntN(2) == 0 {
			ahead = -ahead
		}
		follower.setClock(ahead)
		follower.awaitAstray()
		f.mustDate(follower)
		f.kill(leader)
		f.leader(leader, follower)
		f.recovers("a follower's clock is an hour wrong, and the leader is killed")
		f.mustDate(follower)
		f.start(leader)
		follower.setClock(0)
		f.awaitAlike()
	}},

	{"a follower starts in 1970", func(f *nodesRun) {
		follower := f.others(f.leader())[0]
		f.kill(follower)
		follower.setClock(-time.Since(time.Unix(0, 0)))
		f.start(follower)
		follower.awaitAstray()
		f.mustDate(follower)
		follower.setClock(0)
		f.awaitAlike()
	}},

	{"all clocks go an hour ahead, and back", func(f *nodesRun) {
		for _, ahead := range []time.Duration{time.Hour, 0} {
			for _, n := range f.nodes {
				n.setClock(ahead)
			}
			f.recovers("all clocks go an hour ahead, and back")
			f.await(200, 50)
			f.awaitAlike()
		}
	}},
}

// setLeadersClock has another node lead, as the clock of the one that does is wrong.
func (f *nodesRun) setLeadersClock(ahead time.Duration) {
	f.t.Helper()
	leader := f.leader()
	leader.setClock(ahead)
	f.leader(leader)
	f.recovers("the leader's clock is set")
	f.await(200, 20)
	f.mustDate(leader)
	leader.setClock(0)
	f.awaitAlike()
}

// awaitAstray waits until a node knows that its clock is wrong.
func (n *node) awaitAstray() {
	n.t.Helper()
	await(n.t, "the node knows that its clock is wrong", func() bool {
		differs, _ := n.differs()
		return slices.ContainsFunc(differs, func(text string) bool { return strings.HasPrefix(text, "its clock is far from those of most nodes") })
	})
}

// faultsOfNodes returns what befalls three nodes, and the build that can take it. Clocks are set in a torture only: that
// build takes minutes.
func faultsOfNodes(t testing.TB) (faults []nodesFault, binary string) {
	t.Helper()
	if *tortureFor <= shortTorture {
		return nodesFaults, os.Args[0]
	}
	return slices.Concat(nodesFaults, clockFaults), buildSettable(t)
}

// Three nodes are as one server, whatever happens to them, and their databases are the same.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	faults, binary := faultsOfNodes(t)
	for _, row := range faults {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := newNodesRun(t, binary, t.TempDir(), rand.Uint64())
			f.run(50*time.Millisecond, func() {
				for range max(1, *nodeKills/4) {
					f.await(200, 1+f.rng.IntN(50))
					row.fault(f)
				}
				f.await(200, 20)
			})
		})
	}
}

// Each fault, at random moments, one at a time, before pages that show what is there.
func TestThreeNodesTorture(t *testing.T) {
	t.Parallel()
	seed := faultSeed()
	t.Logf("go test -run TestThreeNodesTorture ./tests -torture %s -seed %d", *tortureFor, seed)
	faults, binary := faultsOfNodes(t)
	f := newNodesRun(t, binary, t.TempDir(), seed)
	happened := map[string]int{}
	f.openPages()
	f.run(100*time.Millisecond, func() {
		for end := time.Now().Add(*tortureFor); time.Now().Before(end); {
			f.await(200, 1+f.rng.IntN(50))
			row := faults[f.rng.IntN(len(faults))]
			f.nodes[0].logNow("%s", row.name)
			row.fault(f)
			f.nodes[0].logNow("%s over", row.name)
			happened[row.name]++
			f.awaitCaughtUp()
		}
	})
	t.Logf("these faults: %v", happened)
}

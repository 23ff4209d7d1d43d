package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

// Live queries of a page at each node, and of one whose requests a balancer sends to any, show in the end what the servers
// list, and meanwhile never less than they have shown, whatever happens to the nodes.
func TestThreeNodesShowTheSame(t *testing.T) {
	t.Parallel()
	f := newNodesRun(t, os.Args[0], t.TempDir(), rand.Uint64())
	b := f.openPages()
	f.run(100*time.Millisecond, func() {
		for _, fault := range []func(){
			func() { // each page comes again, and a node lags
				for range 3 {
					release := f.others(f.leader())[0].lag()
					f.await(200, 20)
					b.cut()
					f.await(200, 20)
					release()
				}
			},
			func() {
				leader := f.leader()
				f.kill(leader)
				f.recovers("the leader is killed")
				f.start(leader)
			},
			func() {
				follower := f.others(f.leader())[0]
				f.kill(follower)
				f.await(200, 20)
				f.start(follower)
			},
			func() {
				leader := f.leader()
				leader.cmd.Process.Signal(syscall.SIGSTOP)
				f.recovers("the leader stands still")
				f.await(200, 20)
				leader.cmd.Process.Signal(syscall.SIGCONT)
			},
			func() { // longer than streams go on without hearing of the leader
				follower := f.others(f.leader())[0]
				follower.cable.Lock()
				follower.awaitRefusal()
				await(t, "the node that is cut off has no stream", func() bool { return follower.refusesStreams() })
				follower.cable.Unlock()
			},
		} {
			f.await(200, 20)
			fault()
			f.awaitCaughtUp()
		}
	})
}

// openPages opens a page with live queries at each node, and one behind a balancer, which [nodesRun.run] looks at in the end.
func (f *nodesRun) openPages() *balancer {
	f.t.Helper()
	b := startBalancer(f.t, f.urls...)
	for _, url := range append([]string{b.URL}, f.urls...) {
		p := openHarness(f.t, url)
		for name, query := range pageQueries {
			p.Live(fmt.Sprintf("%q, %s", name, query))
		}
		eval[bool](p, "queries.newest.grows = true")
		f.pages = append(f.pages, p)
	}
	return b
}

// pageQueries are the live queries of a page, by their names.
var pageQueries = map[string]string{
	"newest":   `{limit: 3}`,
	"filtered": `{filter: 'title ~ "7"', limit: 20}`,
	"sorted":   `{sort: "title,id", limit: 3}`,
}

// lag keeps a node's database from being written to, as a disk that is very slow does, until the returned function is called.
func (n *node) lag() (release func()) {
	n.t.Helper()
	db := openDatabase(n.t, n.Dir)
	conn, err := db.DB().Conn(context.Background())
	if err == nil {
		_, err = conn.ExecContext(context.Background(), "BEGIN IMMEDIATE")
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			n.t.Error(err)
		}
		conn.Close()
		db.Close()
	}
}

// refusesStreams reports whether a node has nobody read events that it may not have.
func (n *node) refusesStreams() bool {
	response, err := n.client.Get(n.URL + "/api/realtime")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == 503
}

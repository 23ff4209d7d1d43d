package replica

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

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

// freePorts returns an address whose port and the next one nobody has. (They are below those that are given to connections.)
func freePorts(t testing.TB) string {
	t.Helper()
	for {
		port := 20000 + 2*rand.IntN(5000)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if a, err := net.Listen("tcp", address); err == nil {
			a.Close()
			if b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1)); err == nil {
				b.Close()
				return address
			}
		}
	}
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
		for i, n := range c.nodes {
			if n != nil {
				dumps[i] = c.readers.dump(t, c.paths[i])
			}
		}
		after := c.positions(t)
		return before[0] == before[len(before)-1] && fmt.Sprint(before) == fmt.Sprint(after)
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
			position, err := n.Position()
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

// insert writes to the node that leads, as often as another one has to.
func (c *cluster) insert(t testing.TB, value string) {
	t.Helper()
	apptest.Eventually(t, "a node takes a write", func() bool {
		_, err := c.dbs[c.leader(t)].Exec("INSERT INTO a VALUES (?)", value)
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
	leader := c.leader(t)
	for i := range 100 {
		c.insert(t, fmt.Sprint(i))
	}
	mustExec(t, c.dbs[leader], "CREATE TABLE c (d)", fmt.Sprintf("INSERT INTO c VALUES (randomblob(%d))", 10*maxMessage))
	c.same(t)
	a, b := others(leader)
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
		c.insert(t, fmt.Sprint("without ", stopped))
		c.same(t)
		c.start(t, stopped)
		c.insert(t, fmt.Sprint("with ", stopped))
		c.same(t)
	}
	for i := range 3 {
		c.stop(t, i)
	}
	c.start(t, 0, 1, 2)
	c.insert(t, "again")
	c.same(t)
	if got := query(t, c.dbs[0], "SELECT count(*), count(DISTINCT b) FROM a"); got[0] != "9|6" && got[0] != "9|7" && got[0] != "9|8" && got[0] != "9|9" {
		t.Errorf("got %s", got)
	}
}

// One node of three takes nothing, and is read from.
func TestMostOfTheNodesAreGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
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

// A node that believes that it leads, while another one does, changes nothing.
func TestNodeThatLedIsFenced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
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

// apps starts an app on each node, all together, on an empty database, each with a route of its own, and returns clients of them.
func (c *cluster) apps(t *testing.T) (apps [3]*tests.TestApp, clients [3]*client) {
	t.Helper()
	var all sync.WaitGroup
	for i := range apps {
		all.Go(func() {
			node, err := Open(c.configs[i])
			if err != nil {
				t.Error(err)
				return
			}
			apps[i] = newApp(t, node, filepath.Dir(c.paths[i]))
			apps[i].OnServe().BindFunc(func(e *core.ServeEvent) error {
				e.Router.Bind(apis.CORS(apis.CORSConfig{AllowOrigins: []string{"*"}})) // as PocketBase does before
				return e.Next()
			})
			node.Register(apps[i])
			c.ran[i] = new([]string)
			for _, job := range []string{"job", "local"} {
				apps[i].Cron().MustAdd(job, "0 0 1 1 *", func() { *c.ran[i] = append(*c.ran[i], c.configs[i].Node+" "+job) })
			}
			apps[i].OnServe().BindFunc(func(e *core.ServeEvent) error {
				e.Router.POST("/echo", func(e *core.RequestEvent) error {
					body, err := io.ReadAll(e.Request.Body)
					if err != nil {
						return err
					}
					e.Response.Header().Add("Set-Cookie", "a=1")
					e.Response.Header().Add("Set-Cookie", "b=2")
					return e.JSON(http.StatusTeapot, map[string]any{"node": c.configs[i].Node, "body": fmt.Sprintf("%x", sha256.Sum256(body)), "host": e.Request.Host,
						"uri": e.Request.RequestURI, "from": e.Request.RemoteAddr, "tls": e.Request.TLS != nil, "header": e.Request.Header})
				}).Unbind(apis.DefaultBodyLimitMiddlewareId)
				e.Router.POST("/stands-still", func(e *core.RequestEvent) error {
					c.standing.Store(true)
					<-e.Request.Context().Done()
					return nil
				})
				return e.Next()
			})
			c.nodes[i], c.dbs[i] = node, newDB(node, c.paths[i])
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	token := apptest.SuperuserToken(t, apps[c.leader(t)])
	for i, app := range apps {
		clients[i] = &client{Server: apptest.Serve(t, app), token: token}
	}
	return apps, clients
}

// Several apps start together on an empty database, and each takes writes, which it has once they are answered.
func TestEveryNodeTakesWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	apps, clients := c.apps(t)
	clients[0].call(t, "PATCH", "/api/settings", `{"meta":{"appName":"of all nodes"},"batch":{"enabled":true,"maxRequests":50,"timeout":30}}`)
	if got := apps[0].Settings().Meta.AppName; got != "of all nodes" {
		t.Errorf("got %q", got)
	}
	clients[1].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}]}`)
	for i := range 30 {
		at := clients[i%3]
		id := fmt.Sprintf("post%011d", i)
		at.call(t, "POST", posts, fmt.Sprintf(`{"id":%q,"title":"one"}`, id))
		at.call(t, "PATCH", posts+"/"+id, `{"title":"two"}`)
		if got := at.call(t, "GET", posts+"/"+id, ""); !strings.Contains(got, `"title":"two"`) {
			t.Errorf("got %s", got)
		}
	}
	clients[2].call(t, "POST", "/api/batch", `{"requests":[{"method":"POST","url":"/api/collections/posts/records","body":{"title":"four"}}]}`)
	clients[0].sql(t, "DELETE FROM posts WHERE title = 'four'")
	if got := clients[1].status(t, "POST", posts, `{"id":"post00000000001"}`); got != http.StatusBadRequest {
		t.Errorf("got %d", got)
	}
	c.same(t)
	if n, err := apps[2].CountRecords("posts"); err != nil || n != 30 {
		t.Errorf("%d posts, %v", n, err)
	}
}

// What is passed on to the node that leads is as it came, and so is the answer.
func TestRequestIsPassedOnAsItCame(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, _ := others(leader)
	for _, size := range []int{0, 10, repeatable, repeatable + 1, 20 << 20} {
		body := make([]byte, size)
		rand.NewChaCha8([32]byte{}).Read(body)
		request := clients[follower].request(t, "POST", "/echo?a=%2F&b=;c", string(body))
		request.Host = "app.example.com"
		request.Header.Set("X-Forwarded-For", "1.2.3.4")
		request.Header.Set("Replica-Client", "6.6.6.6:6") // as no client may say
		request.Header.Set("Idempotency-Key", "7")
		if size == 10 {
			request.ContentLength = -1
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Node, Body, Host, Uri, From string
			TLS                         bool
			Header                      http.Header
		}
		err = json.NewDecoder(response.Body).Decode(&got)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusTeapot || got.Node != c.configs[leader].Node || got.Body != fmt.Sprintf("%x", sha256.Sum256(body)) ||
			got.Host != "app.example.com" || got.Uri != "/echo?a=%2F&b=;c" || got.TLS || !strings.HasPrefix(got.From, "127.0.0.1:") ||
			fmt.Sprint(got.Header["X-Forwarded-For"]) != "[1.2.3.4]" || got.Header.Get(clientHeader) != "" || got.Header.Get("Authorization") == "" || got.Header.Get("Idempotency-Key") != "7" {
			t.Errorf("%d bytes: %v, %s, %+v", size, err, response.Status, got)
		}
		if fmt.Sprint(response.Header["Set-Cookie"]) != "[a=1 b=2]" || response.Header.Get(positionHeader) != "" {
			t.Errorf("got %v", response.Header)
		}
	}
}

// Cron jobs run on the node that leads, but for those of each node, and so do backups by a schedule.
func TestJobsRunOnTheNodeThatLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range c.configs {
		c.configs[i].LocalJobs = []string{"local"}
	}
	apps, _ := c.apps(t)
	leader := c.leader(t)
	var want, got []string
	for i, app := range apps {
		name := c.configs[i].Node
		for _, job := range app.Cron().Jobs() {
			job.Run()
		}
		want = append(want, name+" local")
		if i == leader {
			want = append(want, name+" job")
		}
		backup := autoBackupPrefix + name + ".zip"
		if err := app.CreateBackup(t.Context(), backup); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(app.DataDir(), core.LocalBackupsDirName, backup)); (err == nil) != (i == leader) {
			t.Errorf("%s: %v", backup, err)
		}
	}
	for _, ran := range c.ran {
		got = append(got, *ran...)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A request waits for a node that leads, when the one that did is gone.
func TestRequestWaitsForANodeThatLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	clients[0].call(t, "POST", "/api/collections", `{"name":"posts","type":"base","fields":[{"name":"title","type":"text"}]}`)
	c.same(t)
	leader := c.leader(t)
	a, b := others(leader)
	c.stop(t, leader)
	apptest.Eventually(t, "a write is taken", func() bool { return clients[a].status(t, "POST", posts, `{"title":"a"}`) == http.StatusOK })
	apptest.Eventually(t, "a write is taken", func() bool { return clients[b].status(t, "POST", posts, `{"title":"b"}`) == http.StatusOK })
	c.same(t)
	if got := clients[a].status(t, "GET", "/api/health", ""); got != http.StatusOK {
		t.Errorf("got %d", got)
	}
	left := c.leader(t)
	last := a + b - left
	c.stop(t, left)
	mustBeUnavailable(t, "a write without most of the nodes", clients[last].request(t, "POST", posts, `{"title":"c"}`))
	clients[last].call(t, "GET", posts, "")
	apptest.Eventually(t, "the node says that it is alone", func() bool {
		return clients[last].status(t, "GET", "/api/health", "") == http.StatusServiceUnavailable
	})
}

func TestConfigsThatAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	good := c.configs[0]
	if _, err := good.check(); err != nil {
		t.Fatal(err)
	}
	two := map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}
	for _, row := range []struct {
		want   string
		config Config
	}{
		{"no peers", Config{Node: "n1"}},
		{"no peers", Config{Certs: good.Certs}},
		{"there are 2 nodes: three or five", Config{Node: "n1", Peers: two, Certs: good.Certs}},
		{`the node "n4" is none of its peers: n1, n2, n3`, Config{Node: "n4", Peers: good.Peers, Certs: good.Certs}},
		{"need certificates", Config{Node: "n1", Peers: good.Peers}},
		{"the certificates in nowhere", Config{Node: "n1", Peers: good.Peers, Certs: "nowhere"}},
		{"missing port", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:3", "n3": "127.0.0.1"}, Certs: good.Certs}},
		{"have 127.0.0.1:8001: a node has the port of its address and the next one", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:8000", "n2": "127.0.0.1:8001", "n3": "127.0.0.1:8003"}, Certs: good.Certs}},
		{"have 127.0.0.1:8000: a node has", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:8000", "n2": "127.0.0.1:8000", "n3": "127.0.0.1:8003"}, Certs: good.Certs}},
		{"a space, a dot", Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:3", "n.3": "127.0.0.1:5"}, Certs: good.Certs}},
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
	at, err := standingOf(c.paths[2])
	if err != nil {
		t.Fatal(err)
	}
	third, err := Open(c.configs[2])
	if err != nil {
		t.Fatal(err)
	}
	// Without its servers, the log can't begin.
	third.peer, err = openPeer(third.log.config, func(w http.ResponseWriter, r *http.Request) { third.servePeer(c.paths[2], w, r) }, slog.Default)
	if err == nil {
		err = third.log.open(c.paths[2]+logSuffix, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.open(t, 0, 1)
	if err := third.shutAll(); err != nil { // whose server may lead the log
		t.Fatal(err)
	}
	mustRefuse(t, c.configs[2], c.paths[2], "it isn't what the log begins with")
	c.insert(t, "after")
	c.same(t)
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
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	away, other := others(leader)
	c.insert(t, "before")
	c.same(t)
	c.stop(t, away)
	c.nodes[leader].log.max, c.nodes[other].log.max = 1<<20, 1<<20 // so that the log is cut off, whoever needs it
	for range 3 {
		for range 3 {
			mustExec(t, c.dbs[leader], "INSERT INTO a VALUES (randomblob(300000))")
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
	if err := WriteCerts(dir, "n1"); err != nil {
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
		mustExec(t, c.dbs[c.leader(t)], "INSERT INTO a (b, c, d) VALUES ('b', 'c', 'd')")
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

// What changes nothing is answered at once by a node that has all of the log since it started.
func TestAnswerThatChangedNothingIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
	follower, _ := others(c.leader(t))
	c.stop(t, follower)
	c.start(t, follower)
	leader := c.nodes[c.leader(t)]
	apptest.Eventually(t, "it knows that it has what the leader has", func() bool {
		return leader.reached.at() > 0 && c.nodes[follower].reached.at() == leader.reached.at()
	})
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
	apptest.Eventually(t, "the log is full", func() bool {
		_, err := c.dbs[c.leader(t)].Exec("INSERT INTO a VALUES (randomblob(100000))")
		return errors.Is(err, errFull)
	})
	// And so full that nothing goes in.
	apptest.Eventually(t, "the log is full", func() bool {
		_, err := c.dbs[c.leader(t)].Exec("INSERT INTO a VALUES (1)")
		return errors.Is(err, errFull)
	})
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
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
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
	c.open(t, 1, 2)
	opening.Wait()
	c.nodes[0], c.dbs[0] = node, newDB(node, c.paths[0])
	c.insert(t, "after")
	c.same(t)
}

// A request that was passed on to a node which leads no more, and answers nothing, is answered.
func TestRequestIsNotLostWithANodeThatStandsStill(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, other := others(leader)
	request := clients[follower].request(t, "POST", "/stands-still", "")
	answered := make(chan *http.Response, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
		} else {
			response.Body.Close()
		}
		answered <- response
	}()
	apptest.Eventually(t, "the request is passed on", c.standing.Load)
	c.makeLead(t, other)
	if response := <-answered; response == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("got %+v", response)
	}
}

// A page of another origin is told what a node answers that can't pass on.
func TestAnswersOfAFollowerAreForOtherOrigins(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	follower, other := others(leader)
	request := clients[follower].request(t, "POST", "/echo", "")
	request.Header.Set("Origin", "https://example.com")
	ask := func() *http.Response {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response
	}
	if got := ask(); got.StatusCode != http.StatusTeapot || fmt.Sprint(got.Header["Access-Control-Allow-Origin"]) != "[*]" {
		t.Errorf("got %s, %v", got.Status, got.Header)
	}
	c.stop(t, leader)
	c.stop(t, other)
	if got := ask(); got.StatusCode != http.StatusServiceUnavailable || fmt.Sprint(got.Header["Access-Control-Allow-Origin"]) != "[*]" {
		t.Errorf("got %s, %v", got.Status, got.Header)
	}
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
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
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

// A request that a node may have done before it died is not passed on again, whatever headers it has.
func TestRequestIsPassedOnOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	config, err := c.configs[0].check()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := loadCerts(config.Certs)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := listener.Accept()
		listener.Close()
		if err != nil {
			return
		}
		defer conn.Close()
		secure := tls.Server(conn, certs)
		reader := bufio.NewReader(secure)
		for i := range 2 {
			if _, err := http.ReadRequest(reader); err != nil {
				return
			}
			if i == 0 {
				io.WriteString(secure, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}
		conn.(*net.TCPConn).SetLinger(0) // as one that is killed
	}()
	node := &Node{log: newStreamLog(config, slog.Default)}
	if node.peer, err = openPeer(config, func(w http.ResponseWriter, r *http.Request) { node.servePeer("", w, r) }, slog.Default); err != nil {
		t.Fatal(err)
	}
	defer node.peer.close()
	var done bool
	for range 2 {
		e := &core.RequestEvent{}
		e.Request, e.Response = httptest.NewRequest("POST", "/", nil), httptest.NewRecorder()
		e.Request.Header.Set("Idempotency-Key", "1")
		done, err = node.passTo(e, listener.Addr().String(), body{})
	}
	if done || err == nil {
		t.Errorf("got %t, %v", done, err)
	}
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

// A request is answered that comes while its app terminates, whose node is closed.
func TestRequestToANodeThatIsClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, clients := c.apps(t)
	leader := c.leader(t)
	a, b := others(leader)
	for _, i := range []int{b, leader, a} {
		c.stop(t, i)
	}
	mustBeUnavailable(t, "a write", clients[a].request(t, "POST", "/echo", ""))
}

package tests

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pocketbase/pocketbase/tools/archive"

	"github.com/pocketriver/pocketriver/hooks/replica"
)

// A cluster is three servers of the binary that have one database, made as docs/cluster.md says.
type cluster struct {
	t     *testing.T
	base  string
	nodes []*server // a, b, c
	peers string
}

var clusterNames = []string{"a", "b", "c"}

// newCluster makes certificates and a database to begin with, by the binary's commands. The node a has it.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, base: t.TempDir()}
	var peers []string
	for _, name := range clusterNames {
		peers = append(peers, name+"="+freeAddresses(t, 2)[0])
	}
	c.peers = strings.Join(peers, ",")
	for _, name := range clusterNames {
		c.nodes = append(c.nodes, newServer(t, buildBinary(t), filepath.Join(c.base, name), "POCKETRIVER_NODE="+name, "POCKETRIVER_PEERS="+c.peers))
	}
	if _, stderr, ok := runOn(t, c.nodes[0].binary, c.nodes[0].Dir, nil, "superuser", "upsert", testEmail, testPassword); !ok {
		t.Fatal(stderr)
	}
	c.mustRun(0, "cluster", "certs", "a", "b", "c")
	c.mustRun(0, "cluster", "init")
	return c
}

// run runs a command in a node's environment.
func (c *cluster) run(node int, args ...string) (stdout, stderr string, ok bool) {
	c.t.Helper()
	n := c.nodes[node]
	return runOn(c.t, n.binary, n.Dir, n.env, args...)
}

func (c *cluster) mustRun(node int, args ...string) string {
	c.t.Helper()
	stdout, stderr, ok := c.run(node, args...)
	if !ok || stderr != "" {
		c.t.Fatalf("%v: success %t, %s%s", args, ok, stdout, stderr)
	}
	return stdout
}

func (c *cluster) start() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.launch()
	}
	for _, n := range c.nodes {
		n.awaitStarted()
	}
	c.awaitAll()
}

// awaitAll waits until a node leads and the others follow, and returns which one leads.
func (c *cluster) awaitAll() (leader int) {
	c.t.Helper()
	await(c.t, "one node leads, and the others have what it has", func() bool {
		_, _, ok := c.run(0, "cluster", "status")
		return ok
	})
	return c.leader()
}

// leader waits until a node leads.
func (c *cluster) leader() (leader int) {
	c.t.Helper()
	await(c.t, "a node leads", func() bool {
		stdout, _, _ := c.run(0, "cluster", "status")
		leader = slices.IndexFunc(strings.Split(stdout, "\n"), func(line string) bool { return strings.HasSuffix(line, "  leads") })
		return leader >= 0
	})
	return leader
}

// awaitTitles waits until each of the nodes lists these titles.
func (c *cluster) awaitTitles(want string, nodes ...*server) {
	c.t.Helper()
	for _, n := range nodes {
		await(c.t, n.URL+" has "+want, func() bool { return n.titles("") == want })
	}
}

// Three machines are set up as the documentation says, one of them is lost, comes back, and in the end one of them goes on alone.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start()
	for _, n := range c.nodes {
		for _, usual := range []string{"connect to route", "Waiting for routing", "established contact", "WARN The database was replaced"} {
			if strings.Contains(n.output.String(), usual) {
				t.Errorf("a start at which nothing is wrong says %q:\n%s", usual, n.output)
			}
		}
		response, err := http.Get(n.URL + "/")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("the page of %s: got %s", n.URL, response.Status)
		}
	}
	first := c.leader()
	follower := c.nodes[(first+1)%3]
	callback, received := receivePosts(t, http.StatusOK)
	follower.mustSend(userPayload("c1", "First", "B", "", callback))
	wantBody(t, received, `"title":"First"`)
	c.awaitTitles("First", c.nodes...)

	// Commands work beside each of them.
	for i, n := range c.nodes {
		email := clusterNames[i] + "@example.com"
		if stdout, stderr, ok := c.run(i, "superuser", "upsert", email, testPassword); !ok {
			t.Errorf("superuser: %s%s", stdout, stderr)
		}
		if token := n.SignIn("_superusers", email, testPassword); token == "" {
			t.Errorf("%s can't sign in", email)
		}
	}
	if stdout, stderr, ok := c.run((first+1)%3, "modelriver", "status"); !ok || !strings.Contains(stdout, "received   1") {
		t.Errorf("status: %s%s", stdout, stderr)
	}

	c.nodes[first].Kill()
	await(t, "a webhook is accepted without the node that led", func() bool { return follower.Send(payload("c2", "Second", "")) == http.StatusOK })
	left := []*server{c.nodes[(first+1)%3], c.nodes[(first+2)%3]}
	c.awaitTitles("First Second", left...)
	if stdout, stderr, ok := c.run(0, "cluster", "status"); ok || !strings.Contains(stdout, "can't be reached") || !strings.Contains(stderr, "the others go on without "+clusterNames[first]) {
		t.Errorf("status without one: success %t, %s%s", ok, stdout, stderr)
	}
	c.nodes[first].Start()
	c.awaitTitles("First Second", c.nodes[first])
	last := c.awaitAll()
	if !strings.Contains(c.nodes[last].output.String(), "The node "+clusterNames[last]+" leads\n") {
		t.Errorf("the node that leads doesn't say so:\n%s", c.nodes[last].output)
	}

	if _, stderr, ok := c.run(last, "cluster", "leave"); ok || !strings.Contains(stderr, "runs at 127.0.0.1:") || !strings.Contains(stderr, "stop it first") {
		t.Errorf("leave beside nodes that run: success %t, %q", ok, stderr)
	}
	for i := range c.nodes {
		if i != last {
			c.nodes[i].Stop()
		}
	}
	c.nodes[last].Stop()
	alone := c.nodes[last]
	alone.launch()
	away := `This node waits for the others because="the node ` + clusterNames[min((last+1)%3, (last+2)%3)] + ": dial tcp "
	await(t, "a node that is alone says for whom it waits", func() bool { return strings.Contains(alone.output.String(), away) })
	alone.Kill()
	if out := c.mustRun(last, "cluster", "leave"); !strings.Contains(out, "is a database without other nodes") || !strings.Contains(out, filepath.Join(alone.Dir, "superseded-")) {
		t.Errorf("leave: %s", out)
	}
	if aside, _ := filepath.Glob(filepath.Join(alone.Dir, "superseded-*", "data.db-log", "snapshots", "*.db")); len(aside) == 0 {
		t.Error("the log wasn't put aside")
	}
	if _, stderr, ok := c.run(last, "serve", "--http", "127.0.0.1:0"); ok || !strings.Contains(stderr, `it has rows and follows no log: "cluster init" begins one with it`) {
		t.Errorf("a node with the database that left: success %t, %q", ok, stderr)
	}
	alone.env = append(alone.env, "POCKETRIVER_NODE=", "POCKETRIVER_PEERS=")
	alone.Start()
	c.awaitTitles("First Second", alone)
	alone.mustSend(payload("c3", "Third", ""))
	alone.Stop()

	// And grows again. The databases of before are put out of the way.
	alone.env = append(alone.env, "POCKETRIVER_NODE="+clusterNames[last], "POCKETRIVER_PEERS="+c.peers)
	c.mustRun(last, "cluster", "init")
	for i, n := range c.nodes {
		if i == last {
			continue
		}
		if err := os.Rename(n.Dir, n.Dir+"-before"); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	c.awaitTitles("First Second Third", c.nodes...)
}

// What docs/cluster.md says of certificates, upgrades and machines, as one after the other is restarted and none is missed: each
// step is well before the next.
func TestClusterOneAfterTheOther(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i, n := range c.nodes { // as in a container, which has another address than the others know
		_, address, _ := strings.Cut(strings.Split(c.peers, ",")[i], "=")
		_, port, _ := strings.Cut(address, ":")
		n.env = append(n.env, "POCKETRIVER_LISTEN=0.0.0.0:"+port)
	}
	c.start()
	want := "0"
	c.nodes[0].mustSend(payload("c0", want, ""))
	next := 1
	each := func(change func(i int)) {
		t.Helper()
		for i, n := range c.nodes {
			n.Stop()
			change(i)
			other := c.nodes[(i+1)%3]
			title := strconv.Itoa(next)
			await(t, "a webhook is accepted meanwhile", func() bool { return other.Send(payload("c"+title, title, "")) == http.StatusOK })
			want += " " + title
			next++
			n.Start()
			c.awaitAll()
		}
		c.awaitTitles(want, c.nodes...)
	}

	// Certificates of another CA: first both are trusted, then the new ones are shown, then the old ones are trusted no more.
	fresh := filepath.Join(c.base, "new")
	c.mustRun(0, "cluster", "certs", "a", "b", "c", "--into", fresh)
	file := func(folder string, i int, name string) string { return filepath.Join(folder, clusterNames[i], name) }
	read := func(path string) []byte {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	write := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certs := filepath.Join(c.base, "certs")
	each(func(i int) {
		write(file(certs, i, "ca.pem"), append(read(file(certs, i, "ca.pem")), read(file(fresh, i, "ca.pem"))...))
	})
	each(func(i int) {
		write(file(certs, i, "node.pem"), read(file(fresh, i, "node.pem")))
		write(file(certs, i, "node.key"), read(file(fresh, i, "node.key")))
	})
	each(func(i int) { write(file(certs, i, "ca.pem"), read(file(fresh, i, "ca.pem"))) })

	// Another machine in the place of one that is gone, with its name and certificates, and another address. The one that was gone doesn't start
	// as that node any more.
	lost := c.awaitAll()
	gone := c.nodes[lost]
	gone.Kill()
	back, backEnv := filepath.Join(c.base, "back"), slices.Clone(gone.env)
	if err := os.Rename(gone.Dir, back); err != nil {
		t.Fatal(err)
	}
	peers := strings.Split(c.peers, ",")
	address := freeAddresses(t, 2)[0]
	peers[lost] = clusterNames[lost] + "=" + address
	for _, n := range c.nodes {
		n.env = append(n.env, "POCKETRIVER_PEERS="+strings.Join(peers, ","))
	}
	gone.env = append(gone.env, "POCKETRIVER_LISTEN="+address)
	gone.launch()
	for i, n := range c.nodes {
		if i != lost {
			n.Stop()
			n.Start()
		}
	}
	gone.awaitStarted()
	c.awaitAll()
	c.awaitTitles(want, c.nodes...)
	if _, stderr, ok := runOn(t, gone.binary, back, backEnv, "serve", "--http", "127.0.0.1:0"); ok || !strings.Contains(stderr, "another machine is the node "+clusterNames[lost]+", at "+address+": leave this one off") {
		t.Errorf("the machine that was gone: success %t, %s", ok, stderr)
	}
	c.awaitAll()

	// A backup, which makes a database to begin with again.
	last := c.awaitAll()
	follower := c.nodes[(last+1)%3]
	token := follower.SignIn("_superusers", testEmail, testPassword)
	follower.API(token, http.MethodPost, "/api/backups", map[string]any{"name": "backup.zip"}, nil)
	restored := filepath.Join(t.TempDir(), "pb_data")
	if err := archive.Extract(filepath.Join(c.nodes[last].Dir, "backups", "backup.zip"), restored); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"leave", "init"} {
		if _, stderr, ok := runOn(t, follower.binary, restored, nil, "cluster", command); !ok || stderr != "" {
			t.Errorf("cluster %s: success %t, %s", command, ok, stderr)
		}
	}
	if n := countRows(t, openDatabase(t, restored), "aiContent"); n != next {
		t.Errorf("the backup has %d records, want %d", n, next)
	}

	// A migration, which an upgrade may have: a node that has it waits for who leads to have made it, and the last one that
	// is restarted is who leads. No migration is made twice, and what is changed in the dashboard makes none.
	follower.API(token, http.MethodPost, "/api/collections", map[string]any{"type": "base", "name": "made"}, nil)
	writeBeside(t, c.nodes[0].Dir, "pb_migrations/1900000000_more.js", `migrate((app) => app.save(new Collection({type: "base", name: "more"})))`)
	for i, n := range c.nodes {
		if i != last {
			n.Stop()
			n.launch()
		}
	}
	c.nodes[last].Stop()
	c.nodes[last].launch()
	for _, n := range c.nodes {
		n.awaitStarted()
		if got := countRows(t, openDatabase(t, n.Dir), "_migrations WHERE file = '1900000000_more.js'"); got != 1 {
			t.Errorf("the migration was made %d times", got)
		}
	}
	if files, err := filepath.Glob(filepath.Join(c.base, "*migrations", "*")); err != nil || len(files) != 1 {
		t.Errorf("migrations: got %v, %v", files, err)
	}
}

// The copy of a machine serves while that is off, and ends when it is back.
func TestClusterHasACopyOfAMachine(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start()
	machine := c.nodes[(c.leader()+1)%3]
	machine.Stop()
	twin := machine.another(filepath.Join(c.base, "copy"))
	if err := os.CopyFS(twin.Dir, os.DirFS(machine.Dir)); err != nil {
		t.Fatal(err)
	}
	twin.env = append(slices.Clone(machine.env), "POCKETRIVER_LISTEN="+freeAddresses(t, 2)[0])
	twin.Start()
	machine.Start()
	await(t, "the copy ends", func() bool {
		select {
		case <-twin.exited:
			return true
		default:
			return false
		}
	})
	if text := twin.output.String(); twin.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, "Error: ") || !strings.Contains(text, "another machine is the node ") {
		t.Errorf("the copy ended: %s\n%s", twin.cmd.ProcessState, text)
	}
	c.awaitAll()
	c.nodes[0].mustSend(payload("c1", "First", ""))
	c.awaitTitles("First", c.nodes...)
}

// Half a configuration is refused, with what to do, before anything is made; what needs no database works.
func TestClusterConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	binary, base := buildBinary(t), t.TempDir()
	if err := replica.WriteCerts(filepath.Join(base, "certs"), clusterNames...); err != nil {
		t.Fatal(err)
	}
	const node, peers = "POCKETRIVER_NODE=a", "POCKETRIVER_PEERS=a=127.0.0.1:17000,b=127.0.0.1:17010,c=127.0.0.1:17020"
	for _, row := range []struct {
		name, want string
		env        []string
	}{
		{"no peers", "POCKETRIVER_NODE is set, and POCKETRIVER_PEERS isn't: set that to the addresses of all nodes", []string{node}},
		{"no name", "POCKETRIVER_PEERS is set, and POCKETRIVER_NODE isn't: set that to the name of this node", []string{peers}},
		{"certificates only", "POCKETRIVER_CERTS is set, and POCKETRIVER_NODE isn't", []string{"POCKETRIVER_CERTS=/tmp"}},
		{"an address to listen at only", "POCKETRIVER_LISTEN is set, and POCKETRIVER_NODE isn't", []string{"POCKETRIVER_LISTEN=127.0.0.1:1"}},
		{"a peer without an address", `POCKETRIVER_PEERS: "b" is no node with its address: write them as in a=10.0.0.1:8100`, []string{node, "POCKETRIVER_PEERS=a=127.0.0.1:1,b,c=127.0.0.1:3"}},
		{"spaces for commas", `POCKETRIVER_PEERS: "a=127.0.0.1:1 b=127.0.0.1:3 c=127.0.0.1:5" is no node with its address`, []string{node, "POCKETRIVER_PEERS=a=127.0.0.1:1 b=127.0.0.1:3 c=127.0.0.1:5"}},
		{"a comma too many", `POCKETRIVER_PEERS: "" is no node`, []string{node, peers + ","}},
		{"a peer twice", `the node "a" is there twice: give each a name of its own`, []string{node, "POCKETRIVER_PEERS=a=127.0.0.1:1,a=127.0.0.1:3,c=127.0.0.1:5"}},
		{"two nodes", "there are 2 nodes: name three or five", []string{node, "POCKETRIVER_PEERS=a=127.0.0.1:17000,b=127.0.0.1:17010"}},
		{"none of them", `the node "d" is none of its peers, which are a, b, c: name it as it's called there`, []string{"POCKETRIVER_NODE=d", peers}},
		{"a name that is none", `the node's name "../a": use letters, digits, - and _`, []string{"POCKETRIVER_NODE=../a", "POCKETRIVER_PEERS=../a=127.0.0.1:17000,b=127.0.0.1:17010,c=127.0.0.1:17020"}},
		{"an address without a port", "missing port in address", []string{node, "POCKETRIVER_PEERS=a=127.0.0.1:17000,b=127.0.0.1:17010,c=127.0.0.1"}},
		{"ports that overlap", "a node has the port of its address and the next one", []string{node, "POCKETRIVER_PEERS=a=127.0.0.1:17000,b=127.0.0.1:17001,c=127.0.0.1:17020"}},
		{"an address to listen at without a port", `the address "127.0.0.1" to listen at: address 127.0.0.1: missing port`, []string{node, peers, "POCKETRIVER_LISTEN=127.0.0.1"}},
		{"no certificates", `"cluster certs" makes a folder of them for each node`, []string{node, peers, "POCKETRIVER_CERTS=" + base}},
		{"a replica too", "REPLICA_URL and POCKETRIVER_NODE are set: several nodes ship nothing, so far: unset one of them", []string{node, peers, "REPLICA_URL=file://" + base + "/replica"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(base, strings.ReplaceAll(row.name, " ", "-"))
			for _, args := range [][]string{{"serve", "--http", "127.0.0.1:0"}, {"migrate", "up"}, {"modelriver", "status"}} {
				_, stderr, ok := runOn(t, binary, dir, row.env, args...)
				if ok || !strings.HasPrefix(stderr, "Error: ") || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, row.want) {
					t.Errorf("%v: success %t, error %q, want %q once", args, ok, stderr, row.want)
				}
			}
			for _, args := range [][]string{{"--help"}, {"--version"}, {"cluster"}, {"cluster", "init", "--help"}, {"cluster", "certs", "a", "b", "c", "--into", dir + "-certs"}} {
				if stdout, stderr, ok := runOn(t, binary, dir, row.env, args...); !ok || stderr != "" || stdout == "" {
					t.Errorf("%v: success %t: %s%s", args, ok, stdout, stderr)
				}
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("a data directory was made")
			}
			if _, stderr, ok := runOn(t, binary, dir, row.env, "cluster", "init"); !ok || stderr != "" {
				t.Errorf("cluster init: success %t, %q", ok, stderr)
			}
			if _, stderr, ok := runOn(t, binary, dir, row.env, "cluster", "leave"); !ok || stderr != "" {
				t.Errorf("cluster leave: success %t, %q", ok, stderr)
			}
		})
	}
}

// A database that follows a log is written by a node only, and shipped by nobody.
func TestDatabaseOfNodesIsRefused(t *testing.T) {
	t.Parallel()
	binary, dir := buildBinary(t), filepath.Join(t.TempDir(), "pb_data")
	if _, stderr, ok := runOn(t, binary, dir, nil, "cluster", "init"); !ok {
		t.Fatal(stderr)
	}
	before := dumpDatabase(t, dir)
	place := filepath.Join(t.TempDir(), "replica")
	for _, env := range [][]string{nil, {"REPLICA_URL=file://" + place}} {
		for _, args := range [][]string{{"serve", "--http", "127.0.0.1:0"}, {"migrate", "up"}, {"superuser", "upsert", testEmail, testPassword}, {"modelriver", "status"}} {
			_, stderr, ok := runOn(t, binary, dir, env, args...)
			if ok || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, `set POCKETRIVER_NODE and POCKETRIVER_PEERS, as before, or end that with "cluster leave"`) {
				t.Errorf("%v %v: success %t, error %q", env, args, ok, stderr)
			}
		}
	}
	mustEqual(t, "it was written to", before, dumpDatabase(t, dir))
	if _, err := os.Stat(place); err == nil {
		t.Error("it was shipped")
	}
	app := buildHost(t, snippet(t, "README.md", "Embed it in your PocketBase app"))
	if stdout, stderr, _ := runOn(t, app, dir, nil, "modelriver", "status"); !strings.Contains(stdout+stderr, "is the database of several nodes") {
		t.Errorf("an app that embeds the plugin: %s%s", stdout, stderr)
	}
	if _, stderr, ok := runOn(t, binary, dir, nil, "cluster", "leave"); !ok {
		t.Fatal(stderr)
	}
	if _, stderr, ok := runOn(t, binary, dir, nil, "migrate", "up"); !ok {
		t.Errorf("after it has left: %s", stderr)
	}
}

// What the commands of a cluster can't do, they say, with what helps.
func TestClusterCommandsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, filepath.Join(t.TempDir(), "pb_data"))
	base := filepath.Dir(s.Dir)
	if err := replica.WriteCerts(filepath.Join(base, "certs"), clusterNames...); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"cluster", "certs"}, "there are 0 nodes: name three or five"},
		{[]string{"cluster", "certs", "a", "b"}, "there are 2 nodes: name three or five"},
		{[]string{"cluster", "certs", "a", "b", "b"}, `the node "b" is there twice`},
		{[]string{"cluster", "certs", "a", "b", "c/d"}, `the node's name "c/d": use letters`},
		{[]string{"cluster", "certs", "x", "y", "c"}, filepath.Join(base, "certs", "c") + " is there already: write the new certificates into another folder"},
		{[]string{"cluster", "init"}, "stop what else has it open"},
		{[]string{"cluster", "leave"}, "it follows none: there is nothing to end"},
		{[]string{"cluster", "status"}, "this is no node: set POCKETRIVER_NODE and POCKETRIVER_PEERS"},
		{[]string{"cluster", "bogus"}, `unknown command "bogus"`},
	} {
		if _, stderr, ok := runOn(t, s.binary, s.Dir, nil, row.args...); ok || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, row.want) {
			t.Errorf("%v: success %t, error %q, want %q", row.args, ok, stderr, row.want)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(base, "certs")); len(entries) != 3 {
		t.Errorf("folders of certificates: got %v", entries)
	}
	if _, stderr, ok := runOn(t, s.binary, filepath.Join(base, "nothing"), nil, "cluster", "leave"); ok || !strings.Contains(stderr, "there is no database") {
		t.Errorf("leave where nothing is: success %t, %q", ok, stderr)
	}
}

// make cluster goes on when the node that leads is killed, Ctrl-C leaves nothing of it that runs, and the next one goes on with what is there.
func TestMakeCluster(t *testing.T) {
	t.Parallel()
	dir, api := filepath.Join(t.TempDir(), "cluster"), freeAddress(t)
	ports := freeAddresses(t, 17)
	_, port, _ := strings.Cut(ports[0], ":")
	args := []string{"cluster", "BINARY=" + buildBinary(t), "CLUSTER=" + dir, "CLUSTER_PORT=" + port, "DEMO_API=" + api, "DEMO_EVERY=100ms"}
	log, interrupt := startMake(t, args...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output:\n%s", log)
		}
	})
	all := &server{t: t, URL: "http://127.0.0.1:" + port}
	grows := func() {
		t.Helper()
		before := -1
		await(t, "more content is listed", func() bool {
			status, answer := all.request("", http.MethodGet, "/api/collections/aiContent/records?perPage=1&fields=id", "")
			var list struct{ TotalItems int }
			if status != http.StatusOK || json.Unmarshal([]byte(answer), &list) != nil {
				return false
			}
			if before < 0 {
				before = list.TotalItems
			}
			return list.TotalItems > before
		})
	}
	find := func(pattern string) []string {
		t.Helper()
		var found []string
		await(t, pattern+" is printed", func() bool {
			found = regexp.MustCompile(pattern).FindStringSubmatch(log.String())
			return found != nil
		})
		return found
	}
	for i, name := range clusterNames {
		address := find("Node " + name + `: +http://(\S+)/ +pid \d+\n`)[1]
		if address != ports[i+1] {
			t.Errorf("the node %s has %s, want %s", name, address, ports[i+1])
		}
	}
	grows()
	all.signInAsPrinted("_superusers", find(`(?s).*Dashboard: .*`)[0], `sign in as (\S+) with (\S+)`)
	all.signInAsPrinted("users", log.String(), `Sign in to ask: (\S+) with (\S+)`)

	leader := find(`Node (.) leads\.\n`)[1]
	pid, err := strconv.Atoi(find("Node " + leader + `: .* pid (\d+)\n`)[1])
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	find("Node " + leader + " has ended")
	grows()
	find("(?s)Node " + leader + " has ended.*Node " + leader + ": ")
	grows()

	free := func() {
		t.Helper()
		interrupt()
		for _, address := range append(ports, api) {
			if connection, err := net.Dial("tcp", address); err == nil {
				connection.Close()
				t.Errorf("somebody listens at %s", address)
			}
		}
	}
	free()
	before := countRows(t, openDatabase(t, filepath.Join(dir, "a")), "aiContent")
	log, interrupt = startMake(t, args...)
	find("Page: ")
	grows()
	if now := countRows(t, openDatabase(t, filepath.Join(dir, "a")), "aiContent"); now < before {
		t.Errorf("the second run has %d records, want those of the first: %d", now, before)
	}
	free()
}

// make cluster ends where another program has a port of a node, says what to do, and leaves nothing that runs.
func TestMakeClusterOnATakenPort(t *testing.T) {
	t.Parallel()
	ports := freeAddresses(t, 17)
	_, port, _ := strings.Cut(ports[0], ":")
	listener, err := net.Listen("tcp", ports[2])
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := filepath.Join(t.TempDir(), "cluster")
	out, err := inRepository("make", "-s", "-o", "pocketriver", "cluster", "BINARY="+buildBinary(t), "CLUSTER="+dir, "CLUSTER_PORT="+port, "DEMO_API="+freeAddress(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the node b: exit status 1: Error: ") ||
		!strings.Contains(string(out), "address already in use") || !strings.Contains(string(out), "\nif a port is taken: end what has it, as nodes of a run that was killed, or: make cluster CLUSTER_PORT=") {
		t.Errorf("got %v:\n%s", err, out)
	}
	for i, address := range ports {
		if connection, err := net.Dial("tcp", address); err == nil {
			connection.Close()
			if i != 2 {
				t.Errorf("somebody listens at %s", address)
			}
		}
	}
}

// The documentation names variables that there are, and all of them.
func TestClusterVariables(t *testing.T) {
	t.Parallel()
	variables := func(name string) []string {
		found := regexp.MustCompile(`POCKETRIVER_[A-Z]+`).FindAllString(repositoryFile(t, name), -1)
		slices.Sort(found)
		return slices.Compact(found)
	}
	all := variables("hooks/replica/env.go")
	for _, name := range []string{"docs/cluster.md", "docs/reference.md", "CHANGELOG.md"} {
		if got := variables(name); !slices.Equal(got, all) {
			t.Errorf("%s: got %v, want %v", name, got, all)
		}
	}
	for _, name := range variables("docs/compose.yaml") {
		if !slices.Contains(all, name) {
			t.Errorf("docs/compose.yaml: there is no %s", name)
		}
	}
}

// The documentation's example of an app of one's own is a node, by the same environment and commands.
func TestClusterEmbeds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	app := buildHost(t, snippet(t, "docs/cluster.md", "In your own app"))
	for _, n := range c.nodes {
		n.binary = app
	}
	if _, stderr, ok := runOn(t, app, filepath.Join(t.TempDir(), "pb_data"), []string{"POCKETRIVER_NODE=a"}, "serve"); ok || !strings.Contains(stderr, "POCKETRIVER_PEERS isn't: set that") {
		t.Errorf("half a configuration: success %t, %q", ok, stderr)
	}
	c.start()
	c.nodes[(c.leader()+1)%3].mustSend(payload("c1", "First", ""))
	c.awaitTitles("First", c.nodes...)
}

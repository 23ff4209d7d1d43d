package replica

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A loggingApp is one that only logs.
type loggingApp struct {
	core.App
	log apptest.Buffer
}

// newLoggingApp returns one that a node has, as if it had bootstrapped.
func newLoggingApp(node *Node, secret string) *loggingApp {
	app := &loggingApp{App: core.NewBaseApp(core.BaseAppConfig{})}
	node.app.Store(app)
	node.bootstrapped.Store(true)
	node.Secret("key", secret)
	return app
}

func (a *loggingApp) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(&a.log, nil)) }

// lines returns the lines of the log that tell of one of the other nodes.
func (a *loggingApp) lines(other string) (lines []string) {
	for line := range strings.Lines(a.log.String()) {
		if strings.Contains(line, " other="+other) {
			lines = append(lines, regexp.MustCompile(`^time=\S+ `).ReplaceAllString(strings.TrimSpace(line), ""))
		}
	}
	return lines
}

// state returns how a node sees another one, or itself.
func (c *cluster) state(i, of int) NodeState {
	for _, s := range c.nodes[i].State() {
		if s.Name == c.configs[of].Node {
			return s
		}
	}
	return NodeState{}
}

// Each node says once what another one has that isn't the same, and once that it is again.
func TestNodesTellWhatDiffers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	var apps [3]*loggingApp
	keys := [3]string{"first-secret", "first-secret", "first-secret"}
	c.prepare = func(i int, node *Node) {
		apps[i] = newLoggingApp(node, keys[i])
	}
	for i := range c.configs {
		c.configs[i].Same = map[string]string{"PocketRiver": "1.2", "pb_hooks": "abc"}
	}
	like := c.configs[2]
	c.configs[2].Same = map[string]string{"PocketRiver": "1.3", "pb_hooks": "abc", "pb_migrations": "def"}
	c.configs[2].Peers = map[string]string{"n1": like.Peers["n1"], "n3": like.Peers["n3"], "n4": like.Peers["n2"]}
	keys[2] = "other-secret"
	c.start(t, 0, 1, 2)
	want := "[its peers are n1, n3, n4, and here n1, n2, n3 its PocketRiver is 1.3, and here 1.2 its pb_migrations is def, and here unknown its key is another one]"
	told := func(i, of int, want string) {
		t.Helper()
		apptest.Eventually(t, fmt.Sprintf("n%d tells of n%d: %s", i+1, of+1, want), func() bool {
			s := c.state(i, of)
			return s.Reached && s.Position > 0 && fmt.Sprint(s.Differs) == want
		})
	}
	told(0, 2, want)
	told(1, 2, want)
	told(0, 1, "[]")
	apptest.Eventually(t, "n3 tells who answers at an address", func() bool {
		states := c.nodes[2].State()
		return len(states) == 3 && states[2].Name == "n4" && slices.Contains(states[2].Differs, "at its address answers the node n2")
	})
	c.stop(t, 2)
	apptest.Eventually(t, "n3 is lost", func() bool { s := c.state(0, 2); return !s.Reached && !s.Leads && s.LagSeconds > 0 })
	c.configs[2], keys[2] = like, "first-secret"
	c.start(t, 2)
	told(0, 2, "[]")
	for i := range 2 {
		apptest.Eventually(t, "the end is said", func() bool { return len(apps[i].lines("n3")) == 2 })
		lines := apps[i].lines("n3")
		if begin := fmt.Sprintf("level=WARN msg=\"Another node is not as this one\" node=n%d other=n3 differs=%q", i+1, "its peers are n1, n3, n4, and here n1, n2, n3; its PocketRiver is 1.3, and here 1.2; its pb_migrations is def, and here unknown; its key is another one"); lines[0] != begin {
			t.Errorf("got %s\nwant %s", lines[0], begin)
		}
		if end := fmt.Sprintf("level=INFO msg=\"Another node is as this one again\" node=n%d other=n3", i+1); lines[1] != end {
			t.Errorf("got %s\nwant %s", lines[1], end)
		}
		if lines := apps[i].lines(c.configs[1-i].Node); len(lines) > 0 {
			t.Errorf("got %q", lines)
		}
		for _, value := range []string{"first-secret", "other-secret"} {
			if strings.Contains(apps[i].log.String(), value) {
				t.Error("a secret is in the log")
			}
		}
	}
}

// A node says once that another one is away for long, why, and once that it is back.
func TestNodesTellWhoIsAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	var apps [3]*loggingApp
	c.prepare = func(i int, node *Node) { apps[i] = newLoggingApp(node, "secret") }
	c.start(t, 0, 1, 2)
	apptest.Eventually(t, "n3 is known", func() bool { return c.state(0, 2).Reached })
	c.stop(t, 2)
	apptest.Eventually(t, "n3 is lost", func() bool { return !c.state(0, 2).Reached })
	watch := &c.nodes[0].watch
	watch.mu.Lock()
	watch.others["n3"].heard.at.Store(0) // as if that were long ago
	watch.mu.Unlock()
	apptest.Eventually(t, "it's said", func() bool { return len(apps[0].lines("n3")) > 0 })
	c.start(t, 2)
	apptest.Eventually(t, "the end is said", func() bool { return len(apps[0].lines("n3")) > 1 })
	lines := apps[0].lines("n3")
	if !strings.HasPrefix(lines[0], "level=WARN msg=\"Another node can't be reached\" node=n1 other=n3 because=\"dial tcp ") ||
		lines[1] != "level=INFO msg=\"Another node is reached again\" node=n1 other=n3" || len(lines) > 2 {
		t.Errorf("got %q", lines)
	}
}

// What the log's server can't do each second, as connect to a node with certificates of another set, isn't logged each second.
func TestServerOfTheLogIsQuiet(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.stop(t, 2)
	dir := t.TempDir()
	if err := WriteCerts(dir, "n1", "n2", "n3"); err != nil {
		t.Fatal(err)
	}
	config, err := c.configs[2].check()
	if err != nil {
		t.Fatal(err)
	}
	config.Certs = filepath.Join(dir, "n3")
	var log apptest.Buffer
	third := newStreamLog(config, func() *slog.Logger {
		return slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	third.admits = func(string, string, net.Addr) bool { return true }
	openLog(t, third, c.paths[2])
	apptest.Eventually(t, "it has tried", func() bool { return strings.Contains(log.String(), "failed to verify certificate") })
	if err := third.close(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=ERROR") {
			t.Errorf("got %s", line)
		}
	}
}

// Where programs write formats of the log that differ, it's said what helps.
func TestNodesTellTheirFormats(t *testing.T) {
	t.Parallel()
	got := differences("n2", report{Format: 1, Log: "aaaa"}, report{Node: "n2", Format: 2, Log: "bbbb"})
	if want := "[its database follows another log its format of the log is 2, and here 1: run the newer program on both]"; fmt.Sprint(got) != want {
		t.Errorf("got %s", got)
	}
}

// A node that reads no newer format takes nothing of it, and says what helps. It goes on with the newer program.
func TestOlderProgramTakesNoNewerEntry(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	var apps [3]*loggingApp
	c.prepare = func(i int, node *Node) {
		apps[i] = newLoggingApp(node, "secret")
	}
	c.start(t, 0, 1, 2)
	c.insert(t, "before")
	c.same(t)
	leader := c.leader(t)
	older, _ := others(leader)
	position, err := c.nodes[leader].position()
	if err == nil {
		err = c.nodes[leader].log.append(position, []byte{entryVersion + 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	apptest.Eventually(t, "it says what helps", func() bool {
		return strings.Contains(apps[older].log.String(), fmt.Sprintf("the entry has version %d, and this program reads %d: run the newer program here", entryVersion+1, entryVersion))
	})
	if c.nodes[older].condemned.Load() {
		t.Error("its database is condemned")
	}
	if got := query(t, c.dbs[older], "SELECT b FROM a"); fmt.Sprint(got) != "[before]" {
		t.Errorf("got %s", got)
	}
}

// State tells who leads, and how far each node is.
func TestStateTellsHowFarNodesAre(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	behind, other := others(leader)
	apptest.Eventually(t, "all are well", func() bool {
		for of := range 3 {
			s := c.state(other, of)
			if !s.Reached || s.Leads != (of == leader) || s.Here != (of == other) || s.Behind != 0 || s.Position == 0 || s.Lag() != "" || s.Address != c.configs[0].Peers[s.Name] || len(s.Differs) > 0 {
				return false
			}
		}
		return true
	})
	c.nodes[behind].mu.Lock() // so that it applies nothing
	for i := range 10 {
		c.insert(t, fmt.Sprint(i))
	}
	apptest.Eventually(t, "it is told how far one is behind", func() bool {
		s := c.state(other, behind)
		return s.Reached && s.Behind == 10 && s.Lag() != "" && strings.Contains(s.InWords(), "; 10 entries and ")
	})
	c.nodes[behind].mu.Unlock()
	apptest.Eventually(t, "it is there again", func() bool { s := c.state(other, behind); return s.Behind == 0 && s.Lag() == "" })
}

// setClocks has each node's clock be set in tests.
func (c *cluster) setClocks() (clocks [3]*atomic.Int64) {
	for i := range clocks {
		clocks[i] = &atomic.Int64{}
	}
	c.prepare = func(i int, node *Node) {
		node.clock = func() time.Time { return time.Now().Round(0).Add(time.Duration(clocks[i].Load())) }
	}
	return clocks
}

// countLeads counts how often a node begins to lead from now on.
func (c *cluster) countLeads(i int) (led *atomic.Int32) {
	led = &atomic.Int32{}
	c.nodes[i].starting.Store(false) // as once its app serves
	c.nodes[i].OnLead(func() { led.Add(1) })
	return led
}

// A node whose clock is a bit wrong is told of, and leads. One whose clock is far from most has another one lead, and leads all the same if
// that comes back to it.
func TestNodeWithAWrongClock(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	clocks := c.setClocks()
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	a, b := others(leader)
	clock := func(i, of int, want string) {
		t.Helper()
		apptest.Eventually(t, "the clock is told of: "+want, func() bool { s := c.state(i, of); return s.Reached && fmt.Sprint(s.Differs) == want })
	}
	clocks[leader].Store(int64(5 * time.Second))
	clock(a, leader, "[its clock is 5s ahead]")
	clock(leader, b, "[its clock is 5s behind]")
	clock(a, b, "[]")
	clocks[leader].Store(0)
	clock(a, leader, "[]")
	if c.nodes[leader].handed.at.Load() != 0 {
		t.Fatal("it had another one lead")
	}
	c.makeLead(t, leader) // which a machine that is too slow may have changed

	led := c.countLeads(leader)
	clocks[leader].Store(int64(-70 * time.Second))
	apptest.Eventually(t, "another node leads", func() bool { return c.nodes[a].Leads() || c.nodes[b].Leads() })
	c.insert(t, "after")
	c.same(t)
	if led.Load() > 0 {
		t.Error("it has led again")
	}
	clock(leader, leader, "["+astrayClock+"]")
	clock(a, leader, "[its clock is 1m10s behind "+astrayClock+"]")

	c.makeLead(t, leader)
	c.insert(t, "comes back")
	apptest.Eventually(t, "it has begun to lead", func() bool { return led.Load() > 0 })
	if !c.nodes[leader].Leads() {
		t.Error("it has another one lead again")
	}
	clocks[leader].Store(0)
	clock(leader, leader, "[]")
	c.same(t)
}

// A node whose clock is wrong takes nothing over that another one can, also if one of the others is gone.
func TestNodeWithAWrongClockDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	clocks := c.setClocks()
	c.start(t, 0, 1, 2)
	leader := c.leader(t)
	wrong, right := others(leader)
	led := c.countLeads(wrong)
	clocks[wrong].Store(int64(time.Hour))
	apptest.Eventually(t, "it knows", func() bool { return c.nodes[wrong].watch.astray.Load() })
	c.giveWay(t, wrong)
	c.insert(t, "one")
	apptest.Eventually(t, "it had another one lead", func() bool { return c.nodes[wrong].handed.at.Load() != 0 })
	c.nodes[wrong].handed.at.Store(0)
	c.makeLead(t, leader)
	c.stop(t, leader)
	c.insert(t, "two")
	apptest.Eventually(t, "it doesn't reach the one that is gone", func() bool { return !c.state(wrong, leader).Reached })
	if !c.nodes[right].Leads() || led.Load() > 0 || !c.nodes[wrong].watch.astray.Load() {
		t.Error("it leads, or would")
	}
}

// Of two nodes whose clocks are wrong, one leads, while the third one is gone.
func TestTwoNodesWithWrongClocks(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	clocks := c.setClocks()
	c.start(t, 0, 1, 2)
	a, b := others(2)
	clocks[a].Store(int64(time.Hour))
	clocks[b].Store(int64(-time.Hour))
	for _, i := range []int{a, b} {
		apptest.Eventually(t, "it knows", func() bool { return c.nodes[i].watch.astray.Load() })
	}
	c.insert(t, "one")
	c.stop(t, 2)
	for i, other := range map[int]int{a: b, b: a} {
		apptest.Eventually(t, "it knows of the others", func() bool {
			return !c.state(i, 2).Reached && c.nodes[i].watch.astray.Load() && slices.Contains(c.state(i, other).Differs, astrayClock)
		})
	}
	c.insert(t, "two")
	leader := c.nodes[c.leader(t)]
	leader.handed.at.Store(0)
	for range 3 { // after which it has looked twice at least
		before := leader.heard.at.Load()
		apptest.Eventually(t, "it looks whether it may lead", func() bool { return leader.heard.at.Load() != before || leader.handed.at.Load() != 0 })
	}
	if !leader.Leads() || leader.handed.at.Load() != 0 {
		t.Error("it has the other one lead")
	}
}

// A node whose clock is set doesn't wait with asking what those of the others say, so that nothing is dated by a wrong one meanwhile.
func TestNodeSeesAtOnceThatItsClockIsSet(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		var set atomic.Int64
		n := &Node{clock: func() time.Time { return time.Now().Round(0).Add(time.Duration(set.Load())) }}
		own, over := clock{said: n.clock(), at: time.Now()}, make(chan time.Time)
		seen := make(chan struct{})
		go func() {
			n.awaitStep(t.Context(), own, over)
			close(seen)
		}()
		set.Store(int64(step))
		select {
		case <-seen:
		case <-time.After(time.Minute):
			t.Fatalf("it doesn't see that its clock was set by %s", step)
		}
		set.Store(0)
		go func() { over <- time.Now() }()
		n.awaitStep(t.Context(), clock{said: n.clock(), at: time.Now()}, over) // which ends with the pause
	}
}

// The one in the middle of the clocks isn't astray, and of two it isn't known.
func TestWhoseClockIsAstray(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, row := range []struct {
		others []time.Duration // seconds ahead
		want   bool
	}{
		{nil, false},
		{[]time.Duration{3600}, false},
		{[]time.Duration{59, 59}, false},
		{[]time.Duration{61, 61}, true},
		{[]time.Duration{-61, -3600}, true},
		{[]time.Duration{-3600, 3600}, false},
		{[]time.Duration{0, 3600}, false},
		{[]time.Duration{0, 70, 70}, false},
		{[]time.Duration{70, 70, 70}, true},
		{[]time.Duration{0, 0, 70, 70}, false},
		{[]time.Duration{0, -70, -70}, false},
		{[]time.Duration{0, -70, -70, -70}, true},
	} {
		others := map[string]*other{"never reached": {}}
		for i, ahead := range row.others {
			o := &other{}
			o.clock.hear(now.Round(0).Add(ahead*time.Second), now)
			others[fmt.Sprint(i)] = o
		}
		if got := isAstray(others, now); got != row.want {
			t.Errorf("%v: got %v", row.others, got)
		}
	}
}

func TestHashFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hash := func() string {
		t.Helper()
		got, err := HashFiles(filepath.Join(dir, "pb_hooks"))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := []string{hash()}
	if seen[0] != "none" {
		t.Errorf("got %s without a folder", seen[0])
	}
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(dir, "elsewhere", "lib"), 0o700) },
		func() error { return os.WriteFile(filepath.Join(dir, "elsewhere", "a.pb.js"), []byte("1"), 0o600) },
		func() error { return os.WriteFile(filepath.Join(dir, "elsewhere", "a.pb.js"), []byte("2"), 0o600) },
		func() error { return os.WriteFile(filepath.Join(dir, "elsewhere", "lib", "b.js"), []byte("2"), 0o600) },
		func() error {
			return os.Rename(filepath.Join(dir, "elsewhere", "lib", "b.js"), filepath.Join(dir, "elsewhere", "b.js"))
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		_ = os.Symlink("elsewhere", filepath.Join(dir, "pb_hooks"))
		seen = append(seen, hash())
	}
	if seen[1] != "none" {
		t.Errorf("got %s of an empty folder", seen[1])
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 5 {
		t.Errorf("got %q", seen)
	}
	before := hash()
	for _, name := range []string{".git/config", ".DS_Store"} {
		path := filepath.Join(dir, "elsewhere", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := hash(); got != before || len(got) != hashLength {
		t.Errorf("got %s, and before %s", got, before)
	}
}

// A command asks all nodes, also that of its own machine, and compares them with itself.
func TestCommandTellsHowNodesStand(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "CREATE TABLE a (b)")
	c.start(t, 0, 1, 2)
	c.insert(t, "one")
	c.same(t)
	leader := c.leader(t)
	stopped, up := others(leader)
	c.stop(t, stopped)
	config := c.configs[up]
	config.Same = map[string]string{"PocketRiver": "1.3"}
	command, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	command.rootCmd.Store(&cobra.Command{}) // under which no serve was called
	states := command.State()
	for i, s := range states {
		differs := "[its PocketRiver is unknown, and here 1.3]"
		if i == stopped {
			differs = "[]"
		}
		if s.Name != c.configs[i].Node || s.Reached != (i != stopped) || s.Leads != (i == leader) || s.Here != (i == up) || s.Behind != 0 || fmt.Sprint(s.Differs) != differs {
			t.Errorf("got %+v", s)
		}
	}
	if len(states) != 3 || states[up].Position == 0 {
		t.Errorf("got %+v", states)
	}
}

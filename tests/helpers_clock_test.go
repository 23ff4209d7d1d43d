package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/replica"
)

// clockFile, in a node's folder, has the seconds by which its clock is ahead.
const clockFile = "clock"

// clockSource is one more file of the standard library's package time. Its own goroutine reads the file that TEST_CLOCK
// names, as the clock is read also where nothing may wait.
const clockSource = `package time

import (
	"sync/atomic"
	"syscall"
)

var stepped atomic.Int64

func init() {
	name, ok := syscall.Getenv("TEST_CLOCK")
	if !ok {
		return
	}
	readStep(name)
	go func() {
		for {
			Sleep(10 * Millisecond)
			readStep(name)
		}
	}()
}

func readStep(name string) {
	file, err := open(name)
	if err != nil {
		return
	}
	defer closefd(file)
	text := make([]byte, 20)
	n, err := read(file, text)
	if err != nil || n == 0 {
		return
	}
	if seconds, err := atoi(text[:n]); err == nil {
		stepped.Store(int64(seconds))
	}
}

func steppedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	return sec + stepped.Load(), nsec, mono
}
`

// buildSettable builds the server that these tests are, with another time.Now, which is ahead by what [node.setClock] says;
// what tells how much time passes isn't. No library between Go and the system could do that, as Go asks none. It takes
// minutes the first time, as all packages are built anew.
func buildSettable(t testing.TB) string {
	t.Helper()
	path, err := settableOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var settableOnce = sync.OnceValues(func() (string, error) {
	const reads, steps = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := steppedNow()\n"
	root, err := inRepository("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	if strings.Count(string(source), reads) != 1 {
		return "", fmt.Errorf("time.Now of %s is another one: change it here as it is now", runtime.Version())
	}
	overlay := map[string]string{}
	for name, text := range map[string]string{"time.go": strings.Replace(string(source), reads, steps, 1), "stepped.go": clockSource} {
		path := filepath.Join(buildDir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return "", err
		}
		overlay[filepath.Join(library, name)] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	path, listPath := filepath.Join(buildDir, "settable"), filepath.Join(buildDir, "overlay.json")
	if err := os.WriteFile(listPath, list, 0o644); err != nil {
		return "", err
	}
	if out, err := inRepository("go", "test", "-c", "-overlay", listPath, "-o", path, "./tests").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return path, nil
})

// setClock sets what a node's clock is ahead, if it's one of [buildSettable].
func (n *node) setClock(ahead time.Duration) {
	n.t.Helper()
	path := filepath.Join(n.base, clockFile)
	if err := os.WriteFile(path, strconv.AppendInt(nil, int64(ahead/time.Second), 10), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// differs returns in what a node finds that one of the nodes, or itself, isn't as the others are, and whether it has heard of all.
func (n *node) differs() (differs []string, all bool) {
	response, err := n.client.Get(n.URL + "/state")
	if err != nil {
		return nil, false
	}
	defer response.Body.Close()
	var states []replica.NodeState
	if err := json.NewDecoder(response.Body).Decode(&states); err != nil {
		return nil, false
	}
	all = len(states) > 0
	for _, s := range states {
		differs, all = append(differs, s.Differs...), all && s.Reached
	}
	return differs, all
}

// awaitAlike waits until no node finds that one differs.
func (f *nodesRun) awaitAlike() {
	f.t.Helper()
	for _, n := range f.nodes {
		await(f.t, "nothing differs", func() bool { differs, all := n.differs(); return all && len(differs) == 0 })
	}
}

// mustDate fails unless what comes to a node is stored with the time that it is.
func (f *nodesRun) mustDate(through *node) {
	f.t.Helper()
	w := f.newWebhook(kindCallback, f.receivers[0].url, 100)
	await(f.t, "a webhook is accepted through a node", func() bool { return f.postTo(through.URL, w) == http.StatusOK })
	var created types.DateTime
	await(f.t, "the node has it", func() bool {
		db := openDatabase(f.t, through.Dir)
		defer db.Close()
		return db.NewQuery("SELECT created FROM aiContent WHERE channelId = {:channel}").Bind(dbx.Params{"channel": w.channel}).Row(&created) == nil
	})
	if off := time.Since(created.Time()).Abs(); off > time.Minute {
		f.t.Errorf("what was stored now is dated %s, which is %s off", created, off)
	}
}

package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An askRun is a real server that users ask all the time, while it is killed: a faultRun with
// the ledger of what they asked.
type askRun struct {
	*torture
	gateway  *gateway
	echoes   bool              // webhooks tell whose answer they are
	ids      map[string]string // of the users, by name
	tokens   map[string]string
	watchers []*watcher
	pause    sync.RWMutex // of the users that ask all the time
	base     string
	size     string
}

// askers ask, all at the same time; the others only look.
var askers = []string{"ann", "bob", "cyd"}

// Nothing that a user asked is lost, generated twice or seen by another, whatever befalls
// server, gateway and ModelRiver, and whether or not webhooks tell whose answer they are.
func TestAskFaults(t *testing.T) {
	t.Parallel()
	seed := faultSeed()
	for name, echoes := range map[string]bool{"with the ids echoed": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Logf("go test -run TestAskFaults ./tests -torture %s -seed %d", *tortureFor, seed)
			run := startAskRun(t, seed, echoes)
			began := time.Now()
			run.load(func() {
				for _, p := range pointedKills {
					run.killAt(p)
				}
				run.killClaimed()
				t.Logf("pointed kills over after %s", time.Since(began))
				run.killAtRandom()
				t.Logf("kills at random over after %s", time.Since(began))
			})
			t.Logf("settled after %s", time.Since(began))
			run.balance()
		})
	}
}

func startAskRun(t testing.TB, seed uint64, echoes bool) *askRun {
	t.Helper()
	base, size := t.TempDir(), "64m"
	if *tortureFor > shortTorture {
		size = "8g"
	}
	mount(t, base, size)
	river := newModelRiver(t, "", seed)
	t.Cleanup(func() { // also of a run that was cut short
		river.mu.Lock()
		defer river.mu.Unlock()
		river.reportViolations()
	})
	g := newGateway(t, newAskLedger(river), seed)
	dir := newDataDir(t, base)
	writeBeside(t, dir, "pb_hooks/moments.pb.js", momentHook)
	s := startServer(t, dir, "MODELRIVER_API_URL="+g.url, "TEST_MOMENTS="+g.url+"/moment/")
	g.webhookURL = s.URL + "/webhooks/modelriver"
	f := &faultRun{server: s, modelRiver: river, t: t, rng: rand.New(rand.NewPCG(seed, 1)), token: s.Superuser()}
	run := &askRun{
		torture: &torture{faultRun: f, end: time.Now().Add(*tortureFor), faults: map[string]int{}},
		gateway: g, echoes: echoes, ids: map[string]string{}, tokens: map[string]string{}, base: base, size: size,
	}
	cacheFields := ""
	if echoes {
		cacheFields = "request_id,user_id"
	}
	common := []string{"--cache-fields", cacheFields, "--speed", "1000", "--delay", "50ms"}
	startSimulator(t, s, strings.TrimPrefix(g.simulators[0], "http://"), g.url+"/0/webhook", append(common,
		"--answer", "early:every=5,twice:every=7,never:every=11,error:every=13",
		"--fail", "429:every=9,503:every=14,500:every=17,error:every=19,cut:every=10")...)
	startSimulator(t, s, strings.TrimPrefix(g.simulators[1], "http://"), g.url+"/1/webhook", common...)

	s.API(f.token, http.MethodPatch, "/api/collections/aiRequests", map[string]any{"createRule": `@request.auth.id != ""`}, nil)
	s.API(f.token, http.MethodPatch, "/api/settings", map[string]any{"batch": map[string]any{"enabled": true, "maxRequests": 10, "timeout": 10}}, nil)
	for _, name := range append(slices.Clone(askers), "dan") {
		run.ids[name] = s.user(f.token, name+"@example.com")
		run.tokens[name] = s.SignIn("users", name+"@example.com", testPassword)
	}
	run.tokens["guest"] = ""
	for name, token := range run.tokens {
		run.watchers = append(run.watchers, &watcher{name: name, token: token, run: run, listed: map[string]bool{}, live: map[string]bool{}})
	}
	return run
}

// load has users ask and look while during runs, and look on until all has settled.
func (run *askRun) load(during func()) {
	run.t.Helper()
	asking, stopAsking := context.WithCancel(context.Background())
	looking, stopLooking := context.WithCancel(context.Background())
	var users, watchers sync.WaitGroup
	defer func() { // also of a fault that fails the test
		stopAsking()
		users.Wait()
		stopLooking()
		watchers.Wait()
	}()
	for _, v := range run.watchers {
		watchers.Go(func() { v.watch(looking) })
	}
	for i := range 2 * len(askers) {
		rng := rand.New(rand.NewPCG(run.rng.Uint64(), uint64(i)))
		users.Go(func() { run.asks(asking, askers[i%len(askers)], rng) })
	}
	during()
	stopAsking()
	users.Wait()
	run.settleAsked()
}

// settleAsked waits until every request was sent, every webhook taken, and called back.
func (run *askRun) settleAsked() {
	run.t.Helper()
	settle(run.t, run.Dir, 5*time.Minute)
	db := openDatabase(run.t, run.Dir)
	defer db.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		generations, ended := run.gateway.simulated()
		queued := countRows(run.t, db, "aiRequests WHERE state = 'queued'")
		if queued == 0 && ended == generations {
			break
		}
		if time.Now().After(deadline) {
			run.t.Fatalf("%d requests are queued, and %d generations of %d ended", queued, ended, generations)
		}
	}
	settle(run.t, run.Dir, time.Minute)
}

// killAtRandom lets anything happen at any moment.
func (run *askRun) killAtRandom() {
	run.gateway.setMoody(true)
	surroundings, happenings := run.surroundings(run.base, run.size), run.happenings()
	for run.end = time.Now().Add(*tortureFor); time.Now().Before(run.end); {
		if run.rng.IntN(6) == 0 {
			run.strike(surroundings[run.rng.IntN(len(surroundings))], happenings[run.rng.IntN(len(happenings))])
			continue
		}
		run.sleep(10*time.Millisecond, 400*time.Millisecond)
		what := happenings[run.rng.IntN(len(happenings))]
		if what.happen() {
			run.Start()
		}
		run.faults[what.name]++
	}
	run.background.Wait()
	run.gateway.setMoody(false)
	run.kill()                                                              // what could not be written down is waited for no longer
	inPast(run.t, run.Dir, "modelriverCallbacks", "nextAttempt", "pending") // a lease of one that was killed twice
	run.Start()
}

// balance checks the ledger, and once more when the time for answers is over.
func (run *askRun) balance() {
	t := run.t
	t.Helper()
	run.checkSeen()
	run.Stop()
	stored := readAsked(t, run.Dir)
	run.gateway.check(stored, run.ids, run.echoes, false)
	t.Log(run.gateway.tally(stored))

	generations, _ := run.gateway.simulated()
	taken := 0
	for _, q := range run.gateway.questions {
		taken += q.taken
	}
	if taken != generations {
		t.Errorf("the simulators count %d generations, the gateway %d", generations, taken)
	}

	inPast(t, run.Dir, "aiRequests", "expires", "sent")
	run.Start()
	db := openDatabase(t, run.Dir)
	await(t, "no request waits", func() bool { return countRows(t, db, "aiRequests WHERE state IN ('queued', 'sent')") == 0 })
	run.Stop()
	run.gateway.check(readAsked(t, run.Dir), run.ids, run.echoes, true)
	t.Logf("survived %d kills and these faults: %v", run.kills, run.faults)
}

// checkSeen compares what users saw with what there is, now that nothing changes any more:
// else a watcher who sees nothing at all would find no fault.
func (run *askRun) checkSeen() {
	t := run.t
	t.Helper()
	db := openDatabase(t, run.Dir)
	defer db.Close()
	unmatched := countRows(t, db, "aiContent WHERE userId = '"+unmatchedUser+"'")
	total := func(token, path, filter string) int {
		var list struct{ TotalItems int }
		run.API(token, http.MethodGet, "/api/collections/"+path+"/records?perPage=1&filter="+url.QueryEscape(filter), nil, &list)
		return list.TotalItems
	}
	if got := total(run.token, "aiContent", "userId = '"+unmatchedUser+"'"); got != unmatched {
		t.Errorf("superusers see %d answers of which nobody knows whose they are, want %d", got, unmatched)
	}
	for _, v := range run.watchers {
		id := run.ids[v.name]
		want := countRows(t, db, "aiContent WHERE userId = '"+id+"' AND userId != ''")
		if got := total(v.token, "aiContent", ""); got != want {
			t.Errorf("%s sees %d answers, want %d", v.name, got, want)
		}
		if slices.Contains(askers, v.name) && (len(v.listed) < 5 || len(v.live) < 5) {
			t.Errorf("%s saw %d of their own questions listed and %d live, want more", v.name, len(v.listed), len(v.live))
		}
	}
	run.checkFound(total)
}

// checkFound has clients that were cut off find by its content what they may have made: some,
// because PocketBase lets whoever finds nothing wait.
func (run *askRun) checkFound(total func(token, path, filter string) int) {
	run.t.Helper()
	stored := readAsked(run.t, run.Dir)
	looked := map[int]int{} // by how many requests there are
	for text, q := range run.gateway.questions {
		if q.answered == http.StatusOK {
			continue
		}
		rows := len(stored.requests[text])
		if looked[rows]++; looked[rows] > 5 {
			continue
		}
		if got := total(run.tokens[q.user], "aiRequests", fmt.Sprintf(`input ~ '"%s"'`, text)); got != rows {
			run.t.Errorf("%s finds %d requests of %s, want %d", q.user, got, text, rows)
		}
	}
}

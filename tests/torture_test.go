package tests

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const shortTorture = 8 * time.Second

var (
	tortureFor  = flag.Duration("torture", shortTorture, "how long TestTorture, TestThreeNodesTorture and TestAskFaults go on; with more than the default, TestThreeNodes sets clocks too")
	tortureSeed = flag.Uint64("seed", 0, "of what TestTorture, TestThreeNodesTorture, TestAskFaults and TestLiveQueriesAtRandom do by chance (default: a new one)")
)

// faultSeed returns the seed that was asked for, or a new one.
func faultSeed() uint64 {
	if *tortureSeed != 0 {
		return *tortureSeed
	}
	return rand.Uint64()
}

// Every fault, at random moments and on top of each other.
func TestTorture(t *testing.T) {
	t.Parallel()
	seed := faultSeed()
	t.Logf("go test -run TestTorture ./tests -torture %s -seed %d", *tortureFor, seed)

	base, size := t.TempDir(), "64m"
	if *tortureFor > shortTorture {
		size = "8g"
	}
	mount(t, base, size)
	tor := newTorture(newFaultRun(t, base, seed))
	defer tor.background.Wait()
	surroundings, happenings := tor.surroundings(base, size), tor.happenings()
	tor.run(false, func() {
		for time.Now().Before(tor.end) {
			if time.Until(tor.end) < callbackWindow {
				tor.prepareEnd()
			}
			tor.changeMoods()
			tor.strike(surroundings[tor.rng.IntN(len(surroundings))], happenings[tor.rng.IntN(len(happenings))])
			tor.sleep(10*time.Millisecond, time.Second)
		}
		for _, r := range tor.moody {
			r.set(accepts)
		}
		if *tortureFor <= shortTorture {
			tor.Restart() // leases would take 40 s
		}
	})
	t.Logf("survived %d kills and these faults: %v", tor.kills, tor.faults)
}

// callbackWindow is how long a callback is tried, and how long its last attempt and lease
// take.
const callbackWindow = 5*time.Minute + 90*time.Second

// A torture is a faultRun whose faults come by chance.
type torture struct {
	*faultRun
	end        time.Time
	ending     bool        // all callbacks from now on can be delivered
	moody      []*receiver // they change; the others are good
	reachable  []*receiver
	moods      []behaviour
	background sync.WaitGroup
	kills      int
	faults     map[string]int // how often, by name
}

// newTorture adds receivers to the good one of a run. Two that can't be reached take the
// whole window to fail, and so are part of long runs only, and not of their end.
func newTorture(f *faultRun) *torture {
	tor := &torture{faultRun: f, end: time.Now().Add(*tortureFor), ending: *tortureFor <= callbackWindow, faults: map[string]int{}}
	good := f.receivers[0]
	tor.moods = []behaviour{
		accepts, accepts, hangs, trickles, tricklesBody, resets, resetsInBody, answersHugely, closesConnections,
		retryAfter(false), retryAfter(true), answers(500), answers(503), answers(410), redirects(307, good.url),
	}
	for range 4 {
		tor.moody = append(tor.moody, f.newReceiver(accepts))
	}
	tor.reachable = slices.Concat([]*receiver{good, f.newReceiver(accepts)}, tor.moody)
	f.receivers = tor.reachable
	if !tor.ending {
		f.receivers = slices.Concat(tor.reachable, []*receiver{{url: closedPort(f.t)}, {url: "https://callbacks.invalid"}})
	}
	return tor
}

// prepareEnd sees to it that every callback can be delivered within what is left.
func (tor *torture) prepareEnd() {
	tor.modelRiver.mu.Lock()
	defer tor.modelRiver.mu.Unlock()
	tor.receivers = tor.reachable
	if !tor.ending { // an old webhook that comes again arms its failed callback
		tor.modelRiver.answered = nil
	}
	tor.ending = true
}

func (tor *torture) changeMoods() {
	for _, r := range tor.moody {
		if tor.rng.IntN(3) == 0 {
			r.set(tor.moods[tor.rng.IntN(len(tor.moods))])
		}
	}
}

// A surrounding is a fault of what is around the server. It may leave the process unable
// to start until it ends.
type surrounding struct {
	name  string
	begin func() (end func())
}

func (tor *torture) surroundings(base, size string) []surrounding {
	return []surrounding{
		{"calm", func() func() { return func() {} }},
		{"locked database", tor.hold},
		{"full disk", func() func() { return fill(tor.t, base, size) }},
		{"failed syncs", func() func() { return tor.inject("fdatasync,fsync", "EIO") }},
		{"failed writes", func() func() { return tor.inject("pwrite64", "EIO") }},
		{"backup", func() func() {
			tor.background.Go(tor.backUp)
			return func() {}
		}},
		{"command", func() func() {
			args := [][]string{{"superuser", "upsert", "other@example.com", "correct horse"}, {"migrate", "up"}}[tor.rng.IntN(2)]
			tor.background.Go(func() { tor.command(args...) })
			return func() {}
		}},
		{"junk", func() func() {
			stop := make(chan struct{})
			for range 4 {
				tor.background.Go(func() { sendJunk(tor.URL, stop) })
			}
			return func() { close(stop) }
		}},
	}
}

// backUp asks for a backup, which may be refused or cut off.
func (tor *torture) backUp() {
	request, _ := http.NewRequest(http.MethodPost, tor.URL+"/api/backups", strings.NewReader(`{"name":"torture.zip"}`))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", tor.token)
	if response, err := http.DefaultClient.Do(request); err == nil {
		response.Body.Close()
	}
}

// A happening is what befalls the process itself.
type happening struct {
	name   string
	happen func() (ended bool)
}

func (tor *torture) happenings() []happening {
	kill := happening{"kill -9", func() bool { tor.kill(); return true }}
	return []happening{
		{"nothing", func() bool { return false }},
		kill,
		kill,
		{"SIGTERM", func() bool {
			if took := tor.terminate(); took > 5*time.Second {
				tor.t.Logf("exit took %s", took)
			}
			return true
		}},
		{"standstill", func() bool {
			tor.cmd.Process.Signal(syscall.SIGSTOP)
			tor.sleep(10*time.Millisecond, 3*time.Second)
			tor.cmd.Process.Signal(syscall.SIGCONT)
			return false
		}},
	}
}

func (tor *torture) kill() {
	tor.Kill()
	tor.kills++
}

// strike lets something happen to the process within a surrounding, and starts it again.
func (tor *torture) strike(around surrounding, what happening) {
	tor.logNow("%s", around.name)
	finish := around.begin()
	tor.sleep(10*time.Millisecond, 1500*time.Millisecond)
	tor.logNow("%s in %s", what.name, around.name)
	ended := what.happen()
	tor.sleep(10*time.Millisecond, 300*time.Millisecond)
	finish()
	if ended {
		tor.Start()
	}
	if tor.rng.IntN(4) == 0 && ended { // once more, before it has settled
		tor.sleep(time.Millisecond, 50*time.Millisecond)
		tor.kill()
		tor.Start()
	}
	tor.logNow("%s over", around.name)
	tor.faults[around.name]++
	tor.faults[what.name]++
}

// logNow logs something with what the ledger knows then.
func (f *faultRun) logNow(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t.Logf("%s (%d webhooks, answers %v)", fmt.Sprintf(format, args...), f.last, f.statuses)
}

// sendJunk posts what nobody signed, over one connection, and returns how much.
func sendJunk(url string, stop <-chan struct{}) (sent int) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for {
		select {
		case <-stop:
			return sent
		default:
		}
		request, err := http.NewRequest(http.MethodPost, url+"/webhooks/modelriver", strings.NewReader(`{"type":"task.ai_generated","ai_response":{"data":{}}}`))
		if err != nil {
			panic(err)
		}
		request.Header.Set("mr-signature", strings.Repeat("0", 64))
		response, err := client.Do(request)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		sent++
	}
}

package tests

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const shortTorture = 8 * time.Second

var (
	tortureFor  = flag.Duration("torture", shortTorture, "how long TestTorture goes on")
	tortureSeed = flag.Uint64("seed", 0, "of TestTorture's faults (default: a new one)")
)

// Every fault, at random moments and on top of each other.
func TestTorture(t *testing.T) {
	t.Parallel()
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run TestTorture . -torture %s -seed %d", *tortureFor, seed)

	base := t.TempDir()
	size := "64m"
	if *tortureFor > shortTorture {
		size = "8g"
	}
	mount(t, base, size)
	f := newFaultRun(t, base, seed)
	faults, kills := map[string]int{}, 0
	end := time.Now().Add(*tortureFor)

	// Two receivers are good, the others change. Two that can't be reached take the
	// whole window to fail, and so are part of long runs only, and not of their end.
	good := f.receivers[0]
	f.receivers = append(f.receivers, f.newReceiver(accepts))
	var moody []*receiver
	for range 4 {
		moody = append(moody, f.newReceiver(accepts))
	}
	f.receivers = append(f.receivers, moody...)
	reachable := f.receivers
	window := 5*time.Minute + 90*time.Second
	if *tortureFor > window {
		f.receivers = append(f.receivers[:len(f.receivers):len(f.receivers)], &receiver{url: closedPort(t)}, &receiver{url: "https://callbacks.invalid"})
	}
	moods := []behaviour{
		accepts, accepts, hangs, trickles, tricklesBody, resets, resetsInBody, answersHugely, closesConnections,
		retryAfter(false), retryAfter(true), answers(500), answers(503), answers(410), redirects(307, good.url),
	}

	// A fault of the surroundings begins, and its end is returned. It may leave the
	// process unable to start.
	var background sync.WaitGroup
	defer background.Wait()
	surroundings := []struct {
		name  string
		begin func() (end func())
	}{
		{"calm", func() func() { return func() {} }},
		{"locked database", f.hold},
		{"full disk", func() func() { return fill(t, base, size) }},
		{"failed syncs", func() func() { return f.inject("fdatasync,fsync", "EIO") }},
		{"failed writes", func() func() { return f.inject("pwrite64", "EIO") }},
		{"backup", func() func() {
			background.Go(func() { // it may be refused, or cut off
				request, _ := http.NewRequest(http.MethodPost, f.URL+"/api/backups", strings.NewReader(`{"name":"torture.zip"}`))
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("Authorization", f.token)
				if response, err := http.DefaultClient.Do(request); err == nil {
					response.Body.Close()
				}
			})
			return func() {}
		}},
		{"command", func() func() {
			args := [][]string{{"superuser", "upsert", "other@example.com", "correct horse"}, {"migrate", "up"}}[f.rng.IntN(2)]
			background.Go(func() { f.command(args...) })
			return func() {}
		}},
		{"junk", func() func() {
			stop := make(chan struct{})
			for range 4 {
				background.Go(func() { sendJunk(f.URL, stop) })
			}
			return func() { close(stop) }
		}},
	}
	happenings := []struct {
		name   string
		happen func() (ended bool)
	}{
		{"nothing", func() bool { return false }},
		{"kill -9", func() bool { f.Kill(); kills++; return true }},
		{"kill -9", func() bool { f.Kill(); kills++; return true }},
		{"SIGTERM", func() bool {
			if took := f.terminate(); took > 5*time.Second {
				t.Logf("exit took %s", took)
			}
			return true
		}},
		{"standstill", func() bool {
			f.cmd.Process.Signal(syscall.SIGSTOP)
			f.sleep(10*time.Millisecond, 3*time.Second)
			f.cmd.Process.Signal(syscall.SIGCONT)
			return false
		}},
	}

	ending := *tortureFor <= window
	f.run(false, func() {
		for time.Now().Before(end) {
			if time.Until(end) < window {
				f.modelRiver.mu.Lock()
				f.receivers = reachable
				if !ending { // an old webhook that comes again arms its failed callback
					f.modelRiver.answered = nil
				}
				f.modelRiver.mu.Unlock()
				ending = true
			}
			for _, r := range moody {
				if f.rng.IntN(3) == 0 {
					r.set(moods[f.rng.IntN(len(moods))])
				}
			}
			around := surroundings[f.rng.IntN(len(surroundings))]
			f.note("%s", around.name)
			finish := around.begin()
			f.sleep(10*time.Millisecond, 1500*time.Millisecond)
			what := happenings[f.rng.IntN(len(happenings))]
			f.note("%s in %s", what.name, around.name)
			ended := what.happen()
			f.sleep(10*time.Millisecond, 300*time.Millisecond)
			finish()
			if ended {
				f.Start()
			}
			if f.rng.IntN(4) == 0 && ended { // once more, before it has settled
				f.sleep(time.Millisecond, 50*time.Millisecond)
				f.Kill()
				kills++
				f.Start()
			}
			f.note("%s over", around.name)
			faults[around.name]++
			faults[what.name]++
			f.sleep(10*time.Millisecond, time.Second)
		}
		for _, r := range moody {
			r.set(accepts)
		}
		if *tortureFor <= shortTorture {
			f.Restart() // leases would take 40 s
		}
	})
	t.Logf("survived %d kills and these faults: %v", kills, faults)
}

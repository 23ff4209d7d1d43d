package tests

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const shortLive = 15 * time.Second

var liveFor = flag.Duration("live", shortLive, "how long TestLiveQueriesAtRandom goes on")

// In a long run each query has this much time from the last change on: one that is known by
// events alone, which never polls here, and one that needs to, which does so faster. A short run
// is one of many tests at a time, and only has to end well.
const (
	decidableWithin = 2 * time.Second
	polledWithin    = 10 * time.Second
	pollsFaster     = 20
)

// TestLiveQueriesAtRandom has some seventy live queries of every form, of guests, users and a
// superuser, follow random changes of every kind under faults. Whenever the writers pause,
// each shows what the server lists for its viewer.
func TestLiveQueriesAtRandom(t *testing.T) {
	t.Parallel()
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run TestLiveQueriesAtRandom ./tests -live %s -seed %d", *liveFor, seed)
	began := time.Now()
	r := newLiveRun(t, seed)
	r.openViewers()
	r.check()
	t.Logf("%d queries show their rows after %s", r.compared, time.Since(began).Round(time.Second))

	faults := r.faults()
	order := r.rng.Perm(len(faults))
	began = time.Now()
	quiet, round := began, 0
	for ; time.Since(began) < *liveFor || round < len(faults)/2; round++ {
		if round%len(faults) == 0 {
			order = r.rng.Perm(len(faults))
		}
		fault := faults[order[round%len(faults)]]
		r.note("round %d: %s", round, fault.name)
		if r.long() {
			t.Logf("round %d: %s", round, fault.name)
		}
		r.whileWriting(fault.do)
		r.check()
		if r.long() && time.Since(quiet) > 5*time.Minute {
			r.note("a quiet minute")
			time.Sleep(idleCut + 5*time.Second)
			quiet = time.Now()
		}
		if round%10 == 9 {
			t.Logf("%s: %s", time.Since(began).Round(time.Second), r.summary(round+1))
		}
	}
	t.Log("in all, ", r.summary(round))
	for _, v := range r.viewers {
		if v.late > 0 && r.long() {
			t.Errorf("%s: not in time after %d of %d rounds, the slowest after %s", v.name, v.late, round, v.slowest)
		}
		v.Clean(false)
	}
}

func (r *liveRun) long() bool { return *liveFor > shortLive }

// check waits until every query shows what the server lists.
func (r *liveRun) check() {
	r.t.Helper()
	var checks sync.WaitGroup
	for _, v := range r.viewers {
		checks.Go(v.becomesEqual)
	}
	checks.Wait()
	for _, v := range r.viewers {
		r.compared += v.compared
		v.compared = 0
		for _, name := range v.unequal {
			r.explain(v, name)
		}
		if wrong := eval[[]string](v.tab, "wrong"); len(wrong) > 0 {
			r.t.Errorf("%s: shown meanwhile: %q", v.name, wrong)
		}
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// becomesEqual compares the viewer's queries until all show what the server lists.
func (v *viewer) becomesEqual() {
	began, within := time.Now(), decidableWithin
	if v.polls {
		within = polledWithin
	}
	v.unequal = v.nowUnequal(nil)
	var last []string
	asked := time.Duration(0)
	for len(v.unequal) > 0 && asked < patience {
		last, asked = v.unequal, time.Since(began)
		// To list the others too would keep the server from what these wait for.
		if v.unequal = v.nowUnequal(last); len(v.unequal) == 0 {
			v.unequal = v.nowUnequal(nil) // of some, what they show depends on the time of day
		}
	}
	v.slowest = max(v.slowest, asked) // by then they were equal
	if asked > within {
		v.late++
		if *liveFor > shortLive {
			v.t.Logf("%s: equal after %s, the last were %s", v.name, asked.Round(time.Millisecond), eval[[]string](v.tab, fmt.Sprintf("asked(%s)", list(last))))
		}
	}
}

// nowUnequal names those of the queries, or of all, that do not show what the server lists.
func (v *viewer) nowUnequal(of []string) (names []string) {
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	v.compared += len(of)
	if of == nil {
		v.compared += len(v.queries)
	}
	names, err := chromedp.Run(ctx, chromedp.Evaluate[[]string]("unequal("+list(of)+")", chromedp.EvalAwaitPromise))
	if err != nil {
		v.t.Errorf("%s: %v", v.name, err)
	}
	return names
}

// list returns the names as JavaScript has them.
func list(names []string) string {
	text, err := json.Marshal(names)
	if err != nil {
		panic(err) // texts always encode
	}
	return string(text)
}

// explain says how a query differs from the server's list, and what is known of the rows
// that make the difference.
func (r *liveRun) explain(v *viewer, name string) {
	r.t.Helper()
	found := eval[struct {
		Query, State  json.RawMessage
		Shown, Listed []string
		Differ        []string
		Events        []string
	}](v.tab, fmt.Sprintf("explain(%q)", name))
	r.t.Errorf("%s, %s: %s does not show what the server lists: %s\nshown:  %q\nlisted: %q", v.name, name, found.Query, found.State, found.Shown, found.Listed)
	r.log.Lock()
	defer r.log.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line, "round ") {
			r.t.Log(line)
		}
		for _, id := range found.Differ {
			if strings.Contains(line, id) {
				r.t.Log(line)
				break
			}
		}
	}
	r.t.Logf("events:\n%s", strings.Join(found.Events, "\n"))
}

func (r *liveRun) summary(rounds int) string {
	lists, queries := 0, 0
	times := []string{}
	for _, v := range r.viewers {
		lists += eval[int](v.tab, "lists")
		queries += len(v.queries)
		times = append(times, fmt.Sprintf("%s %.1fs", v.name, v.slowest.Seconds()))
	}
	return fmt.Sprintf("%d rounds, %d changes, %d queries compared %d times, %d lists asked by them, slowest until equal: %s",
		rounds, r.changes.Load(), queries, r.compared, lists, strings.Join(times, ", "))
}

// whileWriting has the fault happen under changes, which go on until everybody has had the
// time to come back.
func (r *liveRun) whileWriting(fault func()) {
	r.t.Helper()
	end := make(chan struct{})
	var writing sync.WaitGroup
	r.refresh()
	for range writers {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 2))
		writing.Go(func() {
			for {
				n := r.change(rng)
				r.changes.Add(int64(n))
				select {
				case <-end:
					return
				case <-time.After(time.Duration(max(n, 1)) * writerPause):
				}
			}
		})
	}
	r.sleep(300*time.Millisecond, time.Second)
	fault()
	if r.long() {
		r.sleep(4*time.Second, 9*time.Second)
	} else {
		r.sleep(time.Second, 2*time.Second)
	}
	close(end)
	writing.Wait()
}

func (r *liveRun) sleep(from, to time.Duration) {
	time.Sleep(from + time.Duration(r.rng.Int64N(int64(to-from))))
}

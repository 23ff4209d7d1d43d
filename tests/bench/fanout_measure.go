//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
)

func (b *bench) showAll(part string, audiences []audience, connections int, phase loadPhase) (map[fanoutCell][]showing, error) {
	showings := map[fanoutCell][]showing{}
	for round := range b.rounds {
		for _, a := range audiences {
			for _, v := range b.comparedServers() {
				s, err := b.show(v, a, connections, phase)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", v.name, a, err)
				}
				progress("round %d/%d  %s  %-24s %-11s %5.0f rps  answer p50 %6s ms  last p50 %6s p99 %6s ms  %5s µs CPU/event  %+v",
					round+1, b.rounds, part, a, v.name, s.rps, ms(s.ack50), ms(s.last50), ms(s.last99), us(s.perEvent), s.faults)
				key := fanoutCell{a, v.name}
				showings[key] = append(showings[key], s)
			}
		}
	}
	return showings, nil
}

// show measures one server with one audience.
func (b *bench) show(v variant, a audience, connections int, phase loadPhase) (result showing, err error) {
	if err := b.ctx.Err(); err != nil {
		return result, err
	}
	data := b.publicData
	if a.users {
		data = b.privateData
	}
	s, _, err := b.serve(v.kind, data)
	if err != nil {
		return result, err
	}
	defer s.stop()
	db, err := openData(s)
	if err != nil {
		return result, err
	}
	defer db.Close()

	// Warm up before anyone watches.
	const warm = 200
	requests := phase.most()
	if err := b.warmUp(v, s, warm); err != nil {
		return result, err
	}
	load, err := startReady("load", loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: connections, First: warm, Count: requests})
	if err != nil {
		return result, err
	}
	defer load.close()
	watchers, memory, err := b.startWatchers(s, a, viewersConfig{Addr: s.addr, Count: a.count, First: warm, Limit: requests, Own: a.own, Filter: a.filter})
	if err != nil {
		return result, err
	}
	defer watchers.close()
	beside, err := b.startBeside(s, a, viewersConfig{Count: a.count, First: warm, Limit: requests})
	defer beside.close()
	if err != nil {
		return result, err
	}

	w, err := b.watchPhase(s, load, watchers, phase, a)
	if err != nil {
		return result, err
	}
	n := len(w.sent.Seqs)
	if err := checkStored(db, v, nil, 0, n+warm); err != nil {
		return result, err
	}
	latencies := w.sent.latencies()
	result = showing{
		ack50: percentile(latencies, 50), ack99: percentile(latencies, 99),
		rps:          float64(n) / w.sent.took().Seconds(),
		perViewer:    memory,
		viewersShare: w.seen.CPU.Seconds() / w.took.Seconds(),
		perWebhook:   w.used / time.Duration(n),
	}
	if a.count > 0 && !a.own { // those may get none, which watchPhase sees to
		err = result.addEvents(db, w, warm+requests)
	}
	return result, err
}

// most is more requests than are sent in the phase.
func (p loadPhase) most() int {
	if p.Rate > 0 {
		return int(2 * p.Rate * p.Duration.Seconds())
	}
	return int(maxRate * p.Duration.Seconds())
}

// unmeasured are the subscribers of other nodes.
type unmeasured []*helper

func (all unmeasured) close() {
	for _, h := range all {
		h.close()
	}
}

// startBeside starts as many subscribers at each other node.
func (b *bench) startBeside(s *server, a audience, config viewersConfig) (all unmeasured, err error) {
	for _, other := range s.others {
		config.Addr = other.addr
		h, _, err := b.startWatchers(other, a, config)
		if err != nil {
			return all, err
		}
		all = append(all, h)
	}
	return all, nil
}

// startWatchers starts the subscribers, and returns the server's memory for each of them.
func (b *bench) startWatchers(s *server, a audience, config viewersConfig) (watchers *helper, memory int64, err error) {
	if a.users {
		config.Tokens = b.tokens
	}
	before := s.memory()
	watchers, err = startReady("viewers", config)
	if err == nil && a.count > 0 {
		memory = max(0, s.memory()-before) / int64(a.count)
	}
	return watchers, memory, err
}

// A watchedPhase is what was sent, and what the subscribers saw of it.
type watchedPhase struct {
	sent loadResult
	seen viewersResult
	used time.Duration // of processor time, by the server
	took time.Duration
}

// watchPhase runs a phase of the load generator until the subscribers have its events.
func (b *bench) watchPhase(s *server, load, watchers *helper, phase loadPhase, a audience) (w watchedPhase, err error) {
	began, cpu := time.Now(), s.cpu()
	if w.sent, err = b.phase(load, phase); err != nil {
		return w, err
	}
	if len(w.sent.Seqs) == 0 {
		return w, errors.New("nothing was answered")
	}
	expect := len(w.sent.Seqs)
	if a.own {
		expect = 0
	}
	if err := watchers.ask(viewersFinish{Expect: expect}, &w.seen); err != nil {
		return w, err
	}
	w.used, w.took = s.cpu()-cpu, time.Since(began)
	if w.seen.Bad != "" {
		return w, errors.New("a subscriber got " + w.seen.Bad)
	}
	return w, nil
}

// addEvents adds what the subscribers saw to a showing. limit is above every sequence
// number.
func (result *showing) addEvents(db *dbx.DB, w watchedPhase, limit int) error {
	rank, err := commitOrder(db, limit)
	if err != nil {
		return err
	}
	var last []time.Duration
	result.delivered, result.faults, last = compareSeen(w.seen.Viewers, &w.sent, rank)
	if result.delivered > 0 {
		result.perEvent = w.used / time.Duration(result.delivered)
	}
	result.last50, result.last99 = percentile(last, 50), percentile(last, 99)
	lastAnswer := slices.Max(w.sent.Done)
	for _, viewer := range w.seen.Viewers {
		for _, at := range viewer.At {
			result.drained = max(result.drained, time.Duration(at-lastAnswer))
		}
	}
	return nil
}

// commitOrder returns the place of each sequence number in the order of the commits.
func commitOrder(db *dbx.DB, limit int) ([]int, error) {
	var channels []string
	if err := db.NewQuery("SELECT channelId FROM aiContent ORDER BY rowid").Column(&channels); err != nil {
		return nil, err
	}
	rank := make([]int, limit)
	for i, c := range channels {
		if seq, ok := sequence(c); ok && seq < len(rank) {
			rank[seq] = i
		}
	}
	return rank, nil
}

// compareSeen holds what the viewers saw against what was sent and, by rank, the order in
// which it was committed. last is when each record was at its last viewer.
func compareSeen(viewers []viewed, sent *loadResult, rank []int) (delivered int, found faults, last []time.Duration) {
	lastAt := map[int]int64{}
	for _, viewer := range viewers {
		has := map[int]bool{}
		newest := -1
		for i, seq32 := range viewer.Seqs {
			seq := int(seq32)
			if rank[seq] < newest {
				found.disorder++
			}
			newest = max(newest, rank[seq])
			has[seq] = true
			lastAt[seq] = max(lastAt[seq], viewer.At[i])
		}
		delivered += len(viewer.Seqs)
		found.repeated += viewer.Repeated
		found.cut += viewer.Cut
		for _, seq := range sent.Seqs {
			if !has[seq] && (viewer.Newest < 0 || rank[seq] > rank[viewer.Newest]) {
				found.lost++
			}
		}
	}
	for i, seq := range sent.Seqs {
		if at := lastAt[seq]; at > 0 {
			last = append(last, time.Duration(at-sent.Sent[i]))
		}
	}
	return delivered, found, last
}

// warmUp sends the requests with the first sequence numbers and returns when all are
// answered.
func (b *bench) warmUp(v variant, s *server, requests int) error {
	load, err := startReady("load", loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: 8, Count: requests})
	if err != nil {
		return err
	}
	defer load.close()
	warm, err := b.phase(load, loadPhase{Duration: 10 * time.Second})
	if err == nil && len(warm.Seqs) != requests {
		err = fmt.Errorf("%d of %d requests were answered in 10 seconds", len(warm.Seqs), requests)
	}
	return err
}

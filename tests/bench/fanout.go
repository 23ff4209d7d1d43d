//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pocketbase/dbx"
)

const (
	webhookRate = 20 // per second, in fanout

	// fanoutConns are more connections than webhooks of one measurement that wait for
	// their answer, unless the server is hopelessly behind.
	fanoutConns = 64
)

// An audience is who is subscribed.
type audience struct {
	count int
	users bool // distinct signed-in users under the privacy rule, not guests under none
}

func (a audience) String() string {
	switch {
	case a.count == 0:
		return "none"
	case a.users:
		return fmt.Sprintf("%d users, privacy rule", a.count)
	case a.count == 1:
		return "1 guest"
	}
	return fmt.Sprintf("%d guests", a.count)
}

// A showing is what one measurement with subscribers found.
type showing struct {
	ack50, ack99   time.Duration
	last50, last99 time.Duration // from the webhook to the last subscriber
	perEvent       time.Duration // the server's processor time, for each event that arrived
	perViewer      int64         // resident memory
	rps            float64
	drained        time.Duration // from the last answer to the last event
	delivered      int
	faults         faults
	viewersShare   float64 // of one core, that the subscribers used
}

// faults count what a subscriber must not see.
type faults struct {
	lost     int // events that came neither live nor with the list read after a cut
	repeated int
	disorder int // events older than one that came before them
	cut      int // connections that the server closed
}

// comparedServers are the two whose subscribers are measured. Both store one row for
// each request.
func (b *bench) comparedServers() []variant {
	return []variant{
		{name: "stock", kind: b.stockKind(), rows: 1},
		{name: "PocketRiver", kind: b.oursKind(), rows: 1},
	}
}

type fanoutCell struct {
	audience audience
	server   string
}

// fanout sends webhooks at a fixed rate and watches when each subscriber has them.
func (b *bench) fanout() error {
	var audiences []audience
	for _, count := range b.subscribers {
		audiences = append(audiences, audience{count: count})
	}
	if slices.Contains(b.subscribers, 1000) {
		audiences = append(audiences, audience{count: 1000, users: true})
	}
	phase := loadPhase{Duration: max(b.duration, 2*time.Second), Rate: webhookRate}
	showings, err := b.showAll("fanout", audiences, fanoutConns, phase)
	if err != nil {
		return err
	}
	b.tables = append(b.tables, b.fanoutTable(audiences, showings))
	b.fanoutTargets(audiences, showings)
	return nil
}

// viewers sends as fast as is answered, and compares that with no subscribers.
func (b *bench) viewers() error {
	audiences := []audience{{count: 0}, {count: 100}, {count: 1000}}
	const connections = 32
	showings, err := b.showAll("viewers", audiences, connections, loadPhase{Duration: b.duration})
	if err != nil {
		return err
	}
	t := &table{
		title: fmt.Sprintf("Ingest with subscribers: %d connections, as fast as answered", connections),
		notes: []string{
			"\"behind\" is the time from the last answer to the last event. A subscriber that the server cuts connects again and",
			"reads the list, as pages do: what it then has is not lost.",
		},
		head: []string{"subscribers", "server", "rps", "× none", "answer p50 ms", "answer p99 ms", "behind ms", "CPU/event µs", "lost %", "twice %", "late %", "cut"},
	}
	for _, a := range audiences {
		for _, v := range b.comparedServers() {
			all := showings[fanoutCell{a, v.name}]
			none := showings[fanoutCell{audience{}, v.name}]
			delivered, sum := 0, faults{}
			for _, s := range all {
				delivered += s.delivered
				sum.lost += s.faults.lost
				sum.repeated += s.faults.repeated
				sum.disorder += s.faults.disorder
				sum.cut += s.faults.cut
			}
			times := ratioOf(all, none, func(s showing) float64 { return s.rps })
			row := []string{a.String(), v.name,
				fmt.Sprintf("%.0f", median(each(all, func(s showing) float64 { return s.rps }))), ratio(times),
				ms(median(each(all, func(s showing) time.Duration { return s.ack50 }))),
				ms(median(each(all, func(s showing) time.Duration { return s.ack99 }))),
			}
			if a.count == 0 {
				row = append(row, "-", "-", "-", "-", "-", "-")
			} else {
				row = append(row,
					ms(median(each(all, func(s showing) time.Duration { return s.drained }))),
					us(median(each(all, func(s showing) time.Duration { return s.perEvent }))),
					share(sum.lost, delivered+sum.lost), share(sum.repeated, delivered), share(sum.disorder, delivered), fmt.Sprint(sum.cut))
			}
			t.add(row...)
			if v.name == "PocketRiver" && a.count > 0 {
				b.target("Ingest with "+a.String()+", rps / with none", times, "≥", map[int]float64{100: 0.8, 1000: 0.4}[a.count])
				b.targetCount("Ingest with "+a.String()+": events lost, twice or late", sum.lost+sum.repeated+sum.disorder, 0)
			}
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

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
	requests := int(maxRate * phase.Duration.Seconds())
	if phase.Rate > 0 {
		requests = int(2 * phase.Rate * phase.Duration.Seconds())
	}
	const warm = 200
	if err := b.warmUp(v, s, warm); err != nil {
		return result, err
	}

	return b.showOn(s, db, v, a, phase, loadConfig{Addr: s.addr, Kind: v.kind.request, Conns: connections, First: warm, Count: requests})
}

// showOn measures a server that is warm.
func (b *bench) showOn(s *server, db *dbx.DB, v variant, a audience, phase loadPhase, sending loadConfig) (result showing, err error) {
	load, err := startReady("load", sending)
	if err != nil {
		return result, err
	}
	defer load.close()
	memory := s.memory()
	config := viewersConfig{Addr: s.addr, Count: a.count, First: sending.First, Limit: sending.Count}
	if a.users {
		config.Tokens = b.tokens
	}
	watchers, err := startReady("viewers", config)
	if err != nil {
		return result, err
	}
	defer watchers.close()
	if a.count > 0 {
		result.perViewer = max(0, s.memory()-memory) / int64(a.count)
	}

	began, cpu := time.Now(), s.cpu()
	sent, err := b.phase(load, phase)
	if err != nil {
		return result, err
	}
	var seen viewersResult
	if err := watchers.ask(viewersFinish{Expect: len(sent.Seqs)}, &seen); err != nil {
		return result, err
	}
	used, took := s.cpu()-cpu, time.Since(began)
	switch {
	case len(sent.Seqs) == 0:
		return result, errors.New("nothing was answered")
	case seen.Bad != "":
		return result, errors.New("a subscriber got " + seen.Bad)
	}
	result.viewersShare = seen.CPU.Seconds() / took.Seconds()
	if err := checkStored(db, v, nil, 0, len(sent.Seqs)+sending.First); err != nil {
		return result, err
	}
	rank, err := commitOrder(db, sending.First+sending.Count)
	if err != nil {
		return result, err
	}
	result.sumUp(&sent, &seen, rank, used)
	return result, nil
}

// commitOrder returns the place of each sequence number among the commits.
func commitOrder(db *dbx.DB, size int) ([]int, error) {
	var channels []string
	if err := db.NewQuery("SELECT channelId FROM aiContent ORDER BY rowid").Column(&channels); err != nil {
		return nil, err
	}
	rank := make([]int, size)
	for i, c := range channels {
		if seq, ok := sequence(c); ok && seq < len(rank) {
			rank[seq] = i
		}
	}
	return rank, nil
}

// sumUp fills in what was sent and seen, for which the server used so much CPU.
func (r *showing) sumUp(sent *loadResult, seen *viewersResult, rank []int, used time.Duration) {
	latencies := sent.latencies()
	r.ack50, r.ack99 = percentile(latencies, 50), percentile(latencies, 99)
	r.rps = float64(len(sent.Seqs)) / sent.took().Seconds()
	if len(seen.Viewers) == 0 {
		return
	}
	var last []time.Duration
	r.delivered, r.faults, last = compare(seen.Viewers, sent, rank)
	if r.delivered > 0 {
		r.perEvent = used / time.Duration(r.delivered)
	}
	r.last50, r.last99 = percentile(last, 50), percentile(last, 99)
	lastAnswer := slices.Max(sent.Done)
	for _, viewer := range seen.Viewers {
		for _, at := range viewer.At {
			r.drained = max(r.drained, time.Duration(at-lastAnswer))
		}
	}
}

// compare holds what the viewers saw against what was sent and, by rank, the order in
// which it was committed. last is when each record was at its last viewer.
func compare(viewers []viewed, sent *loadResult, rank []int) (delivered int, found faults, last []time.Duration) {
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

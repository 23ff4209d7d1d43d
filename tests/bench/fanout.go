//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

const (
	webhookRate = 20 // per second, in fanout

	// fanoutConns are more connections than webhooks of one measurement that wait for
	// their answer, unless the server is hopelessly behind.
	fanoutConns = 64
)

// An audience is who is subscribed.
type audience struct {
	count  int
	users  bool   // distinct signed-in users under the privacy rule, not guests under none
	own    bool   // each watches a channel of its own, which nothing comes for
	filter string // all watch the same rows
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
	perWebhook     time.Duration // of the server's processor time
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
	t := &table{
		title: fmt.Sprintf("Fan-out: %d webhooks a second, to every subscriber", webhookRate),
		notes: []string{
			"\"last\" is the time from the webhook to its record at the last subscriber. \"lost\", \"twice\" and \"late\" (after a newer record)",
			"are shares of all events; \"cut\" counts connections that the server closed, in all rounds.",
		},
		head: []string{"subscribers", "server", "answer p50 ms", "answer p99 ms", "last p50 ms", "last p99 ms", "last p50 × stock", "CPU/event µs", "memory/subscriber KB", "lost %", "twice %", "late %", "cut", "subscribers: % of a core"},
	}
	for _, a := range audiences {
		for _, v := range b.comparedServers() {
			t.add(fanoutRow(a, v.name, showings)...)
		}
	}
	b.tables = append(b.tables, t)
	b.fanoutTargets(audiences, showings)
	return nil
}

func fanoutRow(a audience, server string, showings map[fanoutCell][]showing) []string {
	all, stock := showings[fanoutCell{a, server}], showings[fanoutCell{a, "stock"}]
	row := []string{a.String(), server,
		ms(medianOf(all, func(s showing) time.Duration { return s.ack50 })),
		ms(medianOf(all, func(s showing) time.Duration { return s.ack99 })),
	}
	if a.count == 0 {
		return append(row, "-", "-", "-", "-", "-", "-", "-", "-", "-", "-")
	}
	delivered, sum := sumFaults(all)
	return append(row,
		ms(medianOf(all, func(s showing) time.Duration { return s.last50 })),
		ms(medianOf(all, func(s showing) time.Duration { return s.last99 })),
		ratio(ratioOf(all, stock, func(s showing) float64 { return float64(s.last50) })),
		us(medianOf(all, func(s showing) time.Duration { return s.perEvent })),
		fmt.Sprintf("%.0f", float64(medianOf(all, func(s showing) int64 { return s.perViewer }))/1024),
		percentOf(sum.lost, delivered+sum.lost), percentOf(sum.repeated, delivered), percentOf(sum.disorder, delivered), fmt.Sprint(sum.cut),
		fmt.Sprintf("%.0f", 100*medianOf(all, func(s showing) float64 { return s.viewersShare })),
	)
}

// sumFaults sums up the rounds.
func sumFaults(all []showing) (delivered int, sum faults) {
	for _, s := range all {
		delivered += s.delivered
		sum.lost += s.faults.lost
		sum.repeated += s.faults.repeated
		sum.disorder += s.faults.disorder
		sum.cut += s.faults.cut
	}
	return delivered, sum
}

func (b *bench) fanoutTargets(audiences []audience, showings map[fanoutCell][]showing) {
	at := func(count int, users bool, server string) []showing {
		return showings[fanoutCell{audience{count: count, users: users}, server}]
	}
	last50 := func(s showing) float64 { return float64(s.last50) }
	ack50 := func(s showing) float64 { return float64(s.ack50) }
	const ours = "PocketRiver"
	b.target("1,000 guests: to the last subscriber, p50 / stock's", ratioOf(at(1000, false, ours), at(1000, false, "stock"), last50), "≤", 0.4)
	b.target("1,000 guests: answer p50 / without subscribers", ratioOf(at(1000, false, ours), at(0, false, ours), ack50), "≤", 2)
	b.target("1,000 users: to the last subscriber, p50 / the guests'", ratioOf(at(1000, true, ours), at(1000, false, ours), last50), "≤", 1.2)
	if all := at(5000, false, ours); len(all) > 0 {
		b.target("5,000 guests: to the last subscriber, p99 ms", float64(medianOf(all, func(s showing) time.Duration { return s.last99 }))/1e6, "≤", 400)
		_, sum := sumFaults(all)
		b.targetCount("5,000 guests: events lost, twice or late", sum.lost+sum.repeated+sum.disorder, 0)
	}
	for _, a := range audiences {
		if all := at(a.count, a.users, ours); a.count >= 1000 {
			b.target(a.String()+": CPU µs per event", float64(medianOf(all, func(s showing) time.Duration { return s.perEvent }))/1e3, "≤", 12)
		}
	}
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
			delivered, sum := sumFaults(all)
			times := ratioOf(all, none, func(s showing) float64 { return s.rps })
			row := []string{a.String(), v.name,
				fmt.Sprintf("%.0f", medianOf(all, func(s showing) float64 { return s.rps })), ratio(times),
				ms(medianOf(all, func(s showing) time.Duration { return s.ack50 })),
				ms(medianOf(all, func(s showing) time.Duration { return s.ack99 })),
			}
			if a.count == 0 {
				row = append(row, "-", "-", "-", "-", "-", "-")
			} else {
				row = append(row,
					ms(medianOf(all, func(s showing) time.Duration { return s.drained })),
					us(medianOf(all, func(s showing) time.Duration { return s.perEvent })),
					percentOf(sum.lost, delivered+sum.lost), percentOf(sum.repeated, delivered), percentOf(sum.disorder, delivered), fmt.Sprint(sum.cut))
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

func percentOf(n, of int) string {
	if n == 0 || of == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2g", 100*float64(n)/float64(of))
}

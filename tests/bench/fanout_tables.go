package main

import (
	"fmt"
	"time"
)

func (b *bench) fanoutTable(audiences []audience, showings map[fanoutCell][]showing) *table {
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
			all := showings[fanoutCell{a, v.name}]
			stock := showings[fanoutCell{a, "stock"}]
			delivered, lost, repeated, disorder, cut := 0, 0, 0, 0, 0
			for _, s := range all {
				delivered += s.delivered
				lost += s.faults.lost
				repeated += s.faults.repeated
				disorder += s.faults.disorder
				cut += s.faults.cut
			}
			row := []string{a.String(), v.name,
				ms(median(each(all, func(s showing) time.Duration { return s.ack50 }))),
				ms(median(each(all, func(s showing) time.Duration { return s.ack99 }))),
			}
			if a.count == 0 {
				row = append(row, "-", "-", "-", "-", "-", "-", "-", "-", "-", "-")
			} else {
				row = append(row,
					ms(median(each(all, func(s showing) time.Duration { return s.last50 }))),
					ms(median(each(all, func(s showing) time.Duration { return s.last99 }))),
					ratio(ratioOf(all, stock, func(s showing) float64 { return float64(s.last50) })),
					us(median(each(all, func(s showing) time.Duration { return s.perEvent }))),
					fmt.Sprintf("%.0f", float64(median(each(all, func(s showing) int64 { return s.perViewer })))/1024),
					share(lost, delivered+lost), share(repeated, delivered), share(disorder, delivered), fmt.Sprint(cut),
					fmt.Sprintf("%.0f", 100*median(each(all, func(s showing) float64 { return s.viewersShare }))),
				)
			}
			t.add(row...)
		}
	}
	return t
}

func (b *bench) fanoutTargets(audiences []audience, showings map[fanoutCell][]showing) {
	at := func(count int, users bool, server string) []showing {
		return showings[fanoutCell{audience{count, users}, server}]
	}
	last50 := func(s showing) float64 { return float64(s.last50) }
	ack50 := func(s showing) float64 { return float64(s.ack50) }
	const ours = "PocketRiver"
	b.target("1,000 guests: to the last subscriber, p50 / stock's", ratioOf(at(1000, false, ours), at(1000, false, "stock"), last50), "≤", 0.4)
	b.target("1,000 guests: answer p50 / without subscribers", ratioOf(at(1000, false, ours), at(0, false, ours), ack50), "≤", 2)
	b.target("1,000 users: to the last subscriber, p50 / the guests'", ratioOf(at(1000, true, ours), at(1000, false, ours), last50), "≤", 1.2)
	if all := at(5000, false, ours); len(all) > 0 {
		b.target("5,000 guests: to the last subscriber, p99 ms", float64(median(each(all, func(s showing) time.Duration { return s.last99 })))/1e6, "≤", 400)
		wrong := 0
		for _, s := range all {
			wrong += s.faults.lost + s.faults.repeated + s.faults.disorder
		}
		b.targetCount("5,000 guests: events lost, twice or late", wrong, 0)
	}
	for _, a := range audiences {
		if all := at(a.count, a.users, ours); a.count >= 1000 {
			b.target(a.String()+": CPU µs per event", float64(median(each(all, func(s showing) time.Duration { return s.perEvent })))/1e3, "≤", 12)
		}
	}
}

func share(n, of int) string {
	if n == 0 || of == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2g", 100*float64(n)/float64(of))
}

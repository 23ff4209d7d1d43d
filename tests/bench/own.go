package main

import (
	"fmt"
	"time"
)

// own measures what viewers cost who each watch rows of their own, while webhooks come for
// others: PocketRiver with a filtered subscription for each.
func (b *bench) own() error {
	phase := loadPhase{Duration: max(5*time.Second, b.duration), Rate: webhookRate}
	counts := []int{0, 1000, 10000}
	costs, answers := map[int][]time.Duration{}, map[int][]time.Duration{}
	for round := range b.rounds {
		for _, count := range counts {
			shown, err := b.show(variant{name: "PocketRiver", kind: b.oursKind()}, audience{count: count, own: true}, fanoutConns, phase)
			if err != nil {
				return fmt.Errorf("%d viewers of their own: %w", count, err)
			}
			progress("round %d/%d  own  %5d viewers  answer p50 %s ms  p99 %s ms  %s µs CPU/webhook", round+1, b.rounds, count, ms(shown.ack50), ms(shown.ack99), us(shown.perWebhook))
			costs[count] = append(costs[count], shown.perWebhook)
			answers[count] = append(answers[count], shown.ack99)
		}
	}
	t := &table{
		title: fmt.Sprintf("Viewers of their own: %d webhooks a second, none of them for any of these subscribers", webhookRate),
		head:  []string{"subscribers", "answer p99 ms", "CPU/webhook µs", "× none"},
	}
	nanoseconds := func(d time.Duration) float64 { return float64(d) }
	for _, count := range counts {
		t.add(fmt.Sprint(count), ms(median(answers[count])), us(median(costs[count])), ratio(ratioOf(costs[count], costs[0], nanoseconds)))
	}
	b.tables = append(b.tables, t)
	b.target("1,000 viewers of their own: CPU per webhook / with none", ratioOf(costs[1000], costs[0], nanoseconds), "≤", 1.3)
	return nil
}

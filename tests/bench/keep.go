//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// kept is how a webhook is stored, with and without its payload.
func (b *bench) kept() []variant {
	var all []variant
	for _, v := range b.variants() {
		if v.name != "B1" && v.name != "B" && v.name != "C" {
			continue
		}
		off := v
		off.name += " off"
		off.kind.env = append(slices.Clone(v.kind.env), "MODELRIVER_PAYLOAD_RETENTION=0")
		all = append(all, off, v)
	}
	return all
}

// keep measures what it costs to keep payloads: each way to store is measured with and
// without in every round, in turns the one and the other first.
func (b *bench) keep() error {
	samples := map[ingestCell][]sample{}
	for round := range b.rounds {
		for _, connections := range b.connections {
			for pair := range slices.Chunk(b.kept(), 2) {
				if round%2 == 1 {
					slices.Reverse(pair)
				}
				for _, v := range pair {
					s, err := b.measureIngest(v, b.privateData, connections)
					if err != nil {
						return fmt.Errorf("%s, %d connections: %w", v.name, connections, err)
					}
					b.progressSample(round, connections, v.name, s)
					key := ingestCell{connections, v.name}
					samples[key] = append(samples[key], s)
				}
			}
		}
	}

	t := &table{
		title: "Keeping payloads (off: PayloadRetention is 0)",
		head:  []string{"connections", "", "rps", "× off", "p99 ms", "× off", "CPU/request µs", "× off"},
	}
	rps := func(s sample) float64 { return s.rps }
	cpu := func(s sample) float64 { return float64(s.cpu) }
	p99 := func(s sample) float64 { return float64(s.p99) }
	for _, connections := range b.connections {
		for pair := range slices.Chunk(b.kept(), 2) {
			off := samples[ingestCell{connections, pair[0].name}]
			for _, v := range pair {
				all := samples[ingestCell{connections, v.name}]
				t.add(fmt.Sprint(connections), v.name,
					fmt.Sprintf("%.0f", medianOf(all, rps)), ratio(ratioOf(all, off, rps)),
					ms(medianOf(all, func(s sample) time.Duration { return s.p99 })), ratio(ratioOf(all, off, p99)),
					us(medianOf(all, func(s sample) time.Duration { return s.cpu })), ratio(ratioOf(all, off, cpu)))
			}
			b.target(fmt.Sprintf("%d connections, %s: rps with payloads / without", connections, pair[1].name),
				ratioOf(samples[ingestCell{connections, pair[1].name}], off, rps), "≥", 0.9)
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

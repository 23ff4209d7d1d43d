//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// sideBySide measures the variants of each group in every round, in turns from the first to the
// last and the other way round, and tells how they compare with the group's first.
func (b *bench) sideBySide(title string, groups func() [][]variant) (map[ingestCell][]sample, error) {
	samples := map[ingestCell][]sample{}
	for round := range b.rounds {
		for _, connections := range b.connections {
			for _, group := range groups() {
				if round%2 == 1 {
					slices.Reverse(group)
				}
				for _, v := range group {
					s, err := b.measureIngest(v, b.privateData, connections)
					if err != nil {
						return nil, fmt.Errorf("%s, %d connections: %w", v.name, connections, err)
					}
					b.progressSample(round, connections, v.name, s)
					key := ingestCell{connections, v.name}
					samples[key] = append(samples[key], s)
				}
			}
		}
	}

	t := &table{title: title, head: []string{"connections", "", "rps", "× off", "p50 ms", "p99 ms", "× off", "CPU/request µs", "× off"}}
	for _, connections := range b.connections {
		for _, group := range groups() {
			off := samples[ingestCell{connections, group[0].name}]
			for _, v := range group {
				all := samples[ingestCell{connections, v.name}]
				t.add(fmt.Sprint(connections), v.name,
					fmt.Sprintf("%.0f", medianOf(all, rpsOf)), ratio(ratioOf(all, off, rpsOf)),
					ms(medianOf(all, func(s sample) time.Duration { return s.p50 })),
					ms(medianOf(all, func(s sample) time.Duration { return s.p99 })), ratio(ratioOf(all, off, func(s sample) float64 { return float64(s.p99) })),
					us(medianOf(all, func(s sample) time.Duration { return s.cpu })), ratio(ratioOf(all, off, func(s sample) float64 { return float64(s.cpu) })))
			}
		}
	}
	b.tables = append(b.tables, t)
	return samples, nil
}

func rpsOf(s sample) float64 { return s.rps }

// with returns the variant with another name and more of the environment.
func (v variant) with(name string, env ...string) variant {
	v.name += " " + name
	v.kind.env = append(slices.Clone(v.kind.env), env...)
	return v
}

// ownVariants are the ways in which PocketRiver stores a webhook.
func (b *bench) ownVariants() []variant {
	return slices.DeleteFunc(b.variants(), func(v variant) bool { return v.name != "B1" && v.name != "B" && v.name != "C" })
}

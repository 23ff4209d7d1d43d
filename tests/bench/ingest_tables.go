package main

import (
	"fmt"
	"slices"
	"time"
)

func (b *bench) ingestTables(variants []variant, samples map[ingestCell][]sample) {
	legend := &table{title: "Ingest, what is compared", head: []string{"", "what"}, text: true}
	for _, v := range variants {
		legend.rows = append(legend.rows, []string{v.name, v.label})
	}
	legend.add(insertsName, "ceiling: the 2 rows by prepared SQL, as many webhooks per transaction as connections (FULL)")
	b.tables = append(b.tables, legend)

	for _, connections := range b.connections {
		t := &table{
			title: fmt.Sprintf("Ingest, connections: %d", connections),
			head:  []string{"", "rps", "lowest–highest", "× A", "p50 ms", "p99 ms", "p99 × A", "CPU/request µs", "memory MB", "load generator: % of a core"},
		}
		a := samples[ingestCell{connections, "A"}]
		names := []string{}
		for _, v := range variants {
			names = append(names, v.name)
		}
		for _, name := range append(names, insertsName) {
			all := samples[ingestCell{connections, name}]
			if len(all) == 0 {
				continue
			}
			rps := each(all, func(s sample) float64 { return s.rps })
			t.add(name,
				fmt.Sprintf("%.0f", median(rps)),
				fmt.Sprintf("%.0f–%.0f", slices.Min(rps), slices.Max(rps)),
				ratio(ratioOf(all, a, func(s sample) float64 { return s.rps })),
				ms(median(each(all, func(s sample) time.Duration { return s.p50 }))),
				ms(median(each(all, func(s sample) time.Duration { return s.p99 }))),
				ratio(ratioOf(all, a, func(s sample) float64 { return float64(s.p99) })),
				us(median(each(all, func(s sample) time.Duration { return s.cpu }))),
				mb(median(each(all, func(s sample) int64 { return s.memory }))),
				fmt.Sprintf("%.0f", 100*median(each(all, func(s sample) float64 { return s.loadShare }))),
			)
		}
		b.tables = append(b.tables, t)
	}
}

func (b *bench) ingestTargets(samples map[ingestCell][]sample) {
	at := func(name string, connections int) []sample { return samples[ingestCell{connections, name}] }
	rps := func(s sample) float64 { return s.rps }
	b.target("32 connections: B's rps / A's", ratioOf(at("B", 32), at("A", 32), rps), "≥", 2)
	b.target("32 connections: B's p99 / A's", ratioOf(at("B", 32), at("A", 32), func(s sample) float64 { return float64(s.p99) }), "≤", 0.4)
	b.target("32 connections: C's rps / A's", ratioOf(at("C", 32), at("A", 32), rps), "≥", 1.4)
	b.target("32 connections: B's rps / D's", ratioOf(at("B", 32), at("D", 32), rps), "≥", 5)
	b.target("1 connection: B's p50 / A-full's", ratioOf(at("B", 1), at("A-full", 1), func(s sample) float64 { return float64(s.p50) }), "≤", 1.2)
}

func (b *bench) progressSample(round, connections int, name string, s sample) {
	progress("round %d/%d  %3d connections  %-6s %6.0f rps  p50 %6s ms  p99 %6s ms  %6s µs CPU  %3s MB  load %2.0f %%",
		round+1, b.rounds, connections, name, s.rps, ms(s.p50), ms(s.p99), us(s.cpu), mb(s.memory), 100*s.loadShare)
}

func each[S, T any](samples []S, get func(S) T) []T {
	var values []T
	for _, s := range samples {
		values = append(values, get(s))
	}
	return values
}

// ratioOf returns the median of the ratios in each round: what a noisy neighbour does
// to one round, it does to both.
func ratioOf[S any](samples, base []S, get func(S) float64) float64 {
	var ratios []float64
	for i := range min(len(samples), len(base)) {
		if of := get(base[i]); of > 0 {
			ratios = append(ratios, get(samples[i])/of)
		}
	}
	return median(ratios)
}

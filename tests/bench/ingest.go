//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// A variant is one way to store what a webhook brings.
type variant struct {
	name, label string
	kind        serverKind
	rows        int  // of content and callbacks, per webhook
	callback    bool // one is sent for each webhook
	mute        bool // callbacks are sent to a host that never answers
	waits       bool // measured until the last callback is delivered
	reuse       bool // the server stores nothing
	alone       bool // only measured with one connection
}

func (b *bench) stockKind() serverKind { return serverKind{binary: b.stock, request: kindCreate} }

func (b *bench) oursKind() serverKind {
	return serverKind{
		binary: b.ours, request: kindWebhook,
		env: []string{"MODELRIVER_WEBHOOK_SECRET=" + secret, "MODELRIVER_API_KEY=" + apiKey, "MODELRIVER_CALLBACK_HOSTS=127.0.0.1"},
	}
}

func (b *bench) scriptKind() serverKind {
	return serverKind{
		binary: b.stock, script: true, request: kindWebhook,
		env: []string{"MODELRIVER_WEBHOOK_SECRET=" + secret, "MODELRIVER_API_KEY=" + apiKey},
	}
}

func (b *bench) variants() []variant {
	return []variant{
		{name: "A", label: "stock PocketBase, REST create (NORMAL, 1 row)", kind: b.stockKind(), rows: 1},
		{name: "A-full", label: "the same with synchronous=FULL", rows: 1, alone: true,
			kind: serverKind{binary: b.self, args: []string{"stock-full"}, request: kindCreate}},
		{name: "B1", label: "PocketRiver, no callback owed (FULL, 1 row)", kind: b.oursKind(), rows: 1},
		{name: "B", label: "PocketRiver, callback row written; ModelRiver does not answer callbacks (FULL, 2 rows)", kind: b.oursKind(), rows: 2, mute: true},
		{name: "C", label: "PocketRiver, until the last callback is delivered (FULL, 2 rows + update)", kind: b.oursKind(), rows: 2, callback: true, waits: true},
		{name: "D1", label: "pb_hooks script, no callback (NORMAL, 1 row)", kind: b.scriptKind(), rows: 1},
		{name: "D", label: "pb_hooks script, callback before the answer (NORMAL, 1 row)", kind: b.scriptKind(), rows: 1, callback: true},
		{name: "E1", label: "ceiling: Go's HTTP server that only checks the signature", reuse: true,
			kind: serverKind{binary: b.self, args: []string{"verify"}, request: kindWebhook}},
	}
}

const insertsName = "E2" // not a server: see measureInserts

// A sample is what one measurement found.
type sample struct {
	rps       float64
	p50, p99  time.Duration
	cpu       time.Duration // of the server, per request
	memory    int64         // resident, of the server
	loadShare float64       // of one core, that the load generator used
}

// An ingestCell is what is measured once in each round.
type ingestCell struct {
	connections int
	name        string // of a variant, or insertsName
}

// ingest sends webhooks to each variant as fast as is answered.
func (b *bench) ingest() error {
	if err := b.checkSameRecord(); err != nil {
		return err
	}
	samples := map[ingestCell][]sample{}
	for round := range b.rounds {
		for _, connections := range b.connections {
			if err := b.ingestRound(round, connections, samples); err != nil {
				return err
			}
		}
	}

	legend := &table{title: "Ingest, what is compared", head: []string{"", "what"}, text: true}
	for _, v := range b.variants() {
		legend.add(v.name, v.label)
	}
	legend.add(insertsName, "ceiling: the 2 rows by prepared SQL, as many webhooks per transaction as connections (FULL)")
	b.tables = append(b.tables, legend)
	for _, connections := range b.connections {
		b.tables = append(b.tables, b.ingestTable(connections, samples))
	}

	at := func(name string, connections int) []sample { return samples[ingestCell{connections, name}] }
	rps := func(s sample) float64 { return s.rps }
	b.target("32 connections: B's rps / A's", ratioOf(at("B", 32), at("A", 32), rps), "≥", 2)
	b.target("32 connections: B's p99 / A's", ratioOf(at("B", 32), at("A", 32), func(s sample) float64 { return float64(s.p99) }), "≤", 0.4)
	b.target("32 connections: C's rps / A's", ratioOf(at("C", 32), at("A", 32), rps), "≥", 1.4)
	b.target("32 connections: B's rps / D's", ratioOf(at("B", 32), at("D", 32), rps), "≥", 5)
	b.target("1 connection: B's p50 / A-full's", ratioOf(at("B", 1), at("A-full", 1), func(s sample) float64 { return float64(s.p50) }), "≤", 1.2)
	return nil
}

// ingestRound adds a sample of each variant, and of the inserts.
func (b *bench) ingestRound(round, connections int, samples map[ingestCell][]sample) error {
	add := func(name string, s sample) {
		b.progressSample(round, connections, name, s)
		key := ingestCell{connections, name}
		samples[key] = append(samples[key], s)
	}
	for _, v := range b.variants() {
		if v.alone && connections != 1 {
			continue
		}
		s, err := b.measureIngest(v, b.privateData, connections)
		if err != nil {
			return fmt.Errorf("%s, %d connections: %w", v.name, connections, err)
		}
		add(v.name, s)
	}
	s, err := b.measureInserts(connections)
	if err != nil {
		return err
	}
	add(insertsName, s)
	return nil
}

func (b *bench) ingestTable(connections int, samples map[ingestCell][]sample) *table {
	t := &table{
		title: fmt.Sprintf("Ingest, connections: %d", connections),
		head:  []string{"", "rps", "lowest–highest", "× A", "p50 ms", "p99 ms", "p99 × A", "CPU/request µs", "memory MB", "load generator: % of a core"},
	}
	names := []string{}
	for _, v := range b.variants() {
		names = append(names, v.name)
	}
	a := samples[ingestCell{connections, "A"}]
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
			ms(medianOf(all, func(s sample) time.Duration { return s.p50 })),
			ms(medianOf(all, func(s sample) time.Duration { return s.p99 })),
			ratio(ratioOf(all, a, func(s sample) float64 { return float64(s.p99) })),
			us(medianOf(all, func(s sample) time.Duration { return s.cpu })),
			mb(medianOf(all, func(s sample) int64 { return s.memory })),
			fmt.Sprintf("%.0f", 100*medianOf(all, func(s sample) float64 { return s.loadShare })),
		)
	}
	return t
}

func (b *bench) progressSample(round, connections int, name string, s sample) {
	progress("round %d/%d  %3d connections  %-6s %6.0f rps  p50 %6s ms  p99 %6s ms  %6s µs CPU  %3s MB  load %2.0f %%",
		round+1, b.rounds, connections, name, s.rps, ms(s.p50), ms(s.p99), us(s.cpu), mb(s.memory), 100*s.loadShare)
}

//go:build linux

package main

import (
	"time"
)

// A beginning is what one start found.
type beginning struct {
	took   time.Duration
	memory int64
}

// start measures from the process's start to the first healthy answer, and the memory
// that it then holds.
func (b *bench) start() error {
	const perRound = 3
	beginnings := map[string][]beginning{}
	for round := range b.rounds {
		for range perRound {
			for _, v := range b.comparedServers() {
				if err := b.ctx.Err(); err != nil {
					return err
				}
				s, took, err := b.serve(v.kind, b.privateData)
				if err != nil {
					return err
				}
				time.Sleep(500 * time.Millisecond)
				beginnings[v.name] = append(beginnings[v.name], beginning{took, s.memory()})
				progress("round %d/%d  start  %-11s %s ms  %s MB", round+1, b.rounds, v.name, ms(took), mb(s.memory()))
				s.stop()
			}
		}
	}
	t := &table{
		title: "Start: until health is answered, and memory half a second later",
		head:  []string{"server", "start ms", "× stock", "memory MB", "× stock"},
	}
	took := func(s beginning) float64 { return float64(s.took) }
	memory := func(s beginning) float64 { return float64(s.memory) }
	for _, v := range b.comparedServers() {
		all, stock := beginnings[v.name], beginnings["stock"]
		t.add(v.name,
			ms(medianOf(all, func(s beginning) time.Duration { return s.took })), ratio(ratioOf(all, stock, took)),
			mb(medianOf(all, func(s beginning) int64 { return s.memory })), ratio(ratioOf(all, stock, memory)))
	}
	b.tables = append(b.tables, t)
	b.target("Start time / stock's", ratioOf(beginnings["PocketRiver"], beginnings["stock"], took), "≤", 1.3)
	b.target("Idle memory / stock's", ratioOf(beginnings["PocketRiver"], beginnings["stock"], memory), "≤", 1.15)
	return nil
}

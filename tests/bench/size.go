//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// size compares ingest into an empty database with ingest beside a million records.
// Records of a large database.
const million = 1_000_000

func (b *bench) size() error {
	const connections = 32
	var v variant
	for _, candidate := range b.variants() {
		if candidate.name == "B" {
			v = candidate
		}
	}
	progress("size: inserting %d records", million)
	dir := filepath.Join(b.dir, "million")
	defer os.RemoveAll(dir)
	err := makeData(filepath.Join(dir, "pb_data"), false, func(app core.App) error { return addContent(app, million) })
	if err != nil {
		return err
	}

	var empty, full []sample
	for round := range b.rounds {
		s, err := b.measureIngest(v, b.privateData, connections)
		if err != nil {
			return err
		}
		b.progressSample(round, connections, "empty", s)
		empty = append(empty, s)

		// The callbacks of the round before would be sent again.
		if err := changeData(dir, "DELETE FROM modelriverCallbacks WHERE state = 'pending'", nil); err != nil {
			return err
		}
		server, _, err := b.serveIn(v.kind, dir)
		if err != nil {
			return err
		}
		s, err = b.measureServer(v, server, connections, 1+round*million)
		server.end(syscall.SIGKILL)
		if err != nil {
			return err
		}
		b.progressSample(round, connections, "full", s)
		full = append(full, s)
	}

	b.addSizeTable(connections, empty, full)
	b.target("1,000,000 records: rps when empty / rps", ratioOf(empty, full, func(s sample) float64 { return s.rps }), "≤", 1.3)
	return nil
}

func (b *bench) addSizeTable(connections int, empty, full []sample) {
	t := &table{
		title: fmt.Sprintf("Size: B beside %d records and as many delivered callbacks, %d connections", million, connections),
		head:  []string{"database", "rps", "p50 ms", "p99 ms", "CPU/request µs", "memory MB"},
	}
	for _, row := range []struct {
		name    string
		samples []sample
	}{{"empty", empty}, {"1,000,000 records", full}} {
		t.add(row.name,
			fmt.Sprintf("%.0f", medianOf(row.samples, func(s sample) float64 { return s.rps })),
			ms(medianOf(row.samples, func(s sample) time.Duration { return s.p50 })),
			ms(medianOf(row.samples, func(s sample) time.Duration { return s.p99 })),
			us(medianOf(row.samples, func(s sample) time.Duration { return s.cpu })),
			mb(medianOf(row.samples, func(s sample) int64 { return s.memory })))
	}
	b.tables = append(b.tables, t)
}

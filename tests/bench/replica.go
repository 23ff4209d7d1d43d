//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// It ships once a second.
const leastReplica = 3 * time.Second

// replica measures what it costs to ship the database to a folder on the same disk.
func (b *bench) replica() error {
	duration := b.duration
	defer func() { b.duration = duration }()
	b.duration = max(duration, leastReplica)
	last := 0
	samples, err := b.sideBySide("A replica in a folder on the same disk (off: none)", func() (groups [][]variant) {
		for _, v := range b.ownVariants() {
			group := []variant{v.with("off")}
			for _, ack := range []string{"async", "wait"} {
				last++
				folder := filepath.Join(b.dir, fmt.Sprint("replica-", last))
				group = append(group, v.with(ack, "REPLICA_URL=file://"+folder, "REPLICA_ACK="+ack))
			}
			groups = append(groups, group)
		}
		return groups
	})
	if err != nil {
		return err
	}
	for _, connections := range b.connections {
		for _, v := range b.ownVariants() {
			b.target(fmt.Sprintf("%d connections, %s: rps with async / off", connections, v.name),
				ratioOf(samples[ingestCell{connections, v.name + " async"}], samples[ingestCell{connections, v.name + " off"}], rpsOf), "≥", 0.9)
		}
	}
	return nil
}

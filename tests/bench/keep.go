//go:build linux

package main

import "fmt"

// keep measures what it costs to keep payloads.
func (b *bench) keep() error {
	samples, err := b.sideBySide("Keeping payloads (off: PayloadRetention is 0)", func() (groups [][]variant) {
		for _, v := range b.ownVariants() {
			groups = append(groups, []variant{v.with("off", "MODELRIVER_PAYLOAD_RETENTION=0"), v})
		}
		return groups
	})
	if err != nil {
		return err
	}
	for _, connections := range b.connections {
		for _, v := range b.ownVariants() {
			b.target(fmt.Sprintf("%d connections, %s: rps with payloads / without", connections, v.name),
				ratioOf(samples[ingestCell{connections, v.name}], samples[ingestCell{connections, v.name + " off"}], rpsOf), "≥", 0.9)
		}
	}
	return nil
}

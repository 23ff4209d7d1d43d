//go:build linux

package main

func (b *bench) fanout() error  { return nil }
func (b *bench) viewers() error { return nil }
func (b *bench) size() error    { return nil }
func (b *bench) outbox() error  { return nil }
func (b *bench) start() error   { return nil }

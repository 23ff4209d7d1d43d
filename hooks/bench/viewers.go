//go:build linux

package main

func runViewers() error { return nil }

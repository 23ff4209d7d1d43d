//go:build !windows

package recovery

import "golang.org/x/sys/unix"

// sameDevice reports whether both paths are on one file system.
func sameDevice(a, b string) bool {
	var statA, statB unix.Stat_t
	return unix.Stat(a, &statA) == nil && unix.Stat(b, &statB) == nil && statA.Dev == statB.Dev
}

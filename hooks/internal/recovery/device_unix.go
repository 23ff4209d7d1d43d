//go:build !windows

package recovery

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// sameDevice reports whether both paths are on one file system.
func sameDevice(a, b string) bool {
	var statA, statB unix.Stat_t
	return unix.Stat(a, &statA) == nil && unix.Stat(b, &statB) == nil && statA.Dev == statB.Dev
}

// fileId tells a file from any other on this machine, or is empty.
func fileId(path string) string {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", stat.Dev, stat.Ino)
}

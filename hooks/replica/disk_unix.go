//go:build linux || darwin || freebsd

package replica

import "golang.org/x/sys/unix"

// freeSpace returns how many bytes may still be written to the disk that a folder is on.
func freeSpace(dir string) (int64, error) {
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	return int64(stat.Bavail) * int64(stat.Bsize), err
}

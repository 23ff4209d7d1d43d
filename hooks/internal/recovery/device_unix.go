//go:build !windows

package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

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

// giveToOwner gives what root has made in a directory to the directory's owner: a server that runs as
// that could not read it. Names are looked up within the directory, so that no link leads out of it.
func giveToOwner(dir string, patterns ...string) error {
	var stat unix.Stat_t
	if os.Geteuid() != 0 || unix.Stat(dir, &stat) != nil {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, pattern := range patterns {
		names, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			err := fs.WalkDir(root.FS(), name, func(path string, _ fs.DirEntry, err error) error {
				if err == nil {
					err = root.Lchown(path, int(stat.Uid), int(stat.Gid))
				}
				if errors.Is(err, fs.ErrNotExist) {
					return nil // a server that runs has deleted it
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

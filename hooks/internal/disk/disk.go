// Package disk has what is asked of disks and the standard library lacks.
package disk

import (
	"errors"
	"os"
	"runtime"
)

// Sync makes what was made or renamed in a directory durable.
func Sync(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // it has no such thing
	}
	opened, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}

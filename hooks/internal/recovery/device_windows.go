package recovery

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// sameDevice reports whether both paths are on one drive.
func sameDevice(a, b string) bool {
	return strings.EqualFold(filepath.VolumeName(a), filepath.VolumeName(b))
}

// fileId tells a file from any other on this machine, or is empty.
func fileId(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	var info windows.ByHandleFileInformation
	if windows.GetFileInformationByHandle(windows.Handle(file.Fd()), &info) != nil {
		return ""
	}
	return fmt.Sprintf("%d/%d/%d", info.VolumeSerialNumber, info.FileIndexHigh, info.FileIndexLow)
}

// giveToOwner does nothing: a file's owner is not who may read it.
func giveToOwner(string, ...string) error { return nil }

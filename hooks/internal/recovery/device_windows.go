package recovery

import (
	"path/filepath"
	"strings"
)

// sameDevice reports whether both paths are on one drive.
func sameDevice(a, b string) bool {
	return strings.EqualFold(filepath.VolumeName(a), filepath.VolumeName(b))
}

package replica

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// hashLength is how many digits of a hash are told: people compare them, and nobody forges them.
const hashLength = 12

// nothing is what HashFiles returns where there are no files.
const nothing = "none"

// HashFiles returns a short hash of the files in a folder and those below it, their names and contents, for Config.Same. What
// begins with a dot doesn't count. Where there are no files, or no folder, it is "none".
func HashFiles(dir string) (string, error) {
	root, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing, nil
	}
	if err != nil {
		return "", err
	}
	hash, files := sha256.New(), 0
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		if strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		files++
		fmt.Fprintf(hash, "%q %x\n", filepath.ToSlash(name), sha256.Sum256(content))
		return err
	})
	if files == 0 || err != nil {
		return nothing, err
	}
	return hex.EncodeToString(hash.Sum(nil))[:hashLength], nil
}

package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// A folder is a bucket of files: on another disk, or of another machine.
type folder string

// tempPattern is of the names of files that are not whole yet.
const tempPattern = ".new-*"

func (f folder) path(key string) string { return filepath.Join(string(f), filepath.FromSlash(key)) }

// isApart returns an error if the folder is in a directory, or that in the folder.
func (f folder) isApart(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for _, pair := range [][2]string{{string(f), dir}, {dir, string(f)}} {
		if inner, err := filepath.Rel(resolve(pair[0]), resolve(pair[1])); err == nil && filepath.IsLocal(inner) {
			return fmt.Errorf("the folder %s and the data directory %s are not apart: use a folder elsewhere, on another disk", f, dir)
		}
	}
	return nil
}

// resolve follows the links of a path, of which the end need not be there.
func resolve(path string) string {
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil || path == filepath.Dir(path) {
		return cmp.Or(resolved, path)
	}
	return filepath.Join(resolve(filepath.Dir(path)), filepath.Base(path))
}

func (f folder) Place() string { return "file://" + resolve(filepath.Clean(string(f))) }

// isMissing reports whether there is no folder.
func (f folder) isMissing() bool {
	_, err := os.Stat(string(f))
	return errors.Is(err, fs.ErrNotExist)
}

func (f folder) Put(_ context.Context, key string, content io.Reader, _ int64, onlyNew bool) (err error) {
	path := f.path(key)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), tempPattern)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = io.Copy(temp, content)
	if err == nil {
		err = temp.Sync()
	}
	if err := cmp.Or(err, temp.Close()); err != nil {
		return err
	}
	if onlyNew {
		err = os.Link(temp.Name(), path)
		if errors.Is(err, fs.ErrExist) {
			return errExists
		}
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("the file system of %s has no hard links, by which one server writes at a time: use another, or a bucket (%w)", f, err)
		}
	} else {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return err
	}
	return disk.Sync(filepath.Dir(path))
}

// makeDir makes a directory durably, and those that it is in.
func makeDir(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
		return err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return disk.Sync(filepath.Dir(path))
}

func (f folder) Get(_ context.Context, key string, offset, size int64) (io.ReadCloser, error) {
	file, err := os.Open(f.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMissing
	}
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	if size == 0 {
		return file, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(file, size), file}, nil
}

func (f folder) List(_ context.Context, prefix, after string) ([]object, error) {
	var objects []object
	err := filepath.WalkDir(f.path(prefix), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // or deleted meanwhile
		}
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(string(f), path)
		if key := filepath.ToSlash(name); key > after {
			objects = append(objects, object{key: key, size: info.Size(), written: info.ModTime()})
		}
		return err
	})
	slices.SortFunc(objects, func(a, b object) int { return strings.Compare(a.key, b.key) })
	return objects, err
}

func (f folder) Delete(_ context.Context, keys []string) error {
	for _, key := range keys {
		if err := os.Remove(f.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweep deletes what servers that were killed left: files that were not whole yet. Nobody has written
// to them for a day.
func (f folder) sweep() error {
	for _, dir := range []string{"", epochsDir, "[0-9]*/*/"} { // and not elsewhere in the folder, which may hold more than the replica
		left, err := fs.Glob(os.DirFS(string(f)), dir+tempPattern)
		if err != nil {
			return err
		}
		for _, name := range left {
			info, err := os.Stat(f.path(name))
			if err == nil && time.Since(info.ModTime()) > 24*time.Hour {
				err = os.Remove(f.path(name))
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Clock returns the time that the folder's file system gives to a new file.
func (f folder) Clock(context.Context) (time.Time, error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return time.Time{}, err
	}
	file, err := os.CreateTemp(string(f), tempPattern)
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// asidePrefix is followed by when a database was put aside.
const asidePrefix = "superseded-"

var errNoSnapshot = errors.New("there is none")

var errCondemned = errors.New("the database isn't what the log says: restart the server, which then replaces it")

// condemn has the next start replace the database, from which nothing is written any more. What
// was acknowledged is in the log.
func (n *Node) condemn(why string) error {
	n.condemned.Store(true)
	n.ready.Store(false)
	n.logger().Error("The database isn't what the log says: nothing is written until a restart has replaced it", "differs", why)
	if err := writeMark(condemnedPath(n.path), why); err != nil {
		return err
	}
	n.restartApp()
	return nil
}

// writeMark writes a small file that is on disk then.
func writeMark(path, text string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close(), disk.Sync(filepath.Dir(path)))
}

// restartApp restarts the app, if there is one. What runs beside it goes on until that closes the node.
func (n *Node) restartApp() {
	if app, ok := n.app.Load().(core.App); ok {
		go func() {
			if err := app.Restart(); err != nil {
				n.logger().Error("The server can't restart itself: restart it", "error", err)
			}
		}()
	}
}

// condemnedPath returns the path of the file that says why a database must be replaced.
func condemnedPath(path string) string { return filepath.Join(path+logSuffix, "condemned") }

// replace makes the database what a snapshot and the log say, and puts aside what was there. Before
// it is whole, nothing is touched.
func (n *Node) replace(path, why string) error {
	restored := path + ".restored"
	defer removeDatabase(restored)
	var errs []error
	for s, err := range n.usable(path) {
		if err == nil {
			err = n.restore(s, restored)
		}
		if err != nil {
			if !isPassedOver(err) {
				return fmt.Errorf("%s, and it can't be replaced: %w", why, err)
			}
			n.logger().Error("A snapshot can't be used", "file", s.path, "error", err)
			errs = append(errs, err)
			continue
		}
		if was, err := os.Stat(path); err == nil { // who may read that may read this
			if err := os.Chmod(restored, was.Mode().Perm()); err != nil {
				return err
			}
		}
		aside, err := putAside(path)
		if err != nil {
			return err
		}
		if err := errors.Join(os.Rename(restored, path), disk.Sync(filepath.Dir(path))); err != nil {
			return err
		}
		_ = os.Remove(condemnedPath(path)) // or it is replaced once more
		if aside == "" {
			n.logger().Info("The database was made of a snapshot and what the log has since then", "because", why, "snapshot", s.path)
			return nil
		}
		n.logger().Warn("The database was replaced by a snapshot and what the log has since then", "because", why, "snapshot", s.path, "before", aside)
		return nil
	}
	if len(errs) == 0 {
		errs = append(errs, errNoSnapshot)
	}
	return fmt.Errorf("%s, and no snapshot in %s can take its place: put a copy of the whole data directory back, or, to keep the database as it is, "+
		"%w: %w", why, snapshotDir(path), errNewLog, errors.Join(errs...))
}

// restore makes a database of a snapshot and the log, on disk.
func (n *Node) restore(s snapshot, path string) error {
	a, err := n.bring(context.Background(), s, path, n.log.id, endOfLog)
	if err != nil {
		return err
	}
	return closeDurably(a, path)
}

// closeDurably closes a database that nobody else has, of which nothing is in another file then.
func closeDurably(a *applier, path string) error {
	if err := a.close(); err != nil {
		return err
	}
	if _, err := os.Stat(path + "-wal"); err == nil { // SQLite doesn't say why
		return fmt.Errorf("SQLite could not write all of %s", path)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// putAside moves a database into a folder of its own, and returns that, empty if there is none. The
// database's file is the last: before that is gone, it is replaced again.
func putAside(path string) (aside string, err error) {
	dir := filepath.Dir(path)
	for _, suffix := range suffixes {
		if _, err := os.Stat(path + suffix); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if aside == "" {
			if aside, err = makeAside(path); err != nil {
				return "", err
			}
		}
		if err := os.Rename(path+suffix, filepath.Join(aside, filepath.Base(path)+suffix)); err != nil {
			return "", err
		}
	}
	if aside == "" {
		return "", nil
	}
	return aside, errors.Join(disk.Sync(aside), disk.Sync(dir))
}

// makeAside makes the folder into which something of a database is put aside now.
func makeAside(path string) (aside string, err error) {
	aside = filepath.Join(filepath.Dir(path), asidePrefix+time.Now().UTC().Format("20060102-150405.000"))
	return aside, os.Mkdir(aside, 0o700)
}

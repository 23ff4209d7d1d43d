package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/pocketriver/pocketriver/hooks/internal/disk"
)

// Leave makes a data.db that follows a log one without, which is as the node that had it has left it. Its log's folder is put
// aside, into the folder that it returns, if there was one. Nothing else may have the database open. Other nodes of that log must
// be stopped for good: what they write, this database doesn't get any more. The command "cluster leave" does this.
func Leave(path string) (aside string, err error) {
	if aside, err = leaveAt(path); err != nil {
		err = fmt.Errorf("end the log of %s: %w", path, err)
	}
	return aside, err
}

func leaveAt(path string) (aside string, err error) {
	at, err := standingOf(path)
	switch {
	case err != nil:
		return "", err
	case at.empty:
		return "", errors.New("there is no database: a node that is started gets one from the others")
	case at.log == "":
		return "", errors.New("it follows none: there is nothing to end")
	}
	dir := path + logSuffix
	if why, err := os.ReadFile(condemnedPath(path)); err == nil {
		return "", fmt.Errorf("it isn't what the log says (%s): start the node, which replaces it, or, if no others are left for that, keep it as it is by deleting %s", why, condemnedPath(path))
	}
	_, err = os.Stat(dir)
	has := err == nil
	if has {
		lock := flock.New(filepath.Join(dir, "lock"))
		if locked, err := lock.TryLock(); err != nil || !locked {
			return "", errors.Join(errors.New("the node runs: stop it first"), err)
		}
		if err := lock.Close(); err != nil { // Windows moves no folder with a file that is open
			return "", err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	db, err := openAlone(path)
	if err != nil {
		return "", err
	}
	if has { // before the database says that there is none: this is done again then
		if aside, err = makeAside(path); err == nil {
			err = os.Rename(dir, filepath.Join(aside, filepath.Base(dir)))
		}
		if err != nil {
			return "", errors.Join(err, db.close())
		}
	}
	err = db.exec(context.Background(), "DROP TABLE "+positionTable)
	return aside, errors.Join(err, db.close(), disk.Sync(filepath.Dir(path)))
}

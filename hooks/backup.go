package hooks

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// databases are the files of a data directory that SQLite has open.
var databases = []string{"data.db", "auxiliary.db"}

// backup lets PocketBase back up copies of its databases instead of the files it has
// open. Closing such a file gives up every lock that this process has on it: the next
// command beside the server takes the database for unused and deletes its WAL, and what
// is answered 200 from then on is gone with the process. Nor do webhooks wait for the
// backup this way.
func (p *plugin) backup(e *core.BackupEvent) error {
	temp := filepath.Join(e.App.DataDir(), core.LocalTempDirName)
	if err := os.MkdirAll(temp, os.ModePerm); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(temp, "modelriver_backup_")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	for i, db := range []dbx.Builder{e.App.ConcurrentDB(), e.App.AuxConcurrentDB()} {
		query := db.NewQuery("VACUUM INTO {:path}").Bind(dbx.Params{"path": filepath.Join(dir, databases[i])})
		if _, err := query.WithContext(e.Context).Execute(); err != nil {
			return err
		}
	}
	if err := linkFiles(e.App.DataDir(), dir, e.Exclude); err != nil {
		return err
	}

	app := e.App
	e.App = &backupApp{App: app, dir: dir}
	defer func() { e.App = app }()
	return e.Next()
}

// linkFiles gives every file of the data directory but the databases a second name in
// dir, or copies it where the file system has no such names.
func linkFiles(dataDir, dir string, exclude []string) error {
	return filepath.WalkDir(dataDir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dataDir {
			return nil // deleted meanwhile, with a record
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dataDir, path)
		if err != nil {
			return err
		}
		if slices.Contains(exclude, name) || name == core.LocalTempDirName {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		for _, db := range databases {
			if name == db || name == db+"-wal" || name == db+"-shm" || name == db+"-journal" {
				return nil
			}
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(dir, name), os.ModePerm)
		}
		err = os.Link(path, filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			err = copyFile(path, filepath.Join(dir, name))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return cmp.Or(err, target.Close())
}

// A backupApp is the app with another data directory, which nothing else writes to, so
// that a backup of it needs no transaction.
type backupApp struct {
	core.App
	dir string
}

func (a *backupApp) DataDir() string { return a.dir }

func (a *backupApp) RunInTransaction(fn func(core.App) error) error { return fn(a) }

func (a *backupApp) AuxRunInTransaction(fn func(core.App) error) error { return fn(a) }

package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"
)

// join finds out what the replica has, while the database is served: it cannot be put aside any
// more.
func (r *Recovery) join(ctx context.Context, s *shipping) error {
	f, err := r.look(ctx)
	if err != nil && !isRefusal(err) {
		return fmt.Errorf("%w: %w", errNotReached, err)
	}
	if err == nil {
		f, err = r.alone(ctx, f)
	}
	if err != nil {
		return err
	}
	switch f.next {
	case takeOver:
		return refuse("the replica went on without this server: what is here is compared when it starts again")
	case goOn:
		r.client.begin(f.newest())
		return nil
	}
	if !r.local.isWhole() {
		if err := r.readAnew(ctx, s); err != nil {
			return err
		}
		if f.id, err = r.local.readIdentity(); err != nil {
			return err
		}
	}
	s.db.Replica.SetPos(ltx.Pos{})
	return r.begin(ctx, f)
}

// readAnew has all of the database read, for an epoch that begins with it.
func (r *Recovery) readAnew(ctx context.Context, s *shipping) error {
	if err := r.markReplaced(); err != nil {
		return err
	}
	if err := s.db.ResetLocalState(ctx); err != nil {
		return err
	}
	s.wals = 0
	return s.db.Sync(ctx)
}

// boundUnshipped gives up what waits for the store once it is more than a whole copy is worth:
// a new epoch begins with that when the store answers.
func (r *Recovery) boundUnshipped(ctx context.Context, s *shipping) error {
	if time.Since(s.measured) < measureEvery {
		return nil
	}
	s.measured = time.Now()
	info, err := os.Stat(r.local.data())
	if err != nil {
		return err
	}
	size, err := sizeOf(r.local.ltxDir())
	if err != nil || size < max(minUnshipped, 2*info.Size()) {
		return err
	}
	if s.keep != nil && !s.keep.take() {
		return nil // it reads and deletes files here, whose names come anew
	}
	r.say("the store was away for too long: a whole copy is shipped when it answers")
	r.client.begin(epoch{}) // what may be written to is found out again
	s.keep = nil
	return r.readAnew(ctx, s)
}

// markReplaced notes that a new epoch must begin with all of the database. A database that was
// never shipped needs no note.
func (r *Recovery) markReplaced() error {
	id, err := r.local.readIdentity()
	if err != nil || id.Epoch == 0 || id.Replaced {
		return err
	}
	if err := r.local.noteHeaders(); err != nil {
		return err
	}
	id.Replaced, id.Last = true, 0
	return r.local.writeIdentity(id)
}

func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := entry.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes, err
}

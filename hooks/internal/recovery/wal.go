package recovery

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/pocketbase/dbx"
	"github.com/superfly/ltx"
)

// checkWAL compares the WAL with what was read of it. lost reports whether a power failure took its end,
// as it can with synchronous=NORMAL, or the database is of before: what was read of that is deleted, and if it
// was shipped, what is here is behind the replica. missed reports whether what was read may have gaps: the WAL
// was begun anew over something that was not read, by what wrote while no server ran, or a file of it is
// missing or damaged.
func (l local) checkWAL(ctx context.Context) (lost, missed bool, err error) {
	txids, err := l.read()
	n := len(txids)
	if err != nil || n == 0 {
		return false, false, err
	}
	missed = txids[n-1]-txids[0] != ltx.TXID(n-1)
	wal, err := os.Open(l.data() + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		lost, err = l.isBefore() // else it is all in the database
		return lost, missed && !lost, err
	}
	if err != nil {
		return false, false, err
	}
	defer wal.Close()
	reader, err := litestream.NewWALReader(wal, slog.New(slog.DiscardHandler))
	if err != nil { // SQLite takes it for empty as well: it writes no frame before the header is durable
		lost, err = l.isBefore()
		return lost, missed && !lost, err
	}
	begun := readSalts(wal, 16)
	page := make([]byte, reader.PageSize())
	end := int64(litestream.WALHeaderSize)
	for {
		if _, _, err := reader.ReadFrame(ctx, page); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return false, false, err
		}
		end += litestream.WALFrameHeaderSize + int64(reader.PageSize())
	}
	for _, last := range slices.Backward(txids) {
		header, err := l.header(last)
		if err != nil { // it is damaged
			missed = true
			continue
		}
		salts, read := [2]uint32{header.WALSalt1, header.WALSalt2}, header.WALOffset+header.WALSize
		if begun != salts { // it began anew: SQLite counts how often
			missed = missed || begun[0] != salts[0]+1 || readSalts(wal, read+8) == salts
			before := false
			if missed {
				before, err = l.isBefore()
			}
			return lost || before, missed && !before, err
		}
		if read <= end {
			break
		}
		if err := os.Remove(l.ltxPath(last)); err != nil {
			return lost, missed, err
		}
		lost = true
	}
	return lost, missed, nil
}

// isBefore reports whether the database is of a WAL before the last that was read: that is gone, or an older
// copy took its place. All that was read is deleted then.
func (l local) isBefore() (before bool, err error) {
	noted := 0 // none by an earlier version
	for _, path := range l.walNotes() {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), walNote))
		noted = max(noted, n)
	}
	err = withDB(l.data(), func(db *dbx.DB) error {
		wals, err := countWALs(db.DB())
		before = wals < noted
		return err
	})
	if err != nil || !before {
		return false, err
	}
	return true, os.RemoveAll(l.ltxDir())
}

// walNote ends the name of a file that tells how many WALs there were of what was read. It is its name that does:
// a copy that is put over what is here does not replace it.
const walNote = ".wals"

func (l local) walNotes() []string {
	paths, _ := filepath.Glob(filepath.Join(l.ltxDir(), "*"+walNote))
	return paths
}

// noteWALs notes, durably, whenever a WAL begins, how many there were.
func (s *shipping) noteWALs(ctx context.Context, l local) error {
	wals, err := countWALs(s.db.SQLDB())
	if err != nil || wals == s.wals {
		return err
	}
	before := l.walNotes()
	name := strconv.Itoa(wals) + walNote
	if err := folder(l.ltxDir()).Put(ctx, name, strings.NewReader(""), 0, false); err != nil {
		return err
	}
	s.wals = wals
	for _, path := range before {
		if filepath.Base(path) != name {
			_ = os.Remove(path)
		}
	}
	return nil
}

// countWALs returns how many WALs there were of a database: Litestream counts them in it, as they begin. It is 0
// if it did not.
func countWALs(db *sql.DB) (wals int, err error) {
	err = db.QueryRow("SELECT COUNT(*) FROM sqlite_master WHERE name = '_litestream_seq'").Scan(&wals)
	if err != nil || wals == 0 {
		return 0, err
	}
	err = db.QueryRow("SELECT COALESCE(MAX(seq), 0) + 1 FROM _litestream_seq").Scan(&wals)
	return wals, err
}

// readSalts returns what differs whenever a WAL begins anew, from its header or from a frame's.
func readSalts(wal io.ReaderAt, offset int64) [2]uint32 {
	var salts [8]byte
	_, _ = wal.ReadAt(salts[:], offset) // none of a frame that is not there
	return [2]uint32{binary.BigEndian.Uint32(salts[:]), binary.BigEndian.Uint32(salts[4:])}
}

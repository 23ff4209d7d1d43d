package recovery

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// checkWAL compares the WAL with what was read of it. lost reports whether a power failure took its end,
// as it can with synchronous=NORMAL, or it is of before, as in an older copy: what was read of the rest is
// deleted, and if it was shipped, what is here is behind the replica. missed reports whether what was read may have gaps: the WAL was begun anew over
// something that was not read, by what wrote while no server ran, or a file of it is missing or damaged.
func (l local) checkWAL(ctx context.Context) (lost, missed bool, err error) {
	txids, err := l.read()
	n := len(txids)
	if err != nil || n == 0 {
		return false, false, err
	}
	missed = txids[n-1]-txids[0] != ltx.TXID(n-1)
	wal, err := os.Open(l.data() + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return false, missed, nil // it is all in the database
	}
	if err != nil {
		return false, false, err
	}
	defer wal.Close()
	reader, err := litestream.NewWALReader(wal, slog.New(slog.DiscardHandler))
	if err != nil {
		return false, missed, nil // SQLite takes it for empty as well: it writes no frame before the header is durable
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
		ago := salts[0] - begun[0] // SQLite counts how often it begins anew, from any number on
		switch {
		case begun == salts && read <= end:
			return lost, missed, nil
		case begun != salts && (ago == 0 || ago >= 1<<16): // it began anew
			return lost, missed || begun[0] != salts[0]+1 || readSalts(wal, read+8) == salts, nil
		}
		if err := os.Remove(l.ltxPath(last)); err != nil {
			return lost, missed, err
		}
		lost = true
	}
	return lost, missed, nil
}

// readSalts returns what differs whenever a WAL begins anew, from its header or from a frame's.
func readSalts(wal io.ReaderAt, offset int64) [2]uint32 {
	var salts [8]byte
	_, _ = wal.ReadAt(salts[:], offset) // none of a frame that is not there
	return [2]uint32{binary.BigEndian.Uint32(salts[:]), binary.BigEndian.Uint32(salts[4:])}
}

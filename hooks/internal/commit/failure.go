package commit

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// errTable is why a record is not inserted whose table is not what PocketBase remembers of its
// collection, which was changed right now, or by another process.
var errTable = errors.New("the table does not fit its collection")

// tableFailed makes SQLite's SQL_ERROR of a statement of ours one of the database.
func tableFailed(err error) error {
	var coded interface{ Code() int }
	if errors.As(err, &coded) && coded.Code() == 1 {
		return fmt.Errorf("%w: %w", errTable, err)
	}
	return err
}

// DatabaseFailed reports whether err says that the database can't write now, rather
// than that it or a hook refuses this one write. A driver's error is known by its code
// (https://www.sqlite.org/rescode.html). That a time is over says nothing of the
// database: nothing here sets one, but hooks do, and INTERRUPT is what theirs leave.
func DatabaseFailed(err error) bool {
	for _, target := range []error{ErrBusy, errTable, sql.ErrConnDone, sql.ErrTxDone, driver.ErrBadConn} {
		if errors.Is(err, target) {
			return true
		}
	}
	var coded interface{ Code() int }
	if !errors.As(err, &coded) {
		return false
	}
	switch coded.Code() & 0xff {
	case 5, 6, 7, 8, 10, 11, 13, 14, 15, 26:
		// BUSY LOCKED NOMEM READONLY IOERR CORRUPT FULL CANTOPEN PROTOCOL NOTADB
		return true
	}
	return false
}

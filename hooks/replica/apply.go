package replica

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// positionTable has one row: which log the database follows, and the position of the last entry
// of it that the database has.
const positionTable = "_replicaPosition"

// An applier plays entries into a database, past the log.
type applier struct {
	db   *sql.DB
	conn *sql.Conn // the only one

	// By SQL and by table, until the schema changes.
	statements map[string]*sql.Stmt
	tables     map[string]*table

	collections, settings bool // which PocketBase has in memory: whether an entry has changed them

	// Of the entries that were applied: their bytes, where the last one ends, and who leads since one of them.
	applied int
	at      uint64
	leader  string
}

// maxStatements bounds what is prepared: there is an update for each set of columns that one has changed.
const maxStatements = 500

// A table is what must be known of one to change its rows.
type table struct {
	name    string   // quoted
	rowid   string   // what its rowid is called
	columns []string // quoted; empty for one that SQLite computes
}

func newApplier(path string) (*applier, error) {
	return openApplier(path + fmt.Sprintf(dsn, "OFF"))
}

func openApplier(dsn string) (*applier, error) {
	db := sql.OpenDB(quietConnector(dsn))
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &applier{db: db, conn: conn, statements: map[string]*sql.Stmt{}, tables: map[string]*table{}}, nil
}

// A standing is how far a database has come, and in which log.
type standing struct {
	empty    bool   // nothing is in it, or it isn't there
	log      string // its id; empty if the database follows none
	position uint64
}

func standingOf(path string) (standing, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return standing{empty: true}, nil
	}
	a, err := newApplier(path)
	if err != nil {
		return standing{}, err
	}
	s, err := a.standing()
	return s, errors.Join(err, a.close())
}

func (a *applier) standing() (s standing, err error) {
	var all, positions int
	ctx := context.Background()
	err = a.conn.QueryRowContext(ctx, "SELECT count(*), count(*) FILTER (WHERE type = 'table' AND name = ?) FROM sqlite_schema", positionTable).Scan(&all, &positions)
	if err != nil || positions == 0 {
		return standing{empty: all == 0}, err
	}
	err = a.conn.QueryRowContext(ctx, "SELECT log, position FROM "+positionTable).Scan(&s.log, &s.position)
	return s, err
}

// begin gives a database its position in a log.
func (a *applier) begin(log string, position uint64) error {
	_, err := a.conn.ExecContext(context.Background(), "BEGIN IMMEDIATE; CREATE TABLE "+positionTable+" (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL, log TEXT NOT NULL);"+
		"INSERT INTO "+positionTable+" VALUES (1, ?, ?); COMMIT", int64(position), log)
	return err
}

// quietConnector opens connections on which no trigger fires: what triggers did is in the
// entries.
type quietConnector string

func (c quietConnector) Driver() driver.Driver { return sqliteDriver() }

func (c quietConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(string(c))
	if err != nil {
		return nil, err
	}
	if err := disableTriggers(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (a *applier) close() error {
	a.forget()
	return errors.Join(a.conn.Close(), a.db.Close())
}

// forget closes what was prepared for a schema that may be another one now.
func (a *applier) forget() {
	for _, s := range a.statements {
		_ = s.Close()
	}
	clear(a.statements)
	clear(a.tables)
}

func (a *applier) position() (position uint64, err error) {
	err = a.conn.QueryRowContext(context.Background(), "SELECT position FROM "+positionTable).Scan(&position)
	return position, err
}

// errUnapplied is of what the log has and this node doesn't take.
var errUnapplied = errors.New("can't be applied here")

// apply plays an entry of the log that follows the position after, and ends at the other, as one
// transaction. An entry that doesn't find the rows it changes is an error and changes nothing:
// this database isn't what the log says, and must be replaced.
func (a *applier) apply(after, position uint64, entry []byte) (err error) {
	ctx := context.Background()
	if after != a.at { // the app has written since then, maybe to the schema
		a.forget()
	}
	if err := a.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("entry %d %w: %w", position, errUnapplied, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("entry %d %w: %w", position, errUnapplied, err)
			_ = a.exec(ctx, "ROLLBACK") // which fails if SQLite has done so
			a.forget()
		}
	}()
	err = a.change(ctx, "UPDATE "+positionTable+" SET position = ? WHERE position = ?", int64(position), int64(after))
	if errors.Is(err, errDiverged) { // somebody has committed: it isn't what the entry changes that differs
		at, _ := a.position()
		return fmt.Errorf("the database has the log's first %d, not %d", at, after)
	}
	if err != nil {
		return err
	}
	for c, err := range decode(entry) {
		if err != nil {
			return err
		}
		if err := a.play(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", describe(c), err)
		}
	}
	if err := a.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	a.applied += len(entry)
	a.at = position
	return nil
}

func describe(c change) string {
	switch c.kind {
	case 'I':
		return fmt.Sprintf("insert of row %d into %s", c.to, c.table)
	case 'U':
		return fmt.Sprintf("update of row %d of %s", c.rowid, c.table)
	case 'D':
		return fmt.Sprintf("delete of row %d of %s", c.rowid, c.table)
	case 'L':
		return "the beginning of the log " + c.log
	case 'M':
		return c.node + " leads"
	}
	return c.sql
}

func (a *applier) exec(ctx context.Context, query string) error {
	_, err := a.conn.ExecContext(ctx, query)
	return err
}

var errDiverged = errors.New("this database isn't what the log says")

// isDiverged reports whether an entry can't be applied because of what is in the database.
func isDiverged(err error) bool {
	return errors.Is(err, errDiverged) || isDamaged(err) || hasCode(err, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
}

// isDamaged reports whether the file isn't a database any more.
func isDamaged(err error) bool { return hasCode(err, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) }

func hasCode(err error, codes ...int) bool { return slices.Contains(codes, codeOf(err)&0xff) }

// codeOf returns the extended code of SQLite's error, 0 if it is none.
func codeOf(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code()
}

// change executes a statement that changes one row.
func (a *applier) change(ctx context.Context, query string, args ...any) error {
	s := a.statements[query]
	if s == nil {
		if len(a.statements) >= maxStatements {
			a.forget()
		}
		var err error
		if s, err = a.conn.PrepareContext(ctx, query); err != nil {
			return err
		}
		a.statements[query] = s
	}
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("the row isn't there: %w", errDiverged), err)
	}
	return nil
}

func (a *applier) play(ctx context.Context, c change) error {
	switch c.kind {
	case 'L':
		return fmt.Errorf("it begins with another base snapshot: %w", errDiverged)
	case 'M':
		a.leader = c.node
		return nil
	}
	a.collections, a.settings = a.collections || c.ofCollections(), a.settings || c.ofSettings()
	if c.kind == 'S' {
		a.forget()
		return a.exec(ctx, c.sql)
	}
	t, err := a.table(ctx, c.table)
	if err != nil {
		return err
	}
	switch c.kind {
	case 'D':
		return a.change(ctx, "DELETE FROM "+t.name+" WHERE "+t.rowid+" = ?", c.rowid)
	case 'I':
		if len(c.values) != len(t.columns) {
			return fmt.Errorf("%d values for %d columns: %w", len(c.values), len(t.columns), errDiverged)
		}
		names, args := []string{t.rowid}, []any{c.to}
		for i, v := range c.values {
			if t.columns[i] != "" {
				names, args = append(names, t.columns[i]), append(args, v)
			}
		}
		return a.change(ctx, "INSERT INTO "+t.name+" ("+strings.Join(names, ",")+") VALUES (?"+strings.Repeat(",?", len(args)-1)+")", args...)
	}
	var sets []string
	var args []any
	if c.to != c.rowid { // which SQLite would write again with every index, even if it is the same
		sets, args = append(sets, t.rowid+" = ?"), append(args, c.to)
	}
	for i, column := range c.columns {
		if column >= len(t.columns) {
			return fmt.Errorf("column %d of %d: %w", column, len(t.columns), errDiverged)
		}
		if t.columns[column] != "" {
			sets, args = append(sets, t.columns[column]+" = ?"), append(args, c.values[i])
		}
	}
	return a.change(ctx, "UPDATE "+t.name+" SET "+strings.Join(sets, ",")+" WHERE "+t.rowid+" = ?", append(args, c.rowid)...)
}

func (a *applier) table(ctx context.Context, name string) (*table, error) {
	if t := a.tables[name]; t != nil {
		return t, nil
	}
	rows, err := a.conn.QueryContext(ctx, "SELECT name, hidden FROM pragma_table_xinfo(?) ORDER BY cid", name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &table{name: quote(name)}
	var columns []string
	for rows.Next() {
		var column string
		var hidden int
		if err := rows.Scan(&column, &hidden); err != nil {
			return nil, err
		}
		columns = append(columns, column)
		if hidden == 0 {
			t.columns = append(t.columns, quote(column))
		} else {
			t.columns = append(t.columns, "")
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if t.rowid = rowidOf(columns); t.rowid == "" {
		return nil, errors.New("columns have all the names of its rowid")
	}
	a.tables[name] = t
	return t, nil
}

// rowidOf returns what the rowid of a table with such columns is called, empty if they have all its names.
func rowidOf(columns []string) string {
	for _, name := range []string{"_rowid_", "rowid", "oid"} {
		if !slices.ContainsFunc(columns, func(column string) bool { return strings.EqualFold(name, column) }) {
			return name
		}
	}
	return ""
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

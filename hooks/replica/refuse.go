package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	errTransaction = errors.New("BEGIN, COMMIT and ROLLBACK can't be logged as statements: use a transaction of the database, such as app.RunInTransaction")
	errAttach      = errors.New("ATTACH can't be logged: open the other file with a connection of its own")
	errVirtual     = errors.New("virtual tables can't be logged: keep them in another file, such as auxiliary.db")
	errNoRowid     = errors.New("tables WITHOUT ROWID can't be logged: create the table without it")
	errCreateAs    = errors.New("CREATE TABLE AS can't be logged: create the table, then INSERT … SELECT")
	errStatistics  = errors.New("a view or a trigger of statistics can't be logged, which another node may not have: make it temporary")
	errPages       = errors.New("pages of the file can't be written to when it is logged: write rows")
	errCopy        = errors.New("INSERT … SELECT * in a trigger can't be logged: say which columns")
	errFail        = errors.New("OR FAIL can't be logged, which keeps half of a statement: use ABORT, IGNORE or REPLACE")
)

// copiesAll reports whether rows may be copied as they are: those from before a column was added don't have it then, and
// SQLite tells of NULL in place of its default. With a condition, it takes them apart.
func (w words) copiesAll() bool {
	i := slices.IndexFunc(w, func(t token) bool { return t.text == "SELECT" || t.text == "(" })
	if i < 0 || !w.at(i+1, "*") || !w.at(i+2, "FROM") {
		return false
	}
	rest := w[i+3:].inSchema()
	return len(rest) == 1 || len(rest) == 2 || len(rest) == 3 && rest.at(1, "AS")
}

func isTemporary(tokens words) bool { return tokens.at(1, "TEMP") || tokens.at(1, "TEMPORARY") }

// refuseSchema refuses of what is temporary what it would do to rows that are not.
func refuseSchema(tokens words) error {
	for i := range tokens {
		if name(tokens[i:]) == upper(positionTable) {
			return errPosition
		}
		if (tokens.at(1, "VIEW") || tokens.at(1, "TRIGGER")) && strings.HasPrefix(name(tokens[i:]), "SQLITE_STAT") {
			return errStatistics
		}
	}
	if tokens.has("ON", "CONFLICT", "FAIL") || tokens.has("RAISE", "(", "FAIL") || tokens.has("INSERT", "OR", "FAIL") || tokens.has("UPDATE", "OR", "FAIL") {
		return errFail
	}
	for i, t := range tokens {
		statement := tokens[i:]
		if end := slices.IndexFunc(statement, func(t token) bool { return t.text == ";" }); end >= 0 {
			statement = statement[:end]
		}
		if (t.text == "INSERT" || t.text == "REPLACE") && statement.copiesAll() {
			return errCopy
		}
	}
	switch {
	case !tokens.at(0, "CREATE"), isTemporary(tokens):
	case tokens.at(1, "VIRTUAL"):
		return errVirtual
	case tokens.at(1, "TABLE"):
		i := slices.IndexFunc(tokens, func(t token) bool { return t.depth == 0 && t.text == "AS" })
		if columns := slices.IndexFunc(tokens, func(t token) bool { return t.text == "(" }); i > 0 && (columns < 0 || i < columns) {
			return errCreateAs
		}
		if tokens.has("WITHOUT", "ROWID") {
			return errNoRowid
		}
	}
	return nil
}

// pragmas are those that take an argument and change nothing that every node has.
var pragmas = strings.Fields(`ANALYSIS_LIMIT AUTOMATIC_INDEX BUSY_TIMEOUT CACHE_SIZE CACHE_SPILL
	CELL_SIZE_CHECK DEFER_FOREIGN_KEYS FOREIGN_KEYS FOREIGN_KEY_CHECK FOREIGN_KEY_LIST
	INCREMENTAL_VACUUM INDEX_INFO INDEX_LIST INDEX_XINFO INTEGRITY_CHECK
	JOURNAL_SIZE_LIMIT MMAP_SIZE OPTIMIZE QUERY_ONLY QUICK_CHECK RECURSIVE_TRIGGERS SHRINK_MEMORY
	SYNCHRONOUS TABLE_INFO TABLE_LIST TABLE_XINFO TEMP_STORE THREADS WAL_AUTOCHECKPOINT WAL_CHECKPOINT`)

func refusePragma(tokens words) error {
	tokens = tokens.inSchema()
	if len(tokens) < 2 || !tokens.at(1, "=") && !tokens.at(1, "(") {
		return nil // asks only
	}
	pragma := name(tokens)
	if slices.Contains(pragmas, pragma) {
		return nil
	}
	return fmt.Errorf("PRAGMA %s with a value can't be logged: set it before the database has a log", strings.ToLower(pragma))
}

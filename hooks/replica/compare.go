package replica

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// compare brings the snapshot that is being made to exactly where the database is, and returns what
// differs between them, in words.
func (n *Node) compare(ctx context.Context, live, next *applier) (string, error) {
	// What was written while that was made must not be applied while SQLite keeps all that is written for a reader.
	position, err := live.position()
	if err == nil {
		err = n.bringTo(ctx, next, position)
	}
	if err != nil {
		return "", err
	}
	// So that SQLite leaves out what it can't read of that's schema: a view of main.table isn't one of next.
	if err := live.exec(ctx, "PRAGMA writable_schema = ON"); err != nil {
		return "", err
	}
	if _, err := live.conn.ExecContext(ctx, "ATTACH ? AS next", temporary(snapshotDir(n.path))); err != nil {
		return "", err
	}
	defer func() { _ = live.exec(context.Background(), "DETACH next") }()
	if err := live.exec(ctx, "BEGIN"); err != nil {
		return "", err
	}
	defer func() { _ = live.exec(context.Background(), "ROLLBACK") }()
	position, err = live.position() // from here on, it is seen as it is now
	if err == nil {
		err = n.catchUp(ctx, next, position)
	}
	if err != nil {
		return "", err
	}
	differences, err := live.differences(ctx)
	if isDamaged(err) && next.check() == nil { // so that it isn't the other one
		return err.Error(), nil
	}
	return differences, err
}

// differences returns in which tables how many rows differ from those of the attached database, to
// every type and byte. Statistics and the counts of AUTOINCREMENT are of one file only.
func (a *applier) differences(ctx context.Context) (string, error) {
	const schema = "SELECT type, name, tbl_name, sql FROM %s.sqlite_schema WHERE tbl_name NOT LIKE 'sqlite\\_%%' ESCAPE '\\'"
	here, there := fmt.Sprintf(schema, "main"), fmt.Sprintf(schema, "next")
	var found []string
	rows, err := a.conn.QueryContext(ctx, "SELECT name FROM (SELECT * FROM ("+here+") EXCEPT "+there+") UNION SELECT name FROM (SELECT * FROM ("+there+") EXCEPT "+here+")")
	if err == nil {
		found, err = texts(rows)
	}
	if err != nil || len(found) > 0 {
		return "the schema of " + strings.Join(found, ", "), err
	}
	rows, err = a.conn.QueryContext(ctx, "SELECT name FROM ("+here+") WHERE type = 'table'")
	if err != nil {
		return "", err
	}
	names, err := texts(rows)
	for _, name := range names {
		var count int
		if count, err = a.countDifferences(ctx, name); err != nil {
			return "", err
		}
		if count > 0 {
			found = append(found, fmt.Sprintf("%d rows of %s", count, name))
		}
	}
	return strings.Join(found, ", "), err
}

func texts(rows *sql.Rows) (all []string, err error) {
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}

func (a *applier) countDifferences(ctx context.Context, name string) (count int, err error) {
	t, err := a.table(ctx, name)
	if err != nil {
		return 0, err
	}
	row := func(of string) string {
		values := []string{of + "." + t.rowid}
		for _, column := range t.columns {
			if column != "" {
				values = append(values, of+"."+column+" COLLATE BINARY", "typeof("+of+"."+column+")")
			}
		}
		return "(" + strings.Join(values, ",") + ")"
	}
	// A FULL JOIN would keep the rowids in memory.
	same := " ON a." + t.rowid + " = b." + t.rowid + " WHERE "
	err = a.conn.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM main."+t.name+" AS a LEFT JOIN next."+t.name+" AS b"+same+row("a")+" IS NOT "+row("b")+")"+
		" + (SELECT count(*) FROM next."+t.name+" AS b LEFT JOIN main."+t.name+" AS a"+same+"a."+t.rowid+" IS NULL)").Scan(&count)
	return count, err
}

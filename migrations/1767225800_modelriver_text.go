package migrations

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		if err := KeepDataAsText(app); err != nil {
			return err
		}
		return quoteNumbers(app)
	}, nil, "1767225800_modelriver_text.go")
}

// KeepDataAsText gives the column of aiContent's field data the type TEXT, unless it
// has it. With the type that PocketBase makes for JSON, SQLite keeps of a value that is
// a bare number only the number: 1.10 becomes 1.1, and 20 digits become a float.
//
// The table is written twice: with the copy, and without the old column.
func KeepDataAsText(app core.App) error {
	var declared []string
	const query = "SELECT type FROM pragma_table_info('aiContent') WHERE name = 'data'"
	if err := app.DB().NewQuery(query).Column(&declared); err != nil {
		return err
	}
	if len(declared) == 0 || declared[0] == "TEXT" {
		return nil
	}
	if err := app.RunInTransaction(makeDataText); err != nil {
		return fmt.Errorf("turn the column data of aiContent into text: %w", err)
	}
	return nil
}

func makeDataText(tx core.App) error {
	// SQLite drops no column that one of these names, and a trigger would take the copy
	// for a change.
	var dependents []struct {
		Type string `db:"type"`
		Name string `db:"name"`
		SQL  string `db:"sql"`
	}
	err := tx.DB().NewQuery(`
		SELECT type, name, sql FROM sqlite_master
		WHERE type IN ('view', 'trigger') OR type = 'index' AND tbl_name = 'aiContent' AND sql LIKE '%data%'
		ORDER BY rowid`).All(&dependents)
	if err != nil {
		return err
	}

	var statements []string
	for _, d := range slices.Backward(dependents) {
		statements = append(statements, fmt.Sprintf("DROP %s IF EXISTS [[%s]]", d.Type, d.Name))
	}
	statements = append(statements,
		"ALTER TABLE aiContent ADD COLUMN modelriverData TEXT DEFAULT NULL",
		// A float has its shortest text, and JSON has no infinity.
		`UPDATE aiContent SET modelriverData = CASE
			WHEN typeof(data) != 'real' THEN data
			WHEN abs(data) > 1.7976931348623157e308 THEN iif(data > 0, '"Infinity"', '"-Infinity"')
			WHEN CAST(printf('%!.15g', data) AS REAL) = data THEN printf('%!.15g', data)
			ELSE printf('%!.17g', data) END
		WHERE data IS NOT NULL`,
		"ALTER TABLE aiContent DROP COLUMN data",
		"ALTER TABLE aiContent RENAME COLUMN modelriverData TO data",
	)
	for _, d := range dependents {
		statements = append(statements, d.SQL)
	}
	for _, statement := range statements {
		if _, err := tx.DB().NewQuery(statement).Execute(); err != nil {
			return err
		}
	}
	return nil
}

// quoteNumbers turns numbers that float64 can't hold into strings, as they are stored
// from now on: PocketBase could not answer a list with ?fields= that has one.
func quoteNumbers(app core.App) error {
	tokens := regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?[0-9][-+.0-9eE]*`)
	return app.RunInTransaction(func(tx core.App) error {
		for _, column := range []string{"data", "metadata"} {
			var rows []struct {
				Id    string `db:"id"`
				Value string `db:"value"`
			}
			err := tx.DB().NewQuery(`
				SELECT id, [[` + column + `]] AS value FROM aiContent
				WHERE typeof([[` + column + `]]) = 'text' AND EXISTS (
					SELECT 1 FROM json_tree(iif(json_valid([[` + column + `]]), [[` + column + `]], NULL))
					WHERE type IN ('integer', 'real') AND (atom > 1.7976931348623157e308 OR atom < -1.7976931348623157e308)
				)`).All(&rows)
			if err != nil {
				return err
			}
			for _, row := range rows {
				value := tokens.ReplaceAllStringFunc(row.Value, func(token string) string {
					if token[0] != '"' {
						if _, err := strconv.ParseFloat(token, 64); err != nil {
							return strconv.Quote(token)
						}
					}
					return token
				})
				if _, err := tx.DB().Update("aiContent", dbx.Params{column: value}, dbx.HashExp{"id": row.Id}).Execute(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

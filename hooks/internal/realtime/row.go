package realtime

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// A row is the fields of a committed row that compiled rules compare, by name.
type row map[string]*value

// A rowReader reads fields of committed rows with one prepared query for each collection,
// by its id: to prepare it for each change takes three times as long as to run it.
type rowReader struct {
	mu sync.Mutex
	of map[string]preparedQuery
}

type preparedQuery struct {
	*sql.Stmt
	db   *sql.DB // another one after a restart within the process
	text string
}

func (r *rowReader) read(app core.App, collection *core.Collection, id string, compared []string) (row, error) {
	db, ok := app.ConcurrentDB().(*dbx.DB)
	if !ok {
		return nil, errors.New("the app is within a transaction")
	}
	fields := rowFields(collection, compared)
	// With a sign, a column has no declared type, of which some drivers make another value.
	text := "SELECT +[" + strings.Join(fields, "], +[") + "] FROM [" + collection.Name + "] WHERE [id] = ?"

	r.mu.Lock()
	defer r.mu.Unlock()
	query := r.of[collection.Id]
	if query.db != db.DB() || query.text != text {
		prepared, err := db.DB().Prepare(text)
		if err != nil {
			return nil, err
		}
		if query.Stmt != nil {
			_ = query.Close()
		}
		query = preparedQuery{prepared, db.DB(), text}
		r.of[collection.Id] = query
	}
	values := make([]value, len(fields))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	if err := query.QueryRow(id).Scan(into...); err != nil {
		return nil, err
	}
	read := make(row, len(fields))
	for i, field := range fields {
		read[field] = &values[i]
	}
	return read, nil
}

// rowFields are the fields of a row: those that are compared, and all that are short, so
// that they are the same for nearly every change, and known of the row before an update to
// who subscribes meanwhile.
func rowFields(collection *core.Collection, compared []string) []string {
	fields := []string{"id"}
	for _, f := range collection.Fields {
		if name := f.GetName(); name != "id" && affinityOf(f) != none && (isShort(f) || slices.Contains(compared, name)) {
			fields = append(fields, name)
		}
	}
	return fields
}

func isShort(field core.Field) bool {
	switch field := field.(type) {
	case *core.TextField:
		return field.Max <= 5000
	case *core.EditorField:
		return false
	}
	return true
}

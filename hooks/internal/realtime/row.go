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

// A row is the text fields of a committed row that compiled rules compare, by name.
type row map[string]string

// A rowReader reads text fields of committed rows with one prepared query: to prepare it
// for each change takes three times as long as to run it.
type rowReader struct {
	mu    sync.Mutex
	db    *sql.DB // another one after a restart within the process
	text  string
	query *sql.Stmt
}

func (r *rowReader) read(app core.App, collection *core.Collection, id string, compared []string) (row, error) {
	db, ok := app.ConcurrentDB().(*dbx.DB)
	if !ok {
		return nil, errors.New("the app is within a transaction")
	}
	fields := rowFields(collection, compared)
	text := "SELECT [" + strings.Join(fields, "], [") + "] FROM [" + collection.Name + "] WHERE [id] = ?"

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.query == nil || r.db != db.DB() || r.text != text {
		query, err := db.DB().Prepare(text)
		if err != nil {
			return nil, err
		}
		if r.query != nil {
			_ = r.query.Close()
		}
		r.db, r.text, r.query = db.DB(), text, query
	}
	values := make([]sql.NullString, len(fields))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	if err := r.query.QueryRow(id).Scan(into...); err != nil {
		return nil, err
	}
	read := make(row, len(fields))
	for i, field := range fields {
		read[field] = values[i].String
	}
	return read, nil
}

// rowFields are the fields of a row: those that are compared, and all short text, so that
// they are the same for nearly every change, and known of the row before an update to who
// subscribes meanwhile.
func rowFields(collection *core.Collection, compared []string) []string {
	fields := []string{"id"}
	for _, f := range collection.Fields {
		text, ok := f.(*core.TextField)
		if !ok || text.Name == "id" {
			continue
		}
		if text.Max <= 5000 || slices.Contains(compared, text.Name) {
			fields = append(fields, text.Name)
		}
	}
	return fields
}

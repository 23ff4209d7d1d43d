package realtime

import (
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// An access is a rule for all viewers. evaluate is nil if the database is to be asked.
type access struct {
	rule     *string
	evaluate rule
	fields   []string // that evaluate reads
}

// decide copies the record and finds out who may see the change, as the database has it
// now. It returns nil if there is no such row: nobody is told of what nobody can read.
// Until the change is appended it stands in decided, so that the views of its moment are kept.
func (f *FanOut) decide(app core.App, action string, record *core.Record) *change {
	collection := record.Collection()
	if _, ok := app.ConcurrentDB().(*dbx.DB); !ok { // a hook has left the app of a transaction in its event
		app = f.app
	}
	c := &change{action: action, record: record.Fresh()}
	c.list = f.rules.find(collection, collection.ListRule)
	c.view = f.rules.find(collection, collection.ViewRule)

	f.mu.Lock()
	f.moment++
	c.moment = f.moment
	f.decided[c] = struct{}{}
	questions := f.questions(c)
	f.mu.Unlock()

	var err error
	if c.row, err = f.rows.read(app, collection, record.Id, append(c.list.fields, c.view.fields...)); err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.decided, c)
		if !errors.Is(err, sql.ErrNoRows) {
			app.Logger().Error("Failed to read a record that is to be broadcast: subscribers are disconnected, to fetch it", "error", err, "id", record.Id)
			f.discardAll()
		}
		return nil
	}
	c.allowed = make(map[question]bool, len(questions))
	for q := range questions {
		c.allowed[q], _ = app.CanAccessRecord(c.record, &core.RequestInfo{
			Context: core.RequestInfoContextRealtime, Method: http.MethodGet,
			Query: map[string]string{}, Headers: map[string]string{}, Auth: q.auth,
		}, &q.rule)
	}
	return c
}

// A question is one that the database has to answer: the same for all viewers, without
// auth, if the rule does not look at them. Else each auth record is asked for, as two
// connections of one user may have different ones.
type question struct {
	rule string
	auth *core.Record
}

// questions returns those that the subscribers of now raise about the change, each once.
// The lock is held.
func (f *FanOut) questions(c *change) map[question]struct{} {
	if !c.list.asks() && !c.view.asks() {
		return nil
	}
	asked := map[question]struct{}{}
	for s := range f.subscribers {
		v := s.views[len(s.views)-1]
		if v.superuser {
			continue
		}
		for _, t := range v.topics {
			if a, ok := t.access(c); ok && a.asks() {
				asked[a.question(v)] = struct{}{}
			}
		}
	}
	return asked
}

func (a access) asks() bool { return a.rule != nil && *a.rule != "" && a.evaluate == nil }

func (a access) question(v view) question {
	if !strings.Contains(*a.rule, "@request.auth") {
		return question{rule: *a.rule}
	}
	return question{*a.rule, v.auth}
}

// allows is what PocketBase's CanAccessRecord would have said at the change's moment,
// for a viewer of that moment.
func (c *change) allows(v view, a access) bool {
	switch {
	case v.superuser:
		return true
	case a.rule == nil:
		return false
	case *a.rule == "":
		return true
	case a.evaluate == nil:
		return c.allowed[a.question(v)]
	}
	return a.evaluate(c.row, v.authId)
}

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

func (r *rowReader) read(app core.App, collection *core.Collection, id string, fields []string) (row, error) {
	db, ok := app.ConcurrentDB().(*dbx.DB)
	if !ok {
		return nil, errors.New("the app is within a transaction")
	}
	values := make([]sql.NullString, 1+len(fields))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	text := "SELECT [" + strings.Join(append([]string{"id"}, fields...), "], [") + "] FROM [" + collection.Name + "] WHERE [id] = ?"

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
	if err := r.query.QueryRow(id).Scan(into...); err != nil {
		return nil, err
	}
	read := make(row, len(fields))
	for i, field := range fields {
		read[field] = values[1+i].String
	}
	return read, nil
}

// A rule tells whether the viewer of an auth id, empty for a guest, may see a row.
type rule func(r row, authId string) bool

// A ruleCache keeps the rules of the collection as it is now.
type ruleCache struct {
	mu    sync.Mutex
	rules map[string]access
	of    *core.Collection
}

// find returns the access that a rule gives.
func (r *ruleCache) find(collection *core.Collection, text *string) access {
	if text == nil || *text == "" {
		return access{rule: text}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != collection {
		r.of, r.rules = collection, map[string]access{}
	}
	found, ok := r.rules[*text]
	if !ok {
		found = access{rule: text}
		if groups, err := fexpr.Parse(*text); err == nil {
			compiler := ruleCompiler{collection: collection}
			if found.evaluate = compiler.rule(groups); found.evaluate != nil {
				found.fields = slices.Clip(compiler.fields)
			}
		}
		r.rules[*text] = found
	}
	return found
}

// A ruleCompiler notes the fields of the collection that a rule compares.
type ruleCompiler struct {
	collection *core.Collection
	fields     []string
}

// rule compiles a rule that consists of nothing but = and != between the record's
// text fields, @request.auth.id and literals, for which the database need not be asked:
// both compare byte by byte. It returns nil for any other rule.
func (c *ruleCompiler) rule(groups []fexpr.ExprGroup) rule {
	var alternatives []rule // each of which is one or more that must all hold
	for i, group := range groups {
		var one rule
		switch item := group.Item.(type) {
		case fexpr.Expr:
			left, right := c.operand(item.Left), c.operand(item.Right)
			if left == nil || right == nil || item.Op != fexpr.SignEq && item.Op != fexpr.SignNeq {
				return nil
			}
			equal := item.Op == fexpr.SignEq
			one = func(r row, authId string) bool {
				return (left(r, authId) == right(r, authId)) == equal
			}
		case []fexpr.ExprGroup:
			one = c.rule(item)
		case fexpr.ExprGroup:
			one = c.rule([]fexpr.ExprGroup{item})
		}
		if one == nil {
			return nil
		}
		if i > 0 && group.Join == fexpr.JoinAnd { // which binds closer, as in SQL
			before := alternatives[len(alternatives)-1]
			alternatives[len(alternatives)-1] = func(r row, authId string) bool {
				return before(r, authId) && one(r, authId)
			}
		} else {
			alternatives = append(alternatives, one)
		}
	}
	return func(r row, authId string) bool {
		for _, alternative := range alternatives {
			if alternative(r, authId) {
				return true
			}
		}
		return false
	}
}

func (c *ruleCompiler) operand(token fexpr.Token) func(r row, authId string) string {
	switch token.Type {
	case fexpr.TokenText:
		return func(row, string) string { return token.Literal }
	case fexpr.TokenIdentifier:
		if token.Literal == "@request.auth.id" {
			return func(_ row, authId string) string { return authId }
		}
		if _, ok := c.collection.Fields.GetByName(token.Literal).(*core.TextField); ok {
			if !slices.Contains(c.fields, token.Literal) {
				c.fields = append(c.fields, token.Literal)
			}
			return func(r row, _ string) string { return r[token.Literal] }
		}
	}
	return nil
}

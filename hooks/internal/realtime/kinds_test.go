package realtime

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A kinds is a collection of all kinds of fields, with random rows.
type kinds struct {
	t          *testing.T
	app        core.App
	fanOut     *FanOut
	random     *rand.Rand
	collection *core.Collection
	viewers    []*core.Record
	rows       map[string]row
}

func newKinds(t *testing.T, seed uint64) *kinds {
	app := apptest.NewApp(t)
	w := &kinds{t: t, app: app, random: rand.New(rand.NewPCG(seed, 3)), rows: map[string]row{}}
	w.viewers = []*core.Record{nil}
	for i, id := range []string{"user00000000001", "123456789012345"} {
		user, _ := apptest.NewUser(t, app, fmt.Sprintf("u%d@example.com", i))
		if _, err := app.DB().Update("users", dbx.Params{"id": id}, dbx.HashExp{"id": user.Id}).Execute(); err != nil {
			t.Fatal(err)
		}
		user, err := app.FindRecordById("users", id)
		if err != nil {
			t.Fatal(err)
		}
		w.viewers = append(w.viewers, user)
	}
	c := core.NewAuthCollection("kinds")
	c.Fields.Add(
		&core.TextField{Name: "words"}, &core.TextField{Name: "long", Max: 1 << 20}, &core.TextField{Name: "secret", Hidden: true},
		&core.TextField{Name: "NULL"}, &core.BoolField{Name: "False", Hidden: true},
		&core.EditorField{Name: "page"}, &core.URLField{Name: "link"}, &core.EmailField{Name: "mail"},
		&core.NumberField{Name: "n"}, &core.NumberField{Name: "m"}, &core.BoolField{Name: "done"}, &core.BoolField{Name: "open"},
		&core.DateField{Name: "day"}, &core.AutodateField{Name: "made", OnCreate: true},
		&core.SelectField{Name: "one", Values: []string{"a", "5"}}, &core.SelectField{Name: "many", Values: []string{"a", "5"}, MaxSelect: 2},
		&core.RelationField{Name: "author", CollectionId: w.viewers[1].Collection().Id}, &core.FileField{Name: "file"}, &core.JSONField{Name: "json"},
	)
	if err := app.Save(c); err != nil {
		t.Fatal(err)
	}
	w.collection = c
	w.fanOut = New(app, "kinds")
	for _, column := range []string{"words TEXT", "page TEXT", "m NUMERIC", "open BOOLEAN", "day TEXT"} { // as another tool makes them
		name, _, _ := strings.Cut(column, " ")
		for _, change := range []string{"DROP COLUMN [" + name + "]", "ADD COLUMN " + column} {
			if _, err := app.DB().NewQuery("ALTER TABLE kinds " + change).Execute(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 40 {
		w.insert(fmt.Sprintf("row%012d", i))
	}
	return w
}

// insert writes a row by plain SQL.
func (w *kinds) insert(id string) {
	values := dbx.Params{"id": id, "email": id + "@example.com", "emailVisibility": w.random.IntN(2) == 0, "tokenKey": id}
	var compared []string
	for _, f := range w.collection.Fields {
		name := f.GetName()
		if affinityOf(f) == none {
			continue
		}
		if compared = append(compared, name); values[name] != nil {
			continue
		}
		switch pool := w.random.IntN(10); {
		case pool == 0 && slices.Contains([]string{"words", "page", "m", "open", "day"}, name):
			values[name] = nil
		case pool < 2:
			values[name] = []any{[]byte("5"), []byte{}, "", int64(2), 0.5}[w.random.IntN(5)]
		case affinityOf(f) == numeric && pool > 2:
			values[name] = w.number()
		default:
			values[name] = w.text()
		}
	}
	if _, err := w.app.DB().Insert("kinds", values).Execute(); err != nil {
		w.t.Fatal(err)
	}
	row, err := w.fanOut.rows.read(w.app, w.collection, id, compared)
	if err != nil {
		w.t.Fatal(err)
	}
	w.rows[id] = row
}

func (w *kinds) pick(options ...string) string { return options[w.random.IntN(len(options))] }

func (w *kinds) text() string {
	return w.pick("", "", "5", "5.0", "05", " 5", "5 ", "+5", "-3", "-3.0", "1", "0", "1.0", "0.1", ".5", "5.", "1e3", "0x10", "inf", "nan",
		"a", "A", "abc", "Ä", "ä", "😀", "\uffff", " ", "a'b", `a"b`, "a%b", "true", "false", "null", `["a"]`, `["a","5"]`, `{"a":1}`, `""`,
		"2026-01-01 10:00:00.000Z", "2026-01-01T10:00:00Z", "2026-01-01", "9223372036854775807", "12345678901234567890", "123456789012345",
		"1234567890123456", "1.0e+15", "1000000000000000.0", "user00000000001", "row000000000003", "row000000000003@example.com")
}

func (w *kinds) number() any {
	return []any{
		0, 1, -1, 2, 5, 5.5, 0.1, -3.25, 0.1 + 0.2, 0.0001, 0.00001, 1e15, 1e18, 1 << 53, 1<<53 + 1, math.MaxInt64, math.MinInt64,
		float64(1 << 53), 1e300, -1e300, 1e-300, 9.2233720368547758e18, 123456789012345, -3,
	}[w.random.IntN(24)]
}

func (w *kinds) operand() string {
	switch kind := w.random.IntN(20); {
	case kind < 10:
		return w.pick("id", "words", "long", "secret", "NULL", "page", "link", "mail", "email", "n", "m", "done", "open", "day", "made", "one",
			"author", "author.id", "file", "emailVisibility", "n", "m", "done", "words")
	case kind < 13:
		return strconv.Quote(w.text())
	case kind < 16:
		return w.pick("0", "-0", "1", "2", "5", "5.0", "5.50", "05", "0.1", "0.30000000000000004", "-3.25", "-3", "0.0001", "0.00001", "123456789012345",
			"1234567890123456", "9007199254740993", "9223372036854775807", "99999999999999999999", "100000000000000", "1000000000000000", "0.0")
	case kind < 18:
		return w.pick("true", "false", "null", "TRUE", "False", "NULL")
	case kind < 19:
		return "@request.auth.id"
	}
	return w.pick("@now", "many", "json", "json.a", "words:lower", "@request.auth.email", "nothing", "many:length")
}

func (w *kinds) groups(depth int) string {
	var b strings.Builder
	for i := range 1 + w.random.IntN(3) {
		if i > 0 {
			b.WriteString(w.pick(" && ", " || "))
		}
		if depth > 0 && w.random.IntN(4) == 0 {
			b.WriteString("(" + w.groups(depth-1) + ")")
		} else {
			b.WriteString(w.operand() + " " + w.pick("=", "=", "!=", "!=", "<", "<=", ">", ">=", "?=", "?!=", "?>") + " " + w.operand())
		}
	}
	return b.String()
}

// ask has PocketBase say which rows pass.
func (w *kinds) ask(text string, viewer *core.Record, forFilter bool) (ids []string) {
	info := &core.RequestInfo{Context: core.RequestInfoContextRealtime, Method: "GET", Query: map[string]string{}, Headers: map[string]string{}, Auth: viewer}
	resolver := core.NewRecordFieldResolver(w.app, w.collection, info, !forFilter)
	expr, err := search.FilterData(text).BuildExpr(resolver)
	if err != nil {
		return nil
	}
	query := w.app.ConcurrentDB().Select("kinds.id").From("kinds").AndWhere(expr)
	if err := resolver.UpdateQuery(query); err != nil {
		w.t.Fatal(err)
	}
	if err := query.Column(&ids); err != nil {
		w.t.Fatalf("%s: %v", text, err)
	}
	return ids
}

// checkOne compares with the very questions that the compiled rule spares, of one row that
// is read with no more fields than it names.
func (w *kinds) checkOne(text string, viewer *core.Record, compiler ruleCompiler, rule rule) {
	id := fmt.Sprintf("row%012d", w.random.IntN(len(w.rows)))
	row, err := w.fanOut.rows.read(w.app, w.collection, id, compiler.fields)
	if err != nil {
		w.t.Fatal(err)
	}
	record, err := w.app.FindRecordById("kinds", id)
	if err != nil {
		w.t.Fatal(err)
	}
	q := question{text: text, filter: compiler.forFilter, auth: viewer}
	if got, want := rule(row, idOf(viewer)), ask(w.app, record, map[question]struct{}{q: {}})[q]; got != want {
		w.t.Fatalf("%s for %q, as a filter: %t, of %s: got %t, want %t", text, idOf(viewer), q.filter, describe(row, compiler.fields), got, want)
	}
}

func mustGroups(t *testing.T, text string) []fexpr.ExprGroup {
	groups, err := fexpr.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

func idOf(viewer *core.Record) string {
	if viewer == nil {
		return ""
	}
	return viewer.Id
}

func describe(r row, fields []string) string {
	var b strings.Builder
	for _, field := range fields {
		fmt.Fprintf(&b, "%s %+v ", field, *r[field])
	}
	return b.String()
}

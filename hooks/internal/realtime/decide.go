package realtime

import (
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"
	"github.com/pocketbase/pocketbase/tools/types"
)

// A state is what a row is at a moment, as far as subscribers ask: the fields that rules
// and filters compare, as committed, and what the database answers to the rest. Without a
// row there is no such record, and of an empty one nothing is known.
type state struct {
	row     row
	answers map[question]bool
}

// decide copies the record and finds out who may see the change, as the database has it
// now. It returns nil if there is no such row: nobody is told of what nobody can read, but of
// an update, what leaves.
// Until the change is appended it stands in decided, so that the views of its moment are kept.
func (f *FanOut) decide(app core.App, action string, record *core.Record) *change {
	if _, ok := app.ConcurrentDB().(*dbx.DB); !ok { // a hook has left the app of a transaction in its event
		app = f.app
	}
	c := &change{action: action, record: record.Fresh()}
	c.list, c.view = f.accessTo(record.Collection())
	c.outdated = f.isOutdated(record)

	f.mu.Lock()
	f.moment++
	c.moment = f.moment
	f.decided[c] = struct{}{}
	asked := f.questions(c)
	fields := f.comparedFields(c)
	f.mu.Unlock()

	var err error
	c.row, err = f.rows.read(app, record.Collection(), record.Id, fields)
	if c.gone = errors.Is(err, sql.ErrNoRows); c.gone && action == "update" {
		return c
	}
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.decided, c)
		if !c.gone {
			app.Logger().Error("Failed to read a record that is to be broadcast: subscribers are disconnected, to fetch it", "error", err, "id", record.Id)
			f.discardAll()
		}
		return nil
	}
	c.answers = ask(app, c.record, asked)
	c.overtaken = action != "delete" && c.row.isNewer(record)
	return c
}

// isNewer reports whether the row was committed again since the record was: its saver's
// after-success hooks may run when those of a later one have ended.
func (r row) isNewer(record *core.Record) bool {
	return slices.ContainsFunc(record.Collection().Fields, func(f core.Field) bool {
		field, ok := f.(*core.AutodateField)
		if !ok || !field.OnUpdate {
			return false
		}
		committed, _ := types.ParseDateTime(r[field.Name].text)
		return committed.String() != record.GetString(field.Name)
	})
}

// isOutdated reports whether the record has rules of before, as its saver had loaded it. By these
// PocketBase sends its event, but lists go by those of now.
func (f *FanOut) isOutdated(record *core.Record) bool {
	loaded := record.Collection()
	now, err := f.app.FindCachedCollectionByNameOrId(loaded.Id)
	return err == nil && !(equalRules(loaded.ListRule, now.ListRule) && equalRules(loaded.ViewRule, now.ViewRule))
}

func equalRules(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// accessTo returns who may see all records of the collection, and who one.
func (f *FanOut) accessTo(collection *core.Collection) (list, view access) {
	return f.rules.find(collection, collection.ListRule), f.rules.find(collection, collection.ViewRule)
}

// comparedFields returns what rules and filters of now compare, sorted. The lock is held.
func (f *FanOut) comparedFields(c *change) []string {
	fields := slices.Concat(c.list.fields, c.view.fields, slices.Collect(maps.Keys(f.filterFields)))
	slices.Sort(fields)
	return slices.Compact(fields)
}

// A question is one that the database has to answer about a record: whether a rule, or a
// filter, lets it through. It is the same for all viewers, without auth, if it does not
// look at them. Else each auth record is asked for, as two connections of one user may
// have different ones.
type question struct {
	text   string
	filter bool
	auth   *core.Record
	query  string // the subscription's filter, if the rule looks at the request's query
}

// questions returns those that the subscribers of now raise about the change, each once.
// The lock is held.
func (f *FanOut) questions(c *change) map[question]struct{} {
	if !c.list.asks() && !c.view.asks() && f.asking == 0 {
		return nil
	}
	asked := map[question]struct{}{}
	for s := range f.subscribers {
		v := s.views[len(s.views)-1]
		for _, t := range v.topics {
			a, ok := t.access(c)
			if !ok {
				continue
			}
			if a.asks() && !v.superuser {
				asked[a.question(v, t)] = struct{}{}
			}
			if t.filter.asks() {
				asked[t.filter.question(v)] = struct{}{}
			}
		}
	}
	return asked
}

// ask has the database answer. What it fails to is not among the answers.
func ask(app core.App, record *core.Record, questions map[question]struct{}) map[question]bool {
	answers := make(map[question]bool, len(questions))
	for q := range questions {
		info := &core.RequestInfo{
			Context: core.RequestInfoContextRealtime, Method: "GET",
			Query: map[string]string{}, Headers: map[string]string{}, Auth: q.auth,
		}
		if q.filter {
			info.Query[search.FilterQueryParam] = q.text
			if passes, err := passesFilter(app, record, info); err == nil {
				answers[q] = passes
			}
			continue
		}
		if q.query != "" {
			info.Query[search.FilterQueryParam] = q.query
		}
		if granted, err := app.CanAccessRecord(record, info, &q.text); err == nil {
			answers[q] = granted
		}
	}
	return answers
}

func (a access) asks() bool { return a.rule != nil && *a.rule != "" && a.evaluate == nil }

func (a access) question(v view, t topic) question {
	q := question{text: *a.rule}
	if strings.Contains(q.text, "@request.auth") {
		q.auth = v.auth
	}
	if strings.Contains(q.text, "@request.query") {
		q.query = t.filter.text
	}
	return q
}

func (f filter) question(v view) question {
	q := question{text: f.text, filter: true}
	if strings.Contains(q.text, "@") { // who asks decides whether that is refused, and what it is
		q.auth = v.auth
	}
	return q
}

// shows is what PocketBase would have said of the row in that state to a viewer of the
// change's moment.
func (s state) shows(v view, t topic, a access) bool {
	return s.grants(v, t, a) && s.passes(v, t.filter)
}

func (s state) grants(v view, t topic, a access) bool {
	switch {
	case v.superuser:
		return true
	case a.rule == nil:
		return false
	case *a.rule == "":
		return true
	case a.evaluate == nil:
		return s.answers[a.question(v, t)]
	}
	return a.evaluate(s.row, v.authId)
}

func (s state) passes(v view, f filter) bool {
	switch {
	case f.text == "":
		return true
	case f.evaluate == nil:
		return s.answers[f.question(v)]
	}
	return f.evaluate(s.row, "")
}

package realtime

import (
	"net/url"
	"strings"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"
	"github.com/pocketbase/pocketbase/tools/subscriptions"
)

// A topic is a subscription to all records, or to the one of an id, of those that a filter
// lets through. Its name is the whole subscription, which PocketBase ignores the part of
// that asks for leave: `aiContent/*?leave=1&options={"query":{"filter":"…"}}`.
type topic struct {
	name       string
	collection string // its name
	id         string // empty for all
	leave      bool   // it is told of records that it could see and no longer can
	filter     filter
}

// A filter is what a subscription's filter asks of the record.
type filter struct {
	text     string // empty for none
	evaluate rule   // nil if the database is to be asked
	fields   []string
	demand   equality // which nothing it lets through is without
}

// An equality is one of a collection's text field with a value. The zero value is none.
type equality struct{ collection, field, value string }

// column is the equality without its value.
func (e equality) column() equality { return equality{collection: e.collection, field: e.field} }

func (f filter) asks() bool { return f.text != "" && f.evaluate == nil }

// ownTopics returns the subscriptions that the fan-out serves: those of its collections
// with no other option than a filter.
func (f *FanOut) ownTopics(all map[string]subscriptions.SubscriptionOptions) []topic {
	topics := []topic{}
	served := map[string]string{} // names by names and ids
	found := map[string]*core.Collection{}
	for _, name := range f.collections {
		served[name] = name
		if collection, err := f.app.FindCachedCollectionByNameOrId(name); err == nil {
			served[collection.Id], found[name] = name, collection
		}
	}
	for name, options := range all {
		path, query, _ := strings.Cut(name, "?")
		of, id, one := strings.Cut(path, "/")
		text, hasFilter := options.Query[search.FilterQueryParam]
		others := len(options.Query) + len(options.Headers)
		if hasFilter {
			others--
		}
		collection := served[of]
		if others > 0 || collection == "" || one && id == "" {
			continue
		}
		if id == "*" {
			id = ""
		}
		t := topic{name: name, collection: collection, id: id, filter: filter{text: text}}
		if values, err := url.ParseQuery(query); err == nil {
			t.leave = values.Get("leave") == "1"
		}
		if text != "" && found[collection] != nil {
			t.filter = compileFilter(found[collection], text)
		}
		if id != "" {
			t.filter.demand = equality{collection, "id", id}
		}
		topics = append(topics, t)
	}
	return topics
}

// compileFilter compiles a filter unless the database is to be asked.
func compileFilter(collection *core.Collection, text string) filter {
	compiled := filter{text: text}
	groups, err := fexpr.Parse(text)
	if err != nil || isForSuperusers(text) {
		return compiled
	}
	compiler := ruleCompiler{collection: collection, forFilter: true}
	if compiled.evaluate = compiler.rule(groups); compiled.evaluate != nil {
		compiled.fields = compiler.fields
		compiled.demand = compiler.demand(groups)
	}
	return compiled
}

// demand returns an equality that a compiled filter demands of every record.
func (c *ruleCompiler) demand(groups []fexpr.ExprGroup) equality {
	for i, group := range groups {
		if i > 0 && group.Join == fexpr.JoinOr {
			return equality{}
		}
	}
	for _, group := range groups {
		comparison, inner := unfold(group)
		if found := c.demand(inner); found.field != "" {
			return found
		}
		left, _ := c.operand(comparison.Left)
		right, _ := c.operand(comparison.Right)
		switch {
		case comparison.Op != fexpr.SignEq:
		case left.affinity == textual && comparison.Right.Type == fexpr.TokenText:
			return equality{c.collection.Name, left.field, right.literal.text}
		case right.affinity == textual && comparison.Left.Type == fexpr.TokenText:
			return equality{c.collection.Name, right.field, left.literal.text}
		}
	}
	return equality{}
}

// access returns who may see a change under this topic, and false if the topic is not
// about its record.
func (t topic) access(c *change) (access, bool) {
	switch {
	case t.collection != c.record.Collection().Name:
		return access{}, false
	case t.id == "":
		return c.list, true
	case t.id == c.record.Id:
		return c.view, true
	}
	return access{}, false
}

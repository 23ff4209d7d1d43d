package realtime

import (
	"net/url"
	"slices"
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
	name   string
	id     string // empty for all
	leave  bool   // it is told of records that it could see and no longer can
	filter filter
}

// A filter is what a subscription's filter asks of the record.
type filter struct {
	text     string // empty for none
	evaluate rule   // nil if the database is to be asked
	fields   []string
	demand   equality // which nothing it lets through is without
}

// An equality is one of a text field with a value. The zero value is none.
type equality struct{ field, value string }

func (f filter) asks() bool { return f.text != "" && f.evaluate == nil }

// ownTopics returns the subscriptions that the fan-out serves: those of its collection
// with no other option than a filter.
func (f *FanOut) ownTopics(all map[string]subscriptions.SubscriptionOptions) []topic {
	topics := []topic{}
	names := []string{f.collection}
	collection, err := f.app.FindCachedCollectionByNameOrId(f.collection)
	if err == nil {
		names = append(names, collection.Id)
	}
	for name, options := range all {
		path, query, _ := strings.Cut(name, "?")
		of, id, one := strings.Cut(path, "/")
		text, hasFilter := options.Query[search.FilterQueryParam]
		others := len(options.Query) + len(options.Headers)
		if hasFilter {
			others--
		}
		if others > 0 || !slices.Contains(names, of) || one && id == "" {
			continue
		}
		if id == "*" {
			id = ""
		}
		t := topic{name: name, id: id, filter: filter{text: text}}
		if values, err := url.ParseQuery(query); err == nil {
			t.leave = values.Get("leave") == "1"
		}
		if text != "" && collection != nil {
			t.filter = compileFilter(collection, text)
		}
		if id != "" {
			t.filter.demand = equality{"id", id}
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
			return equality{left.field, right.literal.text}
		case right.affinity == textual && comparison.Left.Type == fexpr.TokenText:
			return equality{right.field, left.literal.text}
		}
	}
	return equality{}
}

// access returns who may see a change under this topic, and false if the topic is not
// about its record.
func (t topic) access(c *change) (access, bool) {
	switch t.id {
	case "":
		return c.list, true
	case c.record.Id:
		return c.view, true
	}
	return access{}, false
}

package realtime

import (
	"slices"
	"sync"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
)

// An access is a rule for all viewers. evaluate is nil if the database is to be asked.
type access struct {
	rule     *string
	evaluate rule
	fields   []string // that evaluate reads
}

// A rule tells whether the viewer of an auth id, empty for a guest, may see a row.
type rule func(r row, authId string) bool

// A ruleCache keeps the rules of each collection, by its id, as it is now.
type ruleCache struct {
	mu sync.Mutex
	of map[string]collectionRules
}

type collectionRules struct {
	collection *core.Collection
	rules      map[string]access
}

// find returns the access that a rule gives.
func (r *ruleCache) find(collection *core.Collection, text *string) access {
	if text == nil || *text == "" {
		return access{rule: text}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	cached := r.of[collection.Id]
	if cached.collection != collection {
		cached = collectionRules{collection, map[string]access{}}
		r.of[collection.Id] = cached
	}
	found, ok := cached.rules[*text]
	if !ok {
		found = access{rule: text}
		if groups, err := fexpr.Parse(*text); err == nil {
			compiler := ruleCompiler{collection: collection}
			if found.evaluate = compiler.rule(groups); found.evaluate != nil {
				found.fields = slices.Clip(compiler.fields)
			}
		}
		cached.rules[*text] = found
	}
	return found
}

// A ruleCompiler notes the fields of the collection that a rule compares.
type ruleCompiler struct {
	collection  *core.Collection
	forFilter   bool // which may not read hidden fields, or the viewer
	fields      []string
	comparisons int
}

// rule compiles a rule of comparisons for which the database need not be asked, joined by
// && and ||. It returns nil for any other rule. Where SQL has a third truth, NULL, it is
// false here: without NOT that makes no difference.
func (c *ruleCompiler) rule(groups []fexpr.ExprGroup) rule {
	var alternatives []rule // each of which is one or more that must all hold
	for i, group := range groups {
		var one rule
		if comparison, inner := unfold(group); inner == nil {
			one = c.comparison(comparison)
		} else {
			one = c.rule(inner)
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

// unfold returns the comparison that a group is, or what is in its parentheses.
func unfold(group fexpr.ExprGroup) (comparison fexpr.Expr, inner []fexpr.ExprGroup) {
	switch item := group.Item.(type) {
	case fexpr.Expr:
		return item, nil
	case []fexpr.ExprGroup:
		return fexpr.Expr{}, item
	case fexpr.ExprGroup:
		return fexpr.Expr{}, []fexpr.ExprGroup{item}
	}
	return fexpr.Expr{}, nil
}

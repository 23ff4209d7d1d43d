package realtime

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
)

// tellWhatIsLive answers each subscription that asks for leave with what its events tell:
// exact if they tell of every record that enters or leaves what it shows, and the fields
// by which the client can give a record its place in a list; and continued if no event was
// missed since the topic was last told, before another one came or the connection was lost.
func (s *subscriber) tellWhatIsLive() {
	now, continued := s.tellsLive()
	for _, t := range now.topics {
		collection, err := s.fanOut.app.FindCachedCollectionByNameOrId(t.collection)
		if !t.leave || err != nil {
			continue
		}
		rule := collection.ListRule
		if t.id != "" {
			rule = collection.ViewRule
		}
		exact := !s.fanOut.isPartly(t.collection) &&
			(now.superuser || rule == nil || decidable(collection, *rule, true)) && decidable(collection, t.filter.text, false)
		data, _ := json.Marshal(struct {
			Action    string   `json:"action"`
			Exact     bool     `json:"exact"`
			Sortable  []string `json:"sortable"`
			Continued bool     `json:"continued,omitempty"`
		}{"live", exact, sortableFields(collection), continued[t.name]})
		s.tell(t, data)
	}
}

var alive = []byte(`{"action":"alive"}`)

// tellThatItLives has a stream that expects leave hear something: JavaScript can see no
// comment, and would take a dead connection for a quiet one.
func (s *subscriber) tellThatItLives() {
	if t := s.leaveTopic(""); t != nil {
		s.tell(*t, alive)
	}
}

// decidable reports whether a rule or a filter depends on nothing but the record and the
// viewer's id, so that only a change of the record changes what it says. A superuser's list
// may be filtered by hidden fields; PocketBase's events may not.
func decidable(collection *core.Collection, text string, hidden bool) bool {
	if strings.TrimSpace(text) == "" {
		return true
	}
	groups, err := fexpr.Parse(text)
	return err == nil && decidableGroups(collection, groups, hidden)
}

func decidableGroups(collection *core.Collection, groups []fexpr.ExprGroup, hidden bool) bool {
	return !slices.ContainsFunc(groups, func(group fexpr.ExprGroup) bool {
		comparison, inner := unfold(group)
		if inner != nil {
			return !decidableGroups(collection, inner, hidden)
		}
		return !decidableOperand(collection, comparison.Left, hidden) || !decidableOperand(collection, comparison.Right, hidden)
	})
}

func decidableOperand(collection *core.Collection, token fexpr.Token, hidden bool) bool {
	switch token.Type {
	case fexpr.TokenText, fexpr.TokenNumber:
		return true
	case fexpr.TokenIdentifier:
		if slices.Contains([]string{"@request.auth.id", "true", "false", "null"}, token.Literal) {
			return true
		}
		name, _, _ := strings.Cut(token.Literal, ":")
		name, path, nested := strings.Cut(name, ".")
		field := collection.Fields.GetByName(name)
		if field == nil || field.GetHidden() && !hidden { // a macro such as @now, another collection, or nothing
			return false
		}
		switch field.(type) {
		case *core.JSONField, *core.GeoPointField:
			return true
		}
		return !nested && path == ""
	}
	return false
}

// sortableFields are those whose values a client can compare as the database does.
func sortableFields(collection *core.Collection) []string {
	names := []string{}
	for _, f := range collection.Fields {
		comparable := false
		switch f := f.(type) {
		case *core.TextField, *core.NumberField, *core.BoolField, *core.DateField, *core.AutodateField, *core.EmailField, *core.URLField:
			comparable = true
		case *core.SelectField:
			comparable = !f.IsMultiple()
		}
		if comparable && !f.GetHidden() {
			names = append(names, f.GetName())
		}
	}
	return names
}

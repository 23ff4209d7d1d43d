package realtime

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ganigeorgiev/fexpr"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/search"
)

// An operand is one side of a comparison: a field, the viewer's id, or a literal.
type operand struct {
	field    string
	affinity affinity // of the field's column
	viewer   bool
	literal  value
}

// An affinity is what SQLite makes of a literal before it compares a column with it.
type affinity uint8

const (
	none    affinity = iota // no column
	textual                 // numbers become text
	numeric                 // texts that are numbers become numbers
)

// value returns the operand's, for a viewer who has that id.
func (o *operand) value(r row, viewer *value) *value {
	if o.field != "" {
		if v := r[o.field]; v != nil {
			return v
		}
		return &unread
	}
	if o.viewer {
		return viewer
	}
	return &o.literal
}

var unread value

// comparison compiles one of two operands as PocketBase has it done (tools/search/filter.go,
// buildResolversExpr): = and != take NULL for the empty text, and nothing is less or greater
// than it. The operators with ? differ from those without for fields of several values only.
func (c *ruleCompiler) comparison(expr fexpr.Expr) rule {
	if c.comparisons++; c.comparisons > search.DefaultFilterExprLimit {
		return nil
	}
	left, ok := c.operand(expr.Left)
	if !ok {
		return nil
	}
	right, ok := c.operand(expr.Right)
	if !ok {
		return nil
	}
	op := fexpr.SignOp(strings.TrimPrefix(string(expr.Op), "?"))
	ordered := op != fexpr.SignEq && op != fexpr.SignNeq
	if ordered && orders[op] == nil || !adapt(&left, &right, ordered) || !adapt(&right, &left, ordered) {
		return nil
	}
	for _, o := range []operand{left, right} {
		if o.field != "" && !slices.Contains(c.fields, o.field) {
			c.fields = append(c.fields, o.field)
		}
	}
	if ordered {
		return less(left, right, orders[op])
	}
	equal := op == fexpr.SignEq
	return func(r row, authId string) bool {
		viewer := viewerValue(authId)
		return left.value(r, &viewer).equals(right.value(r, &viewer)) == equal
	}
}

// orders are the operators that order, with what they say of an order.
var orders = map[fexpr.SignOp]func(order int) bool{
	fexpr.SignLt:  func(order int) bool { return order < 0 },
	fexpr.SignLte: func(order int) bool { return order <= 0 },
	fexpr.SignGt:  func(order int) bool { return order > 0 },
	fexpr.SignGte: func(order int) bool { return order >= 0 },
}

// less is true if neither is NULL, and they are in such an order.
func less(left, right operand, fits func(order int) bool) rule {
	return func(r row, authId string) bool {
		viewer := viewerValue(authId)
		a, b := left.value(r, &viewer), right.value(r, &viewer)
		return a.class != null && b.class != null && fits(a.compare(b))
	}
}

// viewerValue is the viewer's id, which a guest has none of.
func viewerValue(authId string) value {
	if authId == "" {
		return value{}
	}
	return textValue(authId)
}

// operand compiles one that the database need not be asked for.
func (c *ruleCompiler) operand(token fexpr.Token) (operand, bool) {
	switch token.Type {
	case fexpr.TokenText:
		return operand{literal: textValue(token.Literal)}, true
	case fexpr.TokenNumber:
		number, err := strconv.ParseFloat(token.Literal, 64)
		return operand{literal: value{class: real, real: number}}, err == nil
	case fexpr.TokenIdentifier:
		return c.identifier(token.Literal)
	}
	return operand{}, false
}

func (c *ruleCompiler) identifier(name string) (operand, bool) {
	if name == "@request.auth.id" && !c.forFilter {
		return operand{viewer: true}, true
	}
	if field := c.collection.Fields.GetByName(name); field != nil && !(c.forFilter && field.GetHidden()) {
		o := operand{field: name, affinity: affinityOf(field)}
		// PocketBase compares nothing but public ones for a filter.
		private := name == core.FieldNameEmail && c.forFilter && c.collection.IsAuth()
		return o, o.affinity != none && !private
	}
	switch strings.ToLower(name) { // for which there is no such field
	case "null":
		return operand{}, true
	case "true":
		return operand{literal: value{class: integer, integer: 1}}, true
	case "false":
		return operand{literal: value{class: integer}}, true
	}
	return operand{}, false
}

// affinityOf returns the affinity of the column of a field whose values are plain. Those
// of several values, and others that are JSON, have none here.
func affinityOf(field core.Field) affinity {
	switch field := field.(type) {
	case *core.TextField, *core.EditorField, *core.EmailField, *core.URLField, *core.DateField, *core.AutodateField:
		return textual
	case *core.NumberField, *core.BoolField:
		return numeric
	case *core.SelectField:
		return single(field)
	case *core.RelationField:
		return single(field)
	case *core.FileField:
		return single(field)
	}
	return none
}

func single(field core.MultiValuer) affinity {
	if field.IsMultiple() {
		return none
	}
	return textual
}

// adapt makes of the operand, if it is none, what SQLite does to compare the column with
// it. It returns false if only SQLite knows.
func adapt(o, column *operand, ordered bool) bool {
	switch {
	case column.affinity == none:
		return true
	case o.affinity != none: // = and != compare two columns without affinity, as arguments of COALESCE
		return !ordered || o.affinity == column.affinity
	case o.viewer: // whose id could be a number
		return column.affinity == textual
	case column.affinity == textual:
		return o.literal.becomeText()
	}
	return o.literal.becomeNumber()
}

// becomeText makes text of a number, as SQLite writes it.
func (v *value) becomeText() bool {
	switch v.class {
	case integer:
		*v = textValue(strconv.FormatInt(v.integer, 10))
	case real:
		size := math.Abs(v.real)
		rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v.real, 'e', maxDigits-1, 64), 64)
		if rounded != v.real || size >= 1e15 || size < 1e-4 && (size > 0 || math.Signbit(v.real)) {
			return false // it has more digits, an exponent, or a sign that no number needs
		}
		written := strconv.FormatFloat(v.real, 'f', -1, 64)
		if !strings.Contains(written, ".") {
			written += ".0"
		}
		*v = textValue(written)
	}
	return true
}

// maxDigits is how many a number may have so that any way to read and to write it gives the same.
const maxDigits = 15

var plainNumber = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?$`)

// becomeNumber makes a number of a text that is one.
func (v *value) becomeNumber() bool {
	if v.class != text || v.text == "" || !strings.ContainsAny(v.text, "0123456789") {
		return true
	}
	if len(v.text) > maxDigits || !plainNumber.MatchString(v.text) {
		return false
	}
	number, err := strconv.ParseFloat(v.text, 64)
	*v = value{class: real, real: number}
	return err == nil
}

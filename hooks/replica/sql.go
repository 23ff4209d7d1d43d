package replica

import (
	"slices"
	"strings"
)

// What kinds of statements there are, for what is to be logged of them.
type kind int

const (
	kindRead      kind = iota // changes nothing, or nothing that every node has
	kindWrite                 // changes rows
	kindSchema                // changes the schema
	kindVacuum                // may give rows other rowids
	kindSavepoint             // sets a savepoint
	kindRelease               // takes one back
	kindRollback              // goes back to one
	kindRefused               // can't be logged
)

// A statement is one of a script, as far as it must be known.
type statement struct {
	sql  string
	kind kind
	name string // of a savepoint, in upper case
	err  error  // why it is refused
}

// A token is a word, in upper case and never quoted, or a quoted name with its quotes, or
// one other character.
type token struct {
	text  string
	depth int // of the parentheses around it
}

// parse takes a script apart into its statements, as SQLite does.
func parse(script string) []statement {
	script, _, _ = strings.Cut(script, "\x00") // where SQLite stops
	if selects(script) {
		return []statement{{sql: script, kind: kindRead}}
	}
	var statements []statement
	var tokens []token
	start, depth := 0, 0
	for i := 0; i < len(script); {
		end := i + tokenLength(script[i:])
		text := script[i:end]
		switch c := text[0]; {
		case isSpace(text):
		case c == ';' && !insideTrigger(tokens):
			if len(tokens) > 0 {
				statements = append(statements, classify(trim(script[start:i]), tokens))
			}
			tokens, start, depth = nil, end, 0
		default:
			if c == ')' {
				depth--
			}
			if isWordByte(c) {
				text = upper(text)
			}
			tokens = append(tokens, token{text, depth})
			if c == '(' {
				depth++
			}
		}
		i = end
	}
	if len(tokens) > 0 {
		statements = append(statements, classify(trim(script[start:]), tokens))
	}
	return statements
}

// selects recognizes most queries without taking them apart.
func selects(script string) bool {
	return len(script) > 6 && strings.EqualFold(script[:6], "SELECT") && !isWordByte(script[6]) && !strings.Contains(script, ";")
}

// tokenLength returns the length of the token, the space or the comment that s begins with.
func tokenLength(s string) int {
	until := func(from int, end string) int {
		if i := strings.Index(s[from:], end); i >= 0 {
			return from + i + len(end)
		}
		return len(s)
	}
	switch c := s[0]; {
	case c == '\'' || c == '"' || c == '`': // a doubled quote is two tokens, which is the same here
		return until(1, s[:1])
	case c == '[':
		return until(1, "]")
	case strings.HasPrefix(s, "--"):
		return until(2, "\n")
	case strings.HasPrefix(s, "/*") && len(s) > 2:
		return until(2, "*/")
	case strings.HasPrefix(s, "\ufeff"):
		return len("\ufeff")
	case isWordByte(c), strings.IndexByte(":@#", c) >= 0: // the latter begin a parameter
		n := 1
		for n < len(s) && isWordByte(s[n]) {
			n++
		}
		if strings.IndexByte("$:@#", c) >= 0 {
			return n + suffixLength(s[n:])
		}
		return n
	}
	return 1
}

// suffixLength returns the length of what a parameter's name may end with: ::more(anything but a space).
func suffixLength(s string) (n int) {
	for strings.HasPrefix(s[n:], "::") {
		for n += 2; n < len(s) && isWordByte(s[n]); n++ {
		}
	}
	if strings.HasPrefix(s[n:], "(") {
		if end := strings.IndexAny(s[n:], ")\v"+spaces); end > 0 && s[n+end] == ')' {
			n += end + 1
		}
	}
	return n
}

// spaces are SQLite's: others are part of a name.
const spaces = " \t\n\f\r"

func trim(sql string) string { return strings.Trim(sql, spaces) }

func isSpace(text string) bool {
	return strings.IndexByte(spaces, text[0]) >= 0 || text == "\ufeff" ||
		strings.HasPrefix(text, "--") || strings.HasPrefix(text, "/*")
}

func isWordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// insideTrigger reports whether a semicolon belongs to a trigger, which ends with one after END
// after another one: SQLite's own rule, in sqlite3_complete.
func insideTrigger(tokens []token) bool {
	t := words(tokens)
	t = t.after("EXPLAIN").after("QUERY").after("PLAN")
	if !t.at(0, "CREATE") {
		return false
	}
	t = t[1:].after("TEMP").after("TEMPORARY")
	return t.at(0, "TRIGGER") && !(t.at(len(t)-1, "END") && t.at(len(t)-2, ";"))
}

// words are the tokens of a statement, or the rest of them.
type words []token

func (w words) at(i int, text string) bool { return i >= 0 && i < len(w) && w[i].text == text }

// after returns what follows the word, if it comes first.
func (w words) after(text string) words {
	if w.at(0, text) {
		return w[1:]
	}
	return w
}

// inSchema returns what follows the name of a schema, if one comes first.
func (w words) inSchema() words {
	if w.at(1, ".") {
		return w[2:]
	}
	return w
}

// has reports whether the words come one after the other.
func (w words) has(sequence ...string) bool {
	for i := range w {
		matches := len(w)-i >= len(sequence)
		for j := 0; matches && j < len(sequence); j++ {
			matches = w[i+j].text == sequence[j]
		}
		if matches {
			return true
		}
	}
	return false
}

func classify(sql string, tokens words) statement {
	s := statement{sql: sql, kind: kindRead}
	refuse := func(err error) statement {
		s.kind, s.err = kindRefused, err
		return s
	}
	switch tokens[0].text {
	case "INSERT", "REPLACE", "UPDATE", "DELETE", "WITH":
		verb := mainVerb(tokens)
		if verb == nil {
			return s // a SELECT
		}
		s.kind = kindWrite
		if slices.ContainsFunc(tokens, func(t token) bool { return unquote(t.text) == "SQLITE_DBPAGE" }) {
			return refuse(errPages)
		}
		if verb.at(1, "OR") && verb.at(2, "FAIL") {
			return refuse(errFail)
		}
		if verb.copiesAll() {
			s.sql += "\nWHERE true"
		}
	case "CREATE", "ALTER", "DROP":
		s.kind = kindSchema
		if err := refuseSchema(tokens); err != nil {
			return refuse(err)
		}
		if isTemporary(tokens) || strings.HasPrefix(name(tokens[1:].after("TABLE").after("IF").after("EXISTS").inSchema()), "SQLITE_STAT") {
			s.kind = kindRead // of this connection, or of this file: statistics
		}
	case "SAVEPOINT":
		s.kind, s.name = kindSavepoint, savepointName(tokens[1:])
	case "RELEASE":
		s.kind, s.name = kindRelease, savepointName(tokens[1:].after("SAVEPOINT"))
	case "ROLLBACK":
		to := tokens[1:].after("TRANSACTION")
		if !to.at(0, "TO") {
			return refuse(errTransaction)
		}
		s.kind, s.name = kindRollback, savepointName(to[1:].after("SAVEPOINT"))
	case "BEGIN", "COMMIT", "END":
		return refuse(errTransaction)
	case "ATTACH", "DETACH":
		return refuse(errAttach)
	case "VACUUM":
		if !tokens.has("INTO") {
			s.kind = kindVacuum
		}
	case "PRAGMA":
		if err := refusePragma(tokens[1:]); err != nil {
			return refuse(err)
		}
	}
	return s
}

// mainVerb returns the words from the verb of a statement that changes rows, after the
// tables that WITH names; nil when it is a SELECT.
func mainVerb(tokens words) words {
	for i, t := range tokens {
		if t.depth > 0 {
			continue
		}
		switch t.text {
		case "SELECT", "VALUES":
			return nil
		case "REPLACE": // may name such a table
			if i > 0 && !tokens.at(i+1, "INTO") {
				continue
			}
			return tokens[i:]
		case "INSERT", "UPDATE", "DELETE":
			return tokens[i:]
		}
	}
	return nil
}

// name returns the name that the words begin with, without quotes, in upper case.
func name(tokens words) string {
	if len(tokens) == 0 {
		return ""
	}
	return unquote(tokens[0].text)
}

// savepointName returns the name that the words are: one that has a quote in it is several.
func savepointName(tokens words) string {
	all := ""
	for _, t := range tokens {
		all += t.text
	}
	return unquote(all)
}

// unquote takes away the quotes around a name, and not those of the name itself: inside, two are one.
func unquote(name string) string {
	name = upper(name)
	if name == "" || !strings.Contains("'\"`[", name[:1]) {
		return name
	}
	end := name[:1]
	if end == "[" {
		end = "]"
	}
	return strings.ReplaceAll(strings.TrimSuffix(name[1:], end), end+end, end)
}

// upper changes the letters whose case SQLite ignores.
func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

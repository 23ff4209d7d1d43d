package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

// isTerminal reports whether someone reads out, rather than a program or a file.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// printJSON prints a value for scripts.
func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// wrapped indents text by two columns, and wraps it for a terminal of 80.
func wrapped(out io.Writer, text string) string {
	width := 78
	if !isTerminal(out) {
		width = 1 << 30
	}
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		length := len([]rune(word))
		switch {
		case column == 0:
			b.WriteString("  ")
		case column+1+length > width:
			b.WriteString("\n  ")
			column = 0
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

func toAny(s []string) []any {
	out := make([]any, len(s))
	for i := range s {
		out[i] = s[i]
	}
	return out
}

// shown rounds a duration to what is worth showing.
func shown(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// InQuotes reports whether a value has kept the quotes that a shell or systemd would
// have taken away.
func InQuotes(value string) bool {
	return strings.HasPrefix(value, `"`) || strings.HasSuffix(value, `"`) || strings.HasPrefix(value, "'") || strings.HasSuffix(value, "'")
}

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

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

// shown rounds a duration to what is worth showing.
func shown(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// InQuotes reports whether a value has kept the quotes that a shell or systemd would
// have taken away.
func InQuotes(value string) bool {
	return strings.HasPrefix(value, `"`) || strings.HasSuffix(value, `"`) || strings.HasPrefix(value, "'") || strings.HasSuffix(value, "'")
}

// oneLine is text without what would break a line or act on a terminal: an AI model, or
// whoever asked it, wrote it.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// printable is text of several lines without what would act on a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}

// shortened is as much of a text as fits in a column.
func shortened(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}

//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A table is printed as plain columns, or as Markdown.
type table struct {
	title string
	notes []string
	head  []string
	rows  [][]string
	text  bool // the cells are words, not figures
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer, markdown bool) {
	if markdown {
		fmt.Fprintf(w, "\n### %s\n\n", t.title)
		for _, note := range t.notes {
			fmt.Fprintf(w, "%s\n", note)
		}
		if len(t.notes) > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(t.head, " | "), strings.Repeat(" --- |", len(t.head)))
		for _, row := range t.rows {
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		}
		return
	}
	fmt.Fprintf(w, "\n%s\n", t.title)
	for _, note := range t.notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for _, row := range append([][]string{t.head}, t.rows...) {
		line := ""
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i == 0 {
				line += cell + space // names to the left, figures to the right
			} else if t.text {
				line += "  " + cell + space
			} else {
				line += "  " + space + cell
			}
		}
		fmt.Fprintln(w, "  "+strings.TrimRight(line, " "))
	}
}

func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	switch {
	case v == 0:
		return "-"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func us(d time.Duration) string {
	v := float64(d) / float64(time.Microsecond)
	if v == 0 {
		return "-"
	}
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }

func mb(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/(1<<20)) }

func ratio(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// The columns for programs. A delivery's begin with those of a callback.
var (
	callbackHead = []string{"ID", "STATE", "TRIES", "HTTP", "CREATED", "NEXT", "ERROR"}
	deliveryHead = append(callbackHead[:len(callbackHead):len(callbackHead)], "TITLE", "EVENT", "CATEGORY", "USER", "CHANNEL")
)

func callbackFields(d *store.Delivery) []string {
	fields := deliveryFields(d)[:len(callbackHead)]
	fields[1] = d.Callback
	return fields
}

func deliveryFields(d *store.Delivery) []string {
	status := "-"
	if d.LastStatus > 0 {
		status = fmt.Sprint(d.LastStatus)
	}
	fields := []string{
		d.Id, d.State, fmt.Sprint(d.Attempts), status, atSecond(d.Created), atSecond(d.NextAttempt), d.LastError,
		d.Title, d.Event, d.Category, d.UserId, d.ChannelId,
	}
	for i := range fields {
		fields[i] = oneLine(fields[i])
	}
	return fields
}

// printFields prints rows for programs.
func printFields[R any](out io.Writer, rows []R, head []string, fieldsOf func(R) []string) error {
	var text strings.Builder
	fmt.Fprintln(&text, strings.Join(head, "\t"))
	for _, row := range rows {
		fmt.Fprintln(&text, strings.Join(fieldsOf(row), "\t"))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// showDeliveries prints a list for a terminal of 80 columns.
func showDeliveries(out io.Writer, deliveries []*store.Delivery) error {
	if len(deliveries) == 0 {
		_, err := fmt.Fprintln(out, "No deliveries.")
		return err
	}
	const line = "%-15s  %-9s  %-19s  %s\n"
	var text strings.Builder
	fmt.Fprintf(&text, line, "ID", "STATE", "RECEIVED", "TITLE")
	for _, d := range deliveries {
		fmt.Fprintf(&text, line, d.Id, d.State, atSecond(d.Created), shortened(oneLine(d.Title), 31))
		if outcome := outcomeOf(d); outcome != "" {
			fmt.Fprintln(&text, wrapped(out, outcome))
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// outcomeOf says why a delivery has not come to its end yet, or how it ended if not well.
func outcomeOf(d *store.Delivery) string {
	var known []string
	if d.Attempts > 0 {
		known = append(known, english.Plural(d.Attempts, "attempt", ""))
	}
	if d.LastStatus > 0 {
		known = append(known, fmt.Sprintf("HTTP %d", d.LastStatus))
	}
	if !d.NextAttempt.IsZero() {
		known = append(known, "next "+atSecond(d.NextAttempt))
	}
	text := strings.Join(known, ", ")
	switch {
	case d.LastError == "" && d.NextAttempt.IsZero():
		return ""
	case d.LastError != "" && text != "":
		return text + ": " + oneLine(d.LastError)
	}
	return text + oneLine(d.LastError)
}

func atSecond(t types.DateTime) string {
	if t.IsZero() {
		return "-"
	}
	return t.Time().UTC().Format(time.DateTime)
}

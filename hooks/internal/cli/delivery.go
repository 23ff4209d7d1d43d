package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

func (c *commands) showDelivery(command *cobra.Command, id string, given deliveryFlags) error {
	for _, name := range []string{"state", "event", "category", "user", "search", "since", "until", "limit"} {
		if command.Flags().Changed(name) {
			return fmt.Errorf("--%s: is for the list: leave it out with an ID", name)
		}
	}
	if given.payload && given.asJSON {
		return errors.New("--payload prints the payload only, and --json has it too: give one of them")
	}
	if err := c.openData(); err != nil {
		return err
	}
	if !c.app.HasTable(store.Attempts) {
		return fmt.Errorf("%s: nothing is kept of single deliveries yet, as this data was last served by an earlier release: "+
			"restart the server with this one. Until then \"modelriver deliveries --search %s\" shows what is known", id, id)
	}
	delivery, err := store.FindDelivery(c.app, id)
	out := command.OutOrStdout()
	switch {
	case err != nil:
		return err
	case delivery == nil:
		return fmt.Errorf("%s: there is no such delivery: \"modelriver deliveries\" lists them, with --search by channel id too", id)
	case given.asJSON:
		return printJSON(out, delivery)
	case !given.payload:
		return printDelivery(out, delivery)
	case delivery.Payload == nil:
		elsewhere := ""
		if c.options.Several {
			elsewhere = ", or another node has it, which led then: run this on that one"
		}
		return fmt.Errorf("%s: its payload is not kept: the webhook came before payloads were, or longer ago than MODELRIVER_PAYLOAD_RETENTION, or its record was deleted%s", id, elsewhere)
	}
	_, err = io.WriteString(out, *delivery.Payload)
	return err
}

func printDelivery(out io.Writer, d *store.WholeDelivery) error {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range append(aboutContent(d), aboutCallback(d)...) {
		if value := oneLine(row[1]); value != "" {
			fmt.Fprintf(table, "%s\t%s\n", row[0], value)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if d.Delivery.LastError != "" {
		fmt.Fprintf(&text, "\nLast error:\n%s\n", wrapped(out, oneLine(d.Delivery.LastError)))
	}
	printTimeline(&text, out, d)
	_, err := io.WriteString(out, text.String())
	return err
}

func aboutContent(d *store.WholeDelivery) [][2]string {
	payload := "not kept"
	if d.Payload != nil {
		payload = humanize.Comma(int64(d.Size)) + " bytes"
		if d.Scheme != "" {
			payload += ", signed in the scheme " + d.Scheme
		}
		payload += ": --payload prints it"
	}
	record := d.Delivery.Record
	if record == "" {
		record = "none"
	}
	return [][2]string{
		{"delivery", d.Delivery.Id}, {"state", d.Delivery.State}, {"received", atSecond(d.Delivery.Created)},
		{"title", d.Delivery.Title}, {"event", d.Delivery.Event}, {"category", d.Delivery.Category},
		{"user", d.Delivery.UserId}, {"channel", d.Delivery.ChannelId}, {"record", record}, {"payload", payload},
	}
}

func aboutCallback(d *store.WholeDelivery) [][2]string {
	if d.Callback == nil {
		return [][2]string{{"callback", "none"}}
	}
	rows := [][2]string{{"callback", d.Callback.URL}, {"attempts", fmt.Sprint(d.Delivery.Attempts)}}
	if d.Delivery.Took != nil {
		took := time.Duration(*d.Delivery.Took) * time.Millisecond
		rows = append(rows, [2]string{"delivered", fmt.Sprintf("%s, after %s", atSecond(d.Delivery.DeliveredAt), took)})
	}
	if !d.Delivery.NextAttempt.IsZero() {
		rows = append(rows, [2]string{"next", fmt.Sprintf("%s, until %s", atSecond(d.Delivery.NextAttempt), atSecond(d.Callback.Expires))})
	}
	return rows
}

// printTimeline adds the attempts to text, which out is to show.
func printTimeline(text *strings.Builder, out io.Writer, d *store.WholeDelivery) {
	if len(d.Timeline) == 0 && d.TimelineMissing == 0 {
		return
	}
	const line = "%-19s  %4s  %8s  %s\n"
	fmt.Fprintf(text, "\n"+line, "ATTEMPT", "HTTP", "TOOK", "SENT")
	if d.TimelineMissing > 0 {
		fmt.Fprintf(text, "%s of which nothing is kept\n", english.Plural(d.TimelineMissing, "attempt", ""))
	}
	for _, a := range d.Timeline {
		status, sent := "-", "callback"
		if a.Status > 0 {
			status = fmt.Sprint(a.Status)
		}
		if a.ErrorCallback {
			sent = "error callback"
		}
		fmt.Fprintf(text, line, atSecond(a.At), status, fmt.Sprintf("%dms", a.Duration), sent)
		if a.Error != "" {
			fmt.Fprintln(text, wrapped(out, oneLine(a.Error)))
		}
		if a.Answer != "" {
			fmt.Fprintln(text, wrapped(out, "answer: "+oneLine(a.Answer)))
		}
	}
}

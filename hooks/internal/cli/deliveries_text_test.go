package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A list fits a terminal of 80 columns, whatever is in it, and has a text on one line.
func TestDeliveriesOnATerminal(t *testing.T) {
	t.Parallel()
	at := store.DateTime(time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC))
	deliveries := []*store.Delivery{
		{Id: "2k1vdvlw6w1ioj0", State: store.Delivered, Created: at, Title: strings.Repeat("Ä long\x1b[31m title\n", 9), Attempts: 1, LastStatus: 200},
		{Id: "2k1vdvlw6w1ioj1", State: store.Waiting, Created: at, Title: "T", Attempts: 2, LastStatus: 503, NextAttempt: at, LastError: "answered 503"},
	}
	var out strings.Builder
	if err := showDeliveries(&out, deliveries); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, line := range lines {
		if len([]rune(line)) > 80 || strings.ContainsAny(line, "\x1b\t") {
			t.Errorf("%d columns: %q", len([]rune(line)), line)
		}
	}
	if want := "  2 attempts, HTTP 503, next 2026-01-31 10:00:00: answered 503"; len(lines) != 4 || lines[3] != want {
		t.Errorf("got\n%s\nwant, in the fourth line, %q", out.String(), want)
	}
}

// What an AI model, ModelRiver or a store wrote does not act on a terminal, whichever command shows it.
func TestNothingActsOnATerminal(t *testing.T) {
	t.Parallel()
	const hostile = "one \x1b]52;c;cm0gLXJm\x07\u009b31m\r\x7ftwo"
	collection := core.NewBaseCollection("answers")
	collection.Fields.Add(&core.TextField{Name: "title"}, &core.TextField{Name: "body"}, &core.JSONField{Name: "data"})
	answer := core.NewRecord(collection)
	answer.Set("title", hostile)
	answer.Set("body", "first line\n\tsecond "+hostile)
	var out strings.Builder
	if err := printAnswer(&out, answer, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "first line\n\tsecond one ") {
		t.Errorf("the body is not as it was: %q", out.String())
	}
	s := &status{Replica: &recovery.State{Error: hostile + "\nagain"}}
	s.LastError = &store.CallbackError{Error: hostile}
	if err := s.print(&out, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := (Finding{Check: "webhook", Grade: gradeProblem, Text: hostile}).print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b\r\x7f") || strings.Contains(out.String(), "\nagain") {
		t.Errorf("got %q", out.String())
	}
}

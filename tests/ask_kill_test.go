package tests

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
)

// A pointedKill ends the server when one question has come to a moment.
type pointedKill struct {
	moment string
	taken  int    // generations
	state  string // that becomes of it
	silent string // and if webhooks do not tell whose answer they are; the same if empty
}

var pointedKills = []pointedKill{
	{"claim", 1, "answered", ""},         // before it is claimed: it is sent afterwards
	{"asked", 0, "failed", ""},           // while it is unanswered, and ModelRiver loses it
	{"taken", 1, "answered", "failed"},   // while it is unanswered, and ModelRiver takes it
	{"outcome", 1, "answered", "failed"}, // the answer is there, and is being written down
	{"webhook", 1, "answered", ""},       // before the webhook comes
	{"half a webhook", 1, "answered", ""},
	{"content", 1, "answered", ""}, // it is being stored
	{"stored", 1, "answered", ""},  // it is stored, and its webhook is not answered
	{"webhook answered", 1, "answered", ""},
	{"callback", 1, "answered", ""},    // before ModelRiver has it
	{"called back", 1, "answered", ""}, // before the outcome of the callback is stored
}

// killAt has a question asked, kills the server when it has come to the moment, and waits for
// what becomes of it.
func (run *askRun) killAt(p pointedKill) {
	t := run.t
	t.Helper()
	q := run.gateway.enter(askers[run.rng.IntN(len(askers))], p.moment)
	client := make(chan struct{})
	go func() {
		defer close(client)
		run.ask(q)
	}()
	select {
	case <-run.gateway.reached:
	case <-time.After(patience):
		t.Fatalf("%s: %s is not reached\n%s", q.text, p.moment, run.output)
	}
	select {
	case <-client: // before any moment the client was answered, for it does not wait for ModelRiver
	case <-time.After(10 * time.Second):
		t.Errorf("%s: the client is not answered before %s", q.text, p.moment)
	}
	if strings.HasSuffix(p.moment, "webhook") { // else it would not be known whether ModelRiver took it
		run.awaitRequest(q, "state = 'sent'")
	}
	run.kill()
	run.Start()
	run.gateway.resume <- struct{}{}
	run.becomes(q, p)
}

// killClaimed kills the server when a question was claimed, and before its first byte goes out.
func (run *askRun) killClaimed() {
	run.t.Helper()
	run.pause.Lock() // not more requests than are sent at the same time
	defer run.pause.Unlock()
	stop := run.strace("-e", "trace=connect", "-e", "inject=connect:delay_enter=20000000", "-o", os.DevNull)
	run.gateway.config.SetKeepAlivesEnabled(false) // ends connections that no connect is needed for
	run.gateway.config.SetKeepAlivesEnabled(true)
	p := pointedKill{moment: "claimed", state: "failed"}
	q := run.gateway.enter(askers[run.rng.IntN(len(askers))], p.moment)
	go run.ask(q)
	run.awaitRequest(q, "attempts = 1")
	run.kill()
	stop()
	run.Start()
	run.becomes(q, p)
	run.gateway.mu.Lock()
	defer run.gateway.mu.Unlock()
	if q.posts != 0 {
		run.t.Errorf("%s was sent %d times, though the server ended before", q.text, q.posts)
	}
}

// becomes waits for what becomes of a question after a kill.
func (run *askRun) becomes(q *question, p pointedKill) {
	t := run.t
	t.Helper()
	want := p.state
	if !run.echoes && p.silent != "" {
		want = p.silent
	}
	run.faults["killed at "+p.moment]++
	run.awaitRequest(q, "state = '"+want+"'")
	await(t, fmt.Sprintf("%s, killed at %s, has %d generations", q.text, p.moment, p.taken), func() bool {
		run.gateway.mu.Lock()
		defer run.gateway.mu.Unlock()
		return q.taken == p.taken
	})
}

// awaitRequest waits until the condition holds for the request of the question.
func (run *askRun) awaitRequest(q *question, condition string) {
	run.t.Helper()
	db := openDatabase(run.t, run.Dir)
	defer db.Close()
	var rows []requestRow
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := db.Select().From("aiRequests").Where(dbx.NewExp("input LIKE {:text} AND "+condition, dbx.Params{"text": `%"` + q.text + `"%`})).All(&rows)
		if err == nil && len(rows) == 1 {
			return
		}
		if time.Now().After(deadline) {
			stored := readAsked(run.t, run.Dir)
			run.t.Fatalf("%s has not %s (%v): %+v with %+v", q.text, condition, err, stored.requests[q.text], stored.answers[q.text])
		}
	}
}

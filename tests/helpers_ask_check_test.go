package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
)

// unmatchedUser is the user of what may be anybody's answer: superusers only see it.
const unmatchedUser = "unmatched answer"

// What users are told of a request of which nobody knows, and of one that was not answered.
const (
	tellsUnknown    = "It is not known whether ModelRiver took the request"
	tellsUnanswered = "No answer came within 4 hours"
)

// check balances the ledger against the data. ids are the users' by their names. echoes says
// that webhooks tell whose answer they are, late that the time for answers is over.
func (l *askLedger) check(stored asked, ids map[string]string, echoes, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for text := range stored.requests {
		if l.questions[text] == nil {
			l.note("a request that nobody made: %+v", stored.requests[text])
		}
	}
	for text := range stored.answers {
		if l.questions[text] == nil {
			l.note("an answer that nobody asked for: %+v", stored.answers[text])
		}
	}
	for text, q := range l.questions {
		l.checkBatch(q, stored)
		switch rows := stored.requests[text]; {
		case len(rows) > 1:
			l.note("%s: %d requests", text, len(rows))
		case len(rows) == 1:
			l.checkRequest(q, rows[0], stored.answers[text], ids[q.user], late)
			l.checkAnswers(q, rows[0], stored.answers[text], ids[q.user], echoes)
		case q.answered == http.StatusOK:
			l.note("%s: created, but there is no request", text)
		case q.posts > 0 || len(stored.answers[text]) > 0:
			l.note("%s: sent %d times and answered, but there is no request", text, q.posts)
		}
	}
}

// checkBatch compares what became of a question with the others of its batch.
func (l *askLedger) checkBatch(q *question, stored asked) {
	if q.batch == nil {
		return
	}
	if first := q.batch.questions[0]; len(stored.requests[q.text]) != len(stored.requests[first.text]) {
		l.note("%s and %s: half a batch", q.text, first.text)
	}
	if q.batch.unfit && len(stored.requests[q.text]) > 0 {
		l.note("%s: created in a batch that was refused", q.text)
	}
}

// checkRequest compares a question with its request.
func (l *askLedger) checkRequest(q *question, row requestRow, answers []answerRow, user string, late bool) {
	note := func(what string) { l.note("%s: %s: %+v of %+v with %+v", q.text, what, row, *q, answers) }
	if row.Workflow != "story" || row.User != user || q.id != "" && q.id != row.Id {
		note("not what was asked")
	}
	if q.taken > q.mayTake {
		note("generated more than once")
	}
	if q.posts > row.Attempts && q.mayTake == 1 {
		note("sent more often than claimed")
	}
	expires, _ := time.Parse("2006-01-02 15:04:05.000Z", row.Expires)
	webhooks, failures := 0, 0
	for _, channel := range append(q.channels, row.Channel) {
		webhooks += l.entry(channel).accepted
		if l.entry(channel).errors {
			failures++
		}
	}
	switch row.State {
	case "answered":
		if len(answers) == 0 || row.Error != "" || row.Next != "" || row.Expires != "" {
			note("answered, but not whole")
		}
	case "failed":
		switch told := row.Error; {
		case told == "":
			note("failed without a reason")
		case strings.HasPrefix(told, tellsUnknown):
		case strings.HasPrefix(told, tellsUnanswered):
			if !late || webhooks > 0 || q.taken == 0 {
				note("given up for no reason")
			}
		case q.taken > 0 && failures == 0:
			note("failed, though it was taken")
		}
	case "sent":
		if late || webhooks > 0 || q.taken == 0 || time.Until(expires) < time.Hour {
			note("sent, and not visibly waiting")
		}
	default:
		note("it does not end")
	}
}

// checkAnswers looks at whose the answers to a question are.
func (l *askLedger) checkAnswers(q *question, row requestRow, answers []answerRow, user string, echoes bool) {
	note := func(what string) { l.note("%s: %s: %+v of %+v with %+v", q.text, what, row, *q, answers) }
	records := 0
	for _, answer := range answers {
		if answer.Id == row.Record {
			records++
		}
		if entry := l.entry(answer.Channel); entry.accepted > 0 && entry.called == 0 && !entry.errors {
			note("stored, but not called back")
		}
		unknown := !echoes && answer.User == unmatchedUser && answer.Channel != row.Channel
		if answer.User != user && !unknown {
			note("an answer is another's")
		}
	}
	switch {
	case row.State == "answered" && records != 1:
		note("not exactly one record")
	case row.State != "answered" && row.Record != "":
		note("not answered, but there is a record")
	case row.State != "answered" && len(answers) > 0 && (echoes || !strings.HasPrefix(row.Error, tellsUnknown)):
		note("the answer is there, and was not given to its request")
	}
}

// tally counts requests by their state.
func (l *askLedger) tally(stored asked) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	states, unmatched := map[string]int{}, 0
	for _, rows := range stored.requests {
		for _, row := range rows {
			states[row.State]++
		}
	}
	for _, rows := range stored.answers {
		for _, row := range rows {
			if row.User == unmatchedUser {
				unmatched++
			}
		}
	}
	cut, again, taken := 0, 0, 0
	for _, q := range l.questions {
		taken += q.taken
		if q.answered == 0 {
			cut++
		}
		if q.posts > 1 {
			again++
		}
	}
	return fmt.Sprintf("%d questions, %d of them cut off, %d sent again, %d generations; requests %v, %d unmatched answers, webhooks answered %v of which %d put off",
		len(l.questions), cut, again, taken, states, unmatched, l.statuses, l.undecided)
}

// inPast has the time come that a field of the rows in a state tells, while the server does not
// run.
func inPast(t testing.TB, dir, table, field, state string) {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	past := dbx.Params{field: time.Now().UTC().Add(-time.Minute).Format("2006-01-02 15:04:05.000Z")}
	if _, err := db.Update(table, past, dbx.HashExp{"state": state}).Execute(); err != nil {
		t.Fatal(err)
	}
}

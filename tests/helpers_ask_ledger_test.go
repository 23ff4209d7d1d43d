package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// A question is one line of the ledger of what users asked. Its text is in the input of the
// request, and the simulator repeats it in the title of the answer.
type question struct {
	text    string
	user    string // name of who asks
	pointed bool   // it is to stop somewhere
	batch   *batch // nil if it is asked by itself

	// Guarded by the ledger's mu.
	stopAt   string
	answered int    // status that the client was answered; 0 if it was cut off
	id       string // of the request, if the client was told
	posts    int    // requests that the server began
	refused  int    // those answered 429 or 503
	taken    int    // those for which there is a generation
	mayTake  int    // generations it may have: one more for each time it is asked again by hand
	channels []string
}

// A batch is created as a whole, or not at all.
type batch struct {
	questions []*question
	unfit     bool // one of it can't be created
}

// A channelEntry is what the gateway knows of one of ModelRiver's channels.
type channelEntry struct {
	accepted int // attempts to deliver its webhooks that were answered 200
	errors   bool
	called   int // callbacks that were accepted
}

// An askLedger is what users asked and what came of it.
type askLedger struct {
	*modelRiver // for its violations
	questions   map[string]*question
	channels    map[string]*channelEntry
	undecided   int // webhooks that were put off, as they may have been the answer to a request
}

func newAskLedger(m *modelRiver) *askLedger {
	return &askLedger{modelRiver: m, questions: map[string]*question{}, channels: map[string]*channelEntry{}}
}

var questionText = regexp.MustCompile(`ask-([a-z]+)-\d+(-pointed)?`)

// enter enters a question, to be asked.
func (l *askLedger) enter(user, stopAt string) *question {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &question{user: user, stopAt: stopAt, pointed: stopAt != "", mayTake: 1}
	q.text = fmt.Sprintf("ask-%s-%d", user, len(l.questions))
	if q.pointed {
		q.text += "-pointed"
	}
	l.questions[q.text] = q
	return q
}

// find returns the question that the text is about, or nil.
func (l *askLedger) find(text []byte) *question {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.questions[string(questionText.Find(text))]
}

func (l *askLedger) stopsAt(q *question, moment string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return q != nil && q.stopAt == moment
}

func (l *askLedger) entered(q *question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q.posts++
	if q.posts-q.refused > q.mayTake {
		l.note("%s was sent again, though it may have been taken", q.text)
	}
}

// taken enters what the simulator answered to a request; an error is its own way to cut off
// the answer to one that it took.
func (l *askLedger) taken(q *question, status int, answer []byte, err error) {
	var fields struct {
		Channel string `json:"channel_id"`
	}
	_ = json.Unmarshal(answer, &fields)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil || fields.Channel != "":
		q.taken++
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		q.refused++
	}
	if fields.Channel != "" {
		q.channels = append(q.channels, fields.Channel)
	}
}

// entry returns the entry of a channel. The caller holds l.mu.
func (l *askLedger) entry(channel string) *channelEntry {
	if l.channels[channel] == nil {
		l.channels[channel] = &channelEntry{}
	}
	return l.channels[channel]
}

// came enters a webhook, and returns the question that it answers, if it says so.
func (l *askLedger) came(channel string, body []byte) *question {
	q := l.find(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	entry := l.entry(channel)
	entry.errors = entry.errors || strings.Contains(string(body), `"status":"error"`)
	return q
}

func (l *askLedger) webhookAnswered(channel string, status int, answer []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.statuses[status]++
	switch {
	case status == http.StatusOK:
		l.entry(channel).accepted++
	case status != http.StatusServiceUnavailable:
		l.note("a webhook was answered %d %s", status, answer)
	case strings.Contains(string(answer), "may be its answer"):
		l.undecided++
	}
}

func (l *askLedger) calledBack(channel string, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status == http.StatusOK {
		l.entry(channel).called++
	} else {
		l.note("the callback of %s was answered %d", channel, status)
	}
}

type requestRow struct {
	Id       string `db:"id"`
	Workflow string `db:"workflow"`
	Input    string `db:"input"`
	User     string `db:"userId"`
	State    string `db:"state"`
	Channel  string `db:"channelId"`
	Record   string `db:"record"`
	Error    string `db:"error"`
	Attempts int    `db:"attempts"`
	Next     string `db:"nextAttempt"`
	Expires  string `db:"expires"`
}

type answerRow struct {
	Id      string `db:"id"`
	Channel string `db:"channelId"`
	Title   string `db:"title"`
	User    string `db:"userId"`
}

// asked is what a server has stored of what was asked, by the text of the question.
type asked struct {
	requests map[string][]requestRow
	answers  map[string][]answerRow
}

func readAsked(t testing.TB, dir string) asked {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	var integrity string
	if err := db.NewQuery("PRAGMA integrity_check").Row(&integrity); err != nil || integrity != "ok" {
		t.Fatalf("integrity_check: %q, %v", integrity, err)
	}
	var requests []requestRow
	var answers []answerRow
	if err := db.Select().From("aiRequests").All(&requests); err != nil {
		t.Fatal(err)
	}
	if err := db.Select().From("aiContent").OrderBy("created").All(&answers); err != nil {
		t.Fatal(err)
	}
	all := asked{requests: map[string][]requestRow{}, answers: map[string][]answerRow{}}
	for _, row := range requests {
		text := questionText.FindString(row.Input)
		all.requests[text] = append(all.requests[text], row)
	}
	for _, row := range answers {
		text := questionText.FindString(row.Title)
		all.answers[text] = append(all.answers[text], row)
	}
	return all
}

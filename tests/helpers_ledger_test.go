package tests

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
)

// settle waits until no callback is pending.
func settle(t testing.TB, dir string, within time.Duration) {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	var pending int
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		err := db.NewQuery("SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'pending'").Row(&pending)
		if err == nil && pending == 0 {
			return
		}
		if time.Now().After(deadline) {
			var some []callbackRow
			_ = db.Select().From("modelriverCallbacks").Where(dbx.HashExp{"state": "pending"}).Limit(3).All(&some)
			t.Fatalf("%d callbacks are pending after %s: %v, such as %+v", pending, within, err, some)
		}
	}
}

type contentRow struct {
	Id      string `db:"id"`
	Channel string `db:"channelId"`
	Title   string `db:"title"`
	Data    string `db:"data"`
	Source  string `db:"source"`
}

type callbackRow struct {
	Id        string `db:"id"`
	Record    string `db:"record"`
	URL       string `db:"url"`
	State     string `db:"state"`
	LastError string `db:"lastError"`
	Payload   string `db:"payload"`
	Attempts  int    `db:"attempts"`
}

// check balances the ledger against the data of the server, once nothing is pending:
// every webhook answered 200 has exactly one record and at least one accepted callback
// or one failed row; nothing else exists. With once, no callback came twice.
func (m *modelRiver) check(dir string, once bool) {
	t := m.t
	t.Helper()
	contents, callbacks := readRows(t, dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	contentOf := map[string]contentRow{}
	for _, row := range contents {
		if _, twice := contentOf[row.Channel]; twice {
			m.note("%s: two records", row.Channel)
		}
		contentOf[row.Channel] = row
		if w := m.webhooks[row.Channel]; w == nil || w.sent == 0 {
			m.note("record %s of %q, for which no webhook was sent", row.Id, row.Channel)
		}
	}
	callbackOf := map[string]callbackRow{}
	for _, row := range callbacks {
		channel := filepath.Base(row.URL)
		if _, twice := callbackOf[channel]; twice {
			m.note("%s: two callback rows", channel)
		}
		callbackOf[channel] = row
		if w := m.webhooks[channel]; w == nil || w.sent == 0 {
			m.note("callback row %s of %q, for which no webhook was sent", row.Id, channel)
		}
	}
	for channel, w := range m.webhooks {
		content, hasContent := contentOf[channel]
		callback, hasCallback := callbackOf[channel]
		m.checkContent(w, content, hasContent, hasCallback)
		switch {
		case w.kind == kindNoCallback || w.kind == kindIgnored:
			if hasCallback {
				m.note("%s: %s, but there is a callback row", channel, w.kind)
			}
		case hasCallback:
			m.checkCallback(w, content, callback, once)
		case w.answered > 0 || hasContent:
			m.note("%s: stored, but there is no callback row", channel)
		}
	}
	m.report()
}

// readRows reads what a server has stored, from a database that must be whole.
func readRows(t testing.TB, dir string) (contents []contentRow, callbacks []callbackRow) {
	t.Helper()
	db := openDatabase(t, dir)
	defer db.Close()
	var integrity string
	if err := db.NewQuery("PRAGMA integrity_check").Row(&integrity); err != nil || integrity != "ok" {
		t.Fatalf("integrity_check: %q, %v", integrity, err)
	}
	if err := errors.Join(db.Select().From("aiContent").All(&contents), db.Select().From("modelriverCallbacks").All(&callbacks)); err != nil {
		t.Fatal(err)
	}
	return contents, callbacks
}

// checkContent compares a webhook with its record. The caller holds m.mu.
func (m *modelRiver) checkContent(w *sentWebhook, content contentRow, hasContent, hasCallback bool) {
	if w.kind == kindRefused || w.kind == kindIgnored {
		if hasContent {
			m.note("%s: %s, but there is a record", w.channel, w.kind)
		}
		return
	}
	if !hasContent && (w.answered > 0 || hasCallback || w.callbacks > 0) {
		m.note("%s: answered 200 %d times and called back %d times, but there is no record", w.channel, w.answered, w.callbacks)
	}
	if hasContent && (content.Data != w.data || content.Source != "modelriver" || !strings.HasPrefix(content.Title, "Webhook ")) {
		m.note("%s: stored %+v, sent %s", w.channel, content, w.data)
	}
}

// checkCallback compares a webhook with its callback row. The caller holds m.mu.
func (m *modelRiver) checkCallback(w *sentWebhook, content contentRow, callback callbackRow, once bool) {
	switch {
	case callback.State == "pending":
		m.note("%s: pending", w.channel)
	case callback.State == "failed" && callback.LastError == "":
		m.note("%s: failed without a reason", w.channel)
	case w.kind == kindRefused && (callback.State != "failed" || callback.Payload == ""):
		m.note("%s: refused, but the row is %+v", w.channel, callback)
	case w.kind == kindCallback && (callback.Id != content.Id || callback.Record != content.Id):
		m.note("%s: the callback row %+v is of another record than %s", w.channel, callback, content.Id)
	case callback.State == "delivered" && w.accepted == 0:
		m.note("%s: delivered, but no callback was accepted", w.channel)
	case w.body != "" && !strings.Contains(w.body, `"task_id":"pocketbase_`+content.Id+`"`):
		m.note("%s: called back for another record than %s: %s", w.channel, content.Id, w.body)
	case once && w.accepted > 1:
		m.note("%s: %d callbacks were accepted, want one", w.channel, w.accepted)
	}
}

// report fails the test with what was noted, and if nothing happened. The caller holds m.mu.
func (m *modelRiver) report() {
	m.t.Helper()
	m.reportViolations()
	if len(m.webhooks) == 0 || m.statuses[http.StatusOK] == 0 {
		m.t.Errorf("nothing was stored; answers: %v", m.statuses)
	}
}

// reportViolations fails the test with what was noted. The caller holds m.mu.
func (m *modelRiver) reportViolations() {
	m.t.Helper()
	for i, violation := range m.violations {
		if i == 20 {
			m.t.Errorf("and %d more", len(m.violations)-i)
			break
		}
		m.t.Error(violation)
	}
}

// summary is what a run did, in one line.
func (m *modelRiver) summary() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	callbacks, accepted, errors := 0, 0, 0
	for _, w := range m.webhooks {
		callbacks += w.callbacks
		accepted += w.accepted
		errors += w.errors
	}
	return fmt.Sprintf("%d webhooks, answers %v (0: none), %d callbacks of which %d accepted, %d error callbacks",
		len(m.webhooks), m.statuses, callbacks, accepted, errors)
}

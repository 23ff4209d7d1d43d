package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// openDatabase opens the data of a server for reading, which may be running.
func openDatabase(t testing.TB, dir string) *dbx.DB {
	t.Helper()
	db, err := core.DefaultDBConnect(filepath.Join(dir, "data.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

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
	db := openDatabase(t, dir)
	defer db.Close()
	var integrity string
	if err := db.NewQuery("PRAGMA integrity_check").Row(&integrity); err != nil || integrity != "ok" {
		t.Fatalf("integrity_check: %q, %v", integrity, err)
	}
	var contents []contentRow
	var callbacks []callbackRow
	if err := errors.Join(db.Select().From("aiContent").All(&contents), db.Select().From("modelriverCallbacks").All(&callbacks)); err != nil {
		t.Fatal(err)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	bad := func(format string, args ...any) { m.violations = append(m.violations, fmt.Sprintf(format, args...)) }

	contentOf := map[string]contentRow{}
	for _, row := range contents {
		if _, twice := contentOf[row.Channel]; twice {
			bad("%s: two records", row.Channel)
		}
		contentOf[row.Channel] = row
		if w := m.webhooks[row.Channel]; w == nil || w.sent == 0 {
			bad("record %s of %q, for which no webhook was sent", row.Id, row.Channel)
		}
	}
	callbackOf := map[string]callbackRow{}
	for _, row := range callbacks {
		channel := filepath.Base(row.URL)
		if _, twice := callbackOf[channel]; twice {
			bad("%s: two callback rows", channel)
		}
		callbackOf[channel] = row
		if w := m.webhooks[channel]; w == nil || w.sent == 0 {
			bad("callback row %s of %q, for which no webhook was sent", row.Id, channel)
		}
	}

	for channel, w := range m.webhooks {
		content, hasContent := contentOf[channel]
		callback, hasCallback := callbackOf[channel]
		if w.kind == kindRefused || w.kind == kindIgnored {
			if hasContent {
				bad("%s: %s, but there is a record", channel, w.kind)
			}
		} else {
			if !hasContent && (w.answered > 0 || hasCallback || w.callbacks > 0) {
				bad("%s: answered 200 %d times and called back %d times, but there is no record", channel, w.answered, w.callbacks)
			}
			if hasContent && (content.Data != w.data || content.Source != "modelriver" || !strings.HasPrefix(content.Title, "Webhook ")) {
				bad("%s: stored %+v, sent %s", channel, content, w.data)
			}
		}

		if w.kind == kindNoCallback || w.kind == kindIgnored {
			if hasCallback {
				bad("%s: %s, but there is a callback row", channel, w.kind)
			}
			continue
		}
		if !hasCallback {
			if w.answered > 0 || hasContent {
				bad("%s: stored, but there is no callback row", channel)
			}
			continue
		}
		switch {
		case callback.State == "pending":
			bad("%s: pending", channel)
		case callback.State == "failed" && callback.LastError == "":
			bad("%s: failed without a reason", channel)
		case w.kind == kindRefused && (callback.State != "failed" || callback.Payload == ""):
			bad("%s: refused, but the row is %+v", channel, callback)
		case w.kind == kindCallback && (callback.Id != content.Id || callback.Record != content.Id):
			bad("%s: the callback row %+v is of another record than %s", channel, callback, content.Id)
		case callback.State == "delivered" && w.accepted == 0:
			bad("%s: delivered, but no callback was accepted", channel)
		case w.body != "" && !strings.Contains(w.body, `"task_id":"pocketbase_`+content.Id+`"`):
			bad("%s: called back for another record than %s: %s", channel, content.Id, w.body)
		case once && w.accepted > 1:
			bad("%s: %d callbacks were accepted, want one", channel, w.accepted)
		}
	}
	for i, violation := range m.violations {
		if i == 20 {
			t.Errorf("and %d more", len(m.violations)-i)
			break
		}
		t.Error(violation)
	}
	if len(m.webhooks) == 0 || m.statuses[http.StatusOK] == 0 {
		t.Errorf("nothing was stored; answers: %v", m.statuses)
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

func jsonText(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return string(raw)
}

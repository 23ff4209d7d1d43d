package hooks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"pgregory.net/rapid"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A machine is the plugin between a sender and a receiver under a clock, with a process
// that dies at any of its transactions. The ledger is what the two outside know.
type machine struct {
	testing *testing.T
	app     core.App
	plugin  *plugin
	faulty  *faultyApp
	rec     *receiver

	mu      sync.Mutex
	clock   time.Time
	refuse  bool // the host's hook refuses
	status  int  // what the receiver answers; 0 resets
	sent    map[string]bool
	kept    map[string]bool // acknowledged
	arrived map[string]int
	took    map[string]int // success callbacks that were accepted
	strange []string
}

var errDied = errors.New("the process died")

func (m *machine) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock
}

// start begins a new process on the data of the last one.
func (m *machine) start() {
	m.faulty = &faultyApp{App: m.app}
	p, err := newPlugin(m.faulty, testConfig())
	if err != nil {
		m.testing.Fatal(err)
	}
	p.outbox.Now = m.now
	p.bind()
	m.plugin = p
	p.outbox.Start()
}

// die lets a coming transaction be the last thing that the process does, or not even
// that.
func (m *machine) die(after int, committed bool) {
	var mu sync.Mutex
	dead := false
	m.faulty.set(func() error {
		mu.Lock()
		defer mu.Unlock()
		after--
		if dead || after < 0 && !committed {
			dead = true
			return errDied
		}
		return nil
	}, func() error {
		mu.Lock()
		defer mu.Unlock()
		if after < 0 {
			dead = true
			return errDied
		}
		return nil
	})
}

// restart ends the process; what it still wants to write is lost.
func (m *machine) restart(killed bool) {
	if killed {
		m.die(0, false)
	}
	m.plugin.outbox.Stop()
	m.start()
}

func (m *machine) deliver(channel, kind string, loseAnswer bool) {
	callback := fmt.Sprintf(`,"callback_url":%q`, m.rec.callbackURL(channel))
	if kind == "no callback" {
		callback = ""
	}
	payload := []byte(fmt.Sprintf(`{"type":"task.ai_generated","channel_id":%q,"ai_response":{"data":{}},"customer_data":{"category":%q}%s}`, channel, kind, callback))
	event, err := modelriver.ParseEvent(http.Header{}, payload)
	if err != nil {
		m.testing.Fatal(err)
	}
	m.mu.Lock()
	m.sent[channel] = true
	m.mu.Unlock()
	if err := m.plugin.ingest(event, payload, nil); err == nil && !loseAnswer {
		m.mu.Lock()
		m.kept[channel] = true
		m.mu.Unlock()
	}
}

// rest waits until the process has nothing to do at this time of the clock.
func (m *machine) rest() {
	m.plugin.outbox.Wake()
	eventually(m.testing, "the outbox has nothing to do", func() bool {
		if m.plugin.outbox.Held() > 0 {
			return false
		}
		m.faulty.mu.Lock()
		dying := m.faulty.before != nil
		m.faulty.mu.Unlock()
		if dying {
			return true // what is due may stay so
		}
		var due int
		err := m.app.ConcurrentDB().NewQuery("SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'pending' AND (nextAttempt <= {:now} OR nextAttempt > {:ahead})").
			Bind(dbx.Params{"now": store.DateTime(m.now()), "ahead": store.DateTime(m.now().Add(m.plugin.config.CallbackWindow))}).Row(&due)
		return err == nil && due == 0
	})
}

// Any sequence of deliveries, duplicates, refusals, crashes, retries and jumps of the
// clock ends in a state that the ledger allows, and storms nobody on its way.
func TestLedgerBalances(t *testing.T) {
	t.Parallel()
	app, first := newTestApp(t, testConfig())
	m := &machine{testing: t, app: app}
	first.outbox.Stop()
	app.OnRecordCreate(store.Content).BindFunc(func(e *core.RecordEvent) error {
		m.mu.Lock()
		refuse := m.refuse && e.Record.GetString("category") == "refused"
		m.mu.Unlock()
		if refuse {
			return errors.New("not wanted")
		}
		return e.Next()
	})
	m.rec = newReceiver(t, nil)
	m.rec.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		channel := path.Base(r.URL.Path)
		m.mu.Lock()
		status := m.status
		m.arrived[channel]++
		if !m.sent[channel] {
			m.strange = append(m.strange, "callback of "+channel)
		}
		if status == 200 && !strings.Contains(string(body), `"error":"processing_failed"`) {
			m.took[channel]++
		}
		m.mu.Unlock()
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
	})

	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m.mu.Lock()
		m.clock, m.refuse, m.status = time.Now(), true, 200
		m.sent, m.kept, m.arrived, m.took = map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]int{}
		m.mu.Unlock()
		for _, table := range []string{store.Content, store.Callbacks} {
			if _, err := app.NonconcurrentDB().Delete(table, nil).Execute(); err != nil {
				t.Fatal(err)
			}
		}
		m.start()
		defer func() { m.plugin.outbox.Stop() }()

		kinds := map[string]string{}
		for step := range rapid.IntRange(1, 25).Draw(t, "steps") {
			before := map[string]int{}
			m.mu.Lock()
			for channel, n := range m.arrived {
				before[channel] = n
			}
			m.mu.Unlock()

			switch rapid.SampledFrom([]string{"deliver", "deliver", "deliver", "receiver", "hook", "wait", "wait", "jump", "die", "restart", "kill", "retry"}).Draw(t, "step") {
			case "deliver":
				channel := fmt.Sprintf("property-%d-%d", run, rapid.IntRange(0, 5).Draw(t, "channel"))
				if kinds[channel] == "" {
					kinds[channel] = rapid.SampledFrom([]string{"plain", "plain", "refused", "no callback"}).Draw(t, "kind")
				}
				lose := rapid.Bool().Draw(t, "lose the answer")
				var same sync.WaitGroup
				for range rapid.IntRange(1, 2).Draw(t, "at the same time") {
					same.Go(func() { m.deliver(channel, kinds[channel], lose) })
				}
				same.Wait()
			case "receiver":
				status := rapid.SampledFrom([]int{200, 0, 429, 503, 410}).Draw(t, "answers")
				m.mu.Lock()
				m.status = status
				m.mu.Unlock()
			case "hook":
				m.mu.Lock()
				m.refuse = !m.refuse
				m.mu.Unlock()
			case "wait":
				d := time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "wait"))
				m.mu.Lock()
				m.clock = m.clock.Add(d)
				m.mu.Unlock()
			case "jump":
				d := rapid.SampledFrom([]time.Duration{-time.Hour, time.Hour}).Draw(t, "jump")
				m.mu.Lock()
				m.clock = m.clock.Add(d)
				m.mu.Unlock()
			case "die":
				m.die(rapid.IntRange(0, 3).Draw(t, "transactions"), rapid.Bool().Draw(t, "committed"))
			case "restart":
				m.restart(false)
			case "kill":
				m.restart(true)
			case "retry": // by hand, in the dashboard
				var rows []*core.Record
				if err := app.RecordQuery(store.Callbacks).AndWhere(dbx.HashExp{"state": store.Failed}).All(&rows); err != nil {
					t.Fatal(err)
				}
				for _, row := range rows {
					row.Set("state", store.Pending)
					if err := app.Save(row); err != nil {
						t.Fatal(err)
					}
				}
			}
			m.rest()
			m.mu.Lock()
			for channel, n := range m.arrived {
				// An attempt and an error callback, and both again for a step that crashes
				// or delivers twice.
				if n-before[channel] > 4 {
					m.strange = append(m.strange, fmt.Sprintf("step %d: %d callbacks of %s", step, n-before[channel], channel))
				}
			}
			m.mu.Unlock()
		}

		// The faults end: everything comes to its end within a window, which is as far
		// ahead as a clock that was set back can leave an attempt.
		m.restart(true)
		m.mu.Lock()
		m.status = 200
		m.mu.Unlock()
		for range 6 {
			m.mu.Lock()
			m.clock = m.clock.Add(time.Minute)
			m.mu.Unlock()
			m.rest()
		}

		m.mu.Lock()
		defer m.mu.Unlock()
		bad := m.strange
		m.strange = nil
		contents, callbacks := map[string]*core.Record{}, map[string]*core.Record{}
		for _, row := range records(m.testing, app, store.Content) {
			contents[row.GetString("channelId")] = row
		}
		for _, row := range records(m.testing, app, store.Callbacks) {
			callbacks[path.Base(row.GetString("url"))] = row
		}
		if len(contents)+len(callbacks) != len(records(m.testing, app, store.Content))+len(records(m.testing, app, store.Callbacks)) {
			bad = append(bad, "two rows of one channel")
		}
		for channel := range contents {
			if !m.sent[channel] {
				bad = append(bad, channel+": a record, but it was not sent")
			}
		}
		for channel := range m.sent {
			content, callback := contents[channel], callbacks[channel]
			state := ""
			if callback != nil {
				state = callback.GetString("state")
			}
			switch {
			case callback == nil && (kinds[channel] != "no callback" && (content != nil || m.kept[channel])):
				bad = append(bad, channel+": no callback row")
			case callback != nil && kinds[channel] == "no callback":
				bad = append(bad, channel+": a callback row, but none is owed")
			case content == nil && kinds[channel] != "refused" && (m.kept[channel] || callback != nil):
				bad = append(bad, channel+": acknowledged, but there is no record")
			case content == nil && callback != nil && (state != store.Failed || callback.GetString("payload") == ""):
				bad = append(bad, channel+": refused, but the row is "+state)
			case state == store.Pending:
				bad = append(bad, channel+": pending")
			case state == store.Delivered && m.took[channel] == 0:
				bad = append(bad, channel+": delivered, but nothing was accepted")
			case state == store.Failed && callback.GetString("lastError") == "":
				bad = append(bad, channel+": failed without a reason")
			}
		}
		if len(bad) > 0 {
			t.Fatal(strings.Join(bad, "\n"))
		}
	})
}

package hooks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// A node that does not lead refuses at once what it can't write, and tries to write nothing.
func TestNodeThatDoesNotLead(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerChannels)
	var c cluster
	a := c.newNode(t, "a", true, askConfig(rec))
	openRequests(t, a)
	_, token := newUser(t, a, "asker@example.com")
	a.mustPost(t, generated("kept", `{}`, ""))
	a.plugin.outbox.Stop() // it is gone
	insertTestCallback(t, a, a.plugin, "due000000000000", rec.callbackURL("due"))
	insertTestCallback(t, a, a.plugin, "old000000000000", "")
	setCallback(t, a, "old000000000000", dbx.Params{"state": store.Delivered, "deliveredAt": "2001-01-01 00:00:00.000Z", "created": "2001-01-01 00:00:00.000Z"})
	channels, err := a.FindCollectionByNameOrId(store.Channels)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(channels); err != nil {
		t.Fatal(err)
	}

	b := c.newNode(t, "b", false, askConfig(rec))
	asks := `{"workflow":"story","input":{}}`
	for _, row := range []struct{ name, path, body string }{
		{"a signed webhook", b.plugin.config.Path, generated("c", `{}`, "")},
		{"one that nobody signed", b.plugin.config.Path, "junk"},
		{"a request", requestsPath, asks},
		{"a batch", "/api/batch", `{"requests":[{"method":"POST","url":"` + requestsPath + `","body":` + asks + `}]}`},
	} {
		request, err := http.NewRequest(http.MethodPost, b.url+row.path, strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", token)
		if row.name == "a signed webhook" {
			request.Header = signed(t, "body", row.body)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "5" {
			t.Errorf("%s: got %d, Retry-After %q", row.name, answer.StatusCode, answer.Header.Get("Retry-After"))
		}
	}
	if err := store.InsertPayloads(b, []*store.Payload{{Id: only(t, b, store.Content).Id, Came: time.Now().AddDate(-1, 0, 0), Payload: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	deleteOld(b)
	var payloads int
	if err := b.AuxDB().NewQuery("SELECT COUNT(*) FROM modelriverPayloads").Row(&payloads); err != nil || payloads != 0 {
		t.Errorf("payloads in its own file: got %d (%v), want none", payloads, err)
	}
	if n := len(records(t, b, store.Callbacks)); n != 2 || len(rec.all()) != 0 || b.refused.Load() != 0 {
		t.Errorf("got %d callbacks, %d sent, %d writes tried, want 2, 0, 0", n, len(rec.all()), b.refused.Load())
	}
	if counts := b.plugin.rejected.sinceStart(); len(counts) != 0 {
		t.Errorf("rejected: got %v, want nothing counted", counts)
	}

	b.takeOver(a)
	rec.await(t, 1)
	if _, err := b.FindCollectionByNameOrId(store.Channels); err != nil {
		t.Errorf("a collection that was deleted: %v", err)
	}
	b.mustPost(t, generated("c", `{}`, ""))
	id := b.mustAsk(t, token)
	awaitRequest(t, b, id, store.Sent)
	deleteOld(b)
	if row, err := b.FindRecordById(store.Callbacks, "old000000000000"); err == nil {
		t.Errorf("a delivered callback of long ago is kept: %v", row)
	}
}

// What a node sends when it leads no more is as after a crash: the next one sends it at once, or
// says that nobody knows. It sends nothing of what still waits, until it leads again.
func TestNodeStopsLeadingAndLeadsAgain(t *testing.T) {
	t.Parallel()
	const waiting = 4
	hang := make(chan struct{})
	rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Node") == "a" {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
		switch callback := strings.HasPrefix(r.URL.Path, "/v1/callback/"); {
		case !callback:
			answerChannels(w, r)
		case r.Header.Get("X-Node") == "a" && !strings.HasSuffix(r.URL.Path, "/again"):
			w.WriteHeader(http.StatusBadRequest) // which ModelRiver would be told of
		}
	})
	var c cluster
	a := c.newNode(t, "a", true, askConfig(rec))
	openRequests(t, a)
	_, token := newUser(t, a, "asker@example.com")
	b := c.newNode(t, "b", false, askConfig(rec))
	eventually(t, "callbacks are sent from memory", a.plugin.outbox.Running)
	for i := range outbox.MaxSending + waiting {
		a.mustPost(t, generated(fmt.Sprint("c", i), `{}`, rec.callbackURL(fmt.Sprint("c", i))))
	}
	rec.await(t, outbox.MaxSending)
	asked := a.mustAsk(t, token)
	rec.await(t, outbox.MaxSending+1)

	b.takeOver(a)
	awaitRequest(t, b, asked, store.Failed)
	eventually(t, "the other node sends all", func() bool { return countDelivered(t, b) == outbox.MaxSending+waiting })
	if sent := from("b", rec.all()); len(sent) != outbox.MaxSending+waiting {
		t.Errorf("the other node sent %d, want %d callbacks and no request", len(sent), outbox.MaxSending+waiting)
	}
	close(hang)
	eventually(t, "nothing is in memory", func() bool { return a.plugin.outbox.Held() == 0 })
	if sent := from("a", rec.all()); len(sent) != 1+outbox.MaxSending {
		t.Errorf("the node that leads no more sent %d, want only the %d that it was sending", len(sent), 1+outbox.MaxSending)
	}
	eventually(t, "the outcome of the request is given up", func() bool {
		return strings.Contains(logRows(t, a), "as this node leads no more")
	})
	if status, _ := a.post(t, generated("late", `{}`, ""), nil); status != http.StatusServiceUnavailable {
		t.Errorf("webhook: got %d, want 503", status)
	}
	refused := a.refused.Load()

	a.takeOver(b)
	a.mustPost(t, generated("again", `{}`, rec.callbackURL("again")))
	eventually(t, "it sends again", func() bool { return countDelivered(t, a) == outbox.MaxSending+waiting+1 })
	if sent := from("a", rec.all()); len(sent) != 2+outbox.MaxSending || a.refused.Load() != refused {
		t.Errorf("got %d sent, %d writes refused, want one more, and none", len(sent), a.refused.Load()-refused)
	}
	if got := awaitRequest(t, a, asked, store.Failed); !strings.HasPrefix(got.GetString("error"), "It is not known") || got.GetInt("attempts") != 1 {
		t.Errorf("request: got %v", got)
	}
	log := logRows(t, a)
	for _, line := range []string{"Failed to find or claim", "A hook refused", "Failed to store a webhook", "it is tried again"} {
		if strings.Contains(log, line) {
			t.Errorf("the log has %q: %s", line, log)
		}
	}
}

func countDelivered(t testing.TB, app core.App) (n int) {
	t.Helper()
	if err := app.DB().NewQuery("SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'delivered'").Row(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What a node knew of requests, when it led last, tells nothing of those that another one sent.
func TestNodeKnowsNothingOfRequestsOfAnother(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, answerChannels)
	var c cluster
	a := c.newNode(t, "a", true, askConfig(rec))
	openRequests(t, a)
	asker, token := newUser(t, a, "asker@example.com")
	b := c.newNode(t, "b", false, askConfig(rec))
	b.takeOver(a)
	eventually(t, "there is no request", func() bool { return !b.plugin.outbox.Asking() })

	a.takeOver(b)
	id := a.mustAsk(t, token)
	awaitRequest(t, a, id, store.Sent)
	b.takeOver(a)
	b.mustPost(t, completed("c-"+id, "Only the asker's", ""))
	if got := contentOf(t, b, "c-"+id).GetString("userId"); got != asker.Id {
		t.Errorf("the answer is of user %q, want %q", got, asker.Id)
	}
	awaitRequest(t, b, id, store.Answered)

}

// Until it is written down that nobody knows what became of a request that another node was
// sending, a webhook may be its answer, also for a node that has led before.
func TestAnswerToWhatAnotherNodeWasSending(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	rec := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	var c cluster
	a := c.newNode(t, "a", true, askConfig(rec))
	openRequests(t, a)
	_, token := newUser(t, a, "asker@example.com")
	b := c.newNode(t, "b", false, askConfig(rec))
	b.takeOver(a)
	eventually(t, "there is no request", func() bool { return !b.plugin.outbox.Asking() })
	a.takeOver(b)
	id := a.mustAsk(t, token)
	rec.await(t, 1)

	locked, unlock := make(chan struct{}), make(chan struct{})
	go a.RunInTransaction(func(tx core.App) error {
		_, err := tx.DB().NewQuery("UPDATE aiRequests SET error = error").Execute()
		close(locked)
		<-unlock
		return errors.Join(err, errors.New("undone"))
	})
	<-locked
	b.takeOver(a)
	status, answer := b.post(t, completed("unknown", "The asker's", ""), nil)
	close(unlock)
	if status != http.StatusServiceUnavailable || !strings.Contains(answer, errUndecided.Error()) {
		t.Errorf("before that is written: got %d %s, want 503", status, answer)
	}
	awaitRequest(t, b, id, store.Failed)
	b.mustPost(t, completed("unknown", "The asker's", ""))
	if got := contentOf(t, b, "unknown").GetString("userId"); got != store.Unmatched {
		t.Errorf("the answer is of user %q, want %q", got, store.Unmatched)
	}
}

// Counts of rejected webhooks wait until their node leads again.
func TestRejectionsWaitForTheNodeToLead(t *testing.T) {
	t.Parallel()
	var c cluster
	a := c.newNode(t, "a", true, testConfig())
	a.plugin.rejected.every = time.Hour
	reject := func() {
		t.Helper()
		if status, _ := a.post(t, "junk", http.Header{}); status != http.StatusUnauthorized {
			t.Fatalf("got %d, want 401", status)
		}
	}
	counted := func() (n int) {
		_ = a.DB().NewQuery("SELECT COALESCE(SUM(count), 0) FROM modelriverRejections").Row(&n)
		return n
	}
	reject()
	eventually(t, "the first one is written", func() bool { return counted() == 1 })
	reject()
	a.leads.Store(false)
	a.plugin.rejected.tell(a)
	<-a.plugin.rejected.write(a)
	if a.refused.Load() != 0 {
		t.Errorf("%d writes tried, want none", a.refused.Load())
	}
	a.leads.Store(true)
	<-a.plugin.rejected.write(a)
	if got := counted(); got != 2 {
		t.Errorf("written: got %d, want 2", got)
	}
}

// A node may be told that it leads before it serves.
func TestNodeLeadsBeforeItServes(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	n := &node{}
	n.leads.Store(true)
	config := testConfig()
	config.Node = n
	app, p := newTestApp(t, config)
	insertTestCallback(t, app, p, "due000000000000", rec.callbackURL("due"))
	n.lead()
	if p.outbox.Leads() {
		t.Error("it began before it served")
	}
	server := serve(t, app, p)
	awaitState(t, server, store.Delivered)
	p.end()
	p.outbox.Stop()
	n.lead()
	if p.outbox.Leads() {
		t.Error("it began after it had ended")
	}
}

// Leading ends when it is found to have ended, and begins when the plugin is told: not before
// that, when the node may know less than the one before.
func TestNodeWorksWhenItIsTold(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	var c cluster
	a := c.newNode(t, "a", true, testConfig())
	eventually(t, "it sends", a.plugin.outbox.Running)
	a.leads.Store(false)
	eventually(t, "it finds that it leads no more", func() bool { return !a.plugin.outbox.Running() })
	a.leads.Store(true)
	insertTestCallback(t, a, a.plugin, "due000000000000", rec.callbackURL("due"))
	if status, _ := a.post(t, generated("early", `{}`, ""), nil); status != http.StatusServiceUnavailable {
		t.Errorf("before it is told: got %d, want 503", status)
	}
	if got := only(t, a, store.Callbacks).GetInt("attempts"); got != 0 {
		t.Errorf("attempts: got %d, want 0", got)
	}
	a.lead()
	awaitState(t, a, store.Delivered)
}

// A webhook that is being stored when the node stops leading comes again: nobody is to blame.
func TestWebhookWhileTheNodeStopsLeading(t *testing.T) {
	t.Parallel()
	var c cluster
	a := c.newNode(t, "a", true, testConfig())
	a.OnRecordCreateExecute(store.Content).BindFunc(func(e *core.RecordEvent) error {
		a.leads.Store(false)
		return e.Next()
	})
	status, answer := a.post(t, generated("c", `{}`, ""), nil)
	if status != http.StatusServiceUnavailable || !strings.Contains(answer, notLeading) {
		t.Errorf("got %d %s, want 503", status, answer)
	}
	if counts := a.plugin.rejected.sinceStart(); len(counts) != 0 {
		t.Errorf("rejected: got %v, want nothing counted", counts)
	}
}

// A node that leads again takes no host for silent that was when it led last.
func TestNodeTriesHostsAnew(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	var c cluster
	a := c.newNode(t, "a", true, testConfig())
	for i := range outbox.MaxSending {
		a.mustPost(t, generated(fmt.Sprint("c", i), `{}`, rec.callbackURL("silent")))
	}
	rec.await(t, outbox.MaxSending)
	eventually(t, "no attempt is under way", func() bool { return a.plugin.outbox.Held() == 0 })
	a.plugin.outbox.Stop()
	rec.setAnswer(nil)
	if _, err := a.DB().NewQuery("DELETE FROM modelriverCallbacks").Execute(); err != nil {
		t.Fatal(err)
	}
	insertTestCallback(t, a, a.plugin, "expired00000000", rec.callbackURL("expired"))
	setCallback(t, a, "expired00000000", dbx.Params{"expires": store.DateTime(time.Now().Add(-time.Hour))})
	a.lead()
	eventually(t, "the callback has ended", func() bool { return only(t, a, store.Callbacks).GetString("state") != store.Pending })
	if got := only(t, a, store.Callbacks); got.GetString("state") != store.Delivered {
		t.Errorf("got %s, %s", got.GetString("state"), got.GetString("lastError"))
	}
}

// A node that begins to lead reads the chart again: what it had read may have lacked what came late.
func TestNodeReadsTheChartAgain(t *testing.T) {
	t.Parallel()
	var c cluster
	a := c.newNode(t, "a", true, testConfig())
	b := c.newNode(t, "b", false, testConfig())
	token := superuserToken(t, a)
	received := func() (n int) {
		status, chart := b.get(t, "/api/modelriver/chart", token)
		if status != http.StatusOK {
			t.Fatalf("chart: got %d %v", status, chart)
		}
		for _, bucket := range chart["buckets"].([]any) {
			n += int(bucket.(map[string]any)["received"].(float64))
		}
		return n
	}
	a.mustPost(t, generated("late", `{}`, ""))
	hoursAgo := dbx.Params{"created": store.DateTime(time.Now().Add(-3 * time.Hour))}
	if n := received(); n != 1 {
		t.Fatalf("received: got %d, want 1", n)
	}
	if _, err := a.NonconcurrentDB().Update(store.Content, hoursAgo, dbx.HashExp{"channelId": "late"}).Execute(); err != nil {
		t.Fatal(err)
	}
	b.takeOver(a)
	if n := received(); n != 1 {
		t.Errorf("received: got %d, want 1", n)
	}
}

// A node that begins to lead knows what another one did to the collections.
func TestNodeLooksAtTheSchemaAgain(t *testing.T) {
	t.Parallel()
	var c cluster
	a := c.newNode(t, "a", true, testConfig())
	b := c.newNode(t, "b", false, testConfig())
	content, err := a.FindCollectionByNameOrId(store.Content)
	if err != nil {
		t.Fatal(err)
	}
	content.Fields.RemoveByName("category")
	if err := a.Save(content); err != nil {
		t.Fatal(err)
	}
	b.takeOver(a)
	if status, answer := b.post(t, generated("c", `{}`, ""), nil); status != http.StatusServiceUnavailable || !strings.Contains(answer, "lacks fields: add category") {
		t.Errorf("got %d %s, want 503", status, answer)
	}
}

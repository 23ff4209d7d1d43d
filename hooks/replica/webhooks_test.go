package replica

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// What the plugin writes, in groups, when webhooks come over 16 connections: content, what a
// hook refuses, duplicates, and the callbacks that are sent meanwhile.
func TestWebhooksAreApplied(t *testing.T) {
	t.Parallel()
	const connections, each, secret = 16, 12, "secret"
	callbacks := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer callbacks.Close()
	p := newStreamPair(t)
	app := p.newApp(t)
	hooks.MustRegister(app, nil, hooks.Config{WebhookSecrets: []string{secret}, APIKey: "key", CallbackHosts: []string{"127.0.0.1"}})
	app.OnRecordCreate("aiContent").BindFunc(func(e *core.RecordEvent) error {
		if strings.HasPrefix(e.Record.GetString("title"), "refused") {
			return fmt.Errorf("not this one")
		}
		return e.Next()
	})
	server := apptest.Serve(t, app)

	post := func(n int) error {
		title := []string{"taken", "taken\\u0000é", "refused"}[n%3]
		payload := fmt.Appendf(nil, `{"type":"task.ai_generated","event":"new","channel_id":"channel-%d","ai_response":{"data":{"title":"%s %d","body":%q}},"callback_url":%q,"callback_required":true}`,
			n, title, n, strings.Repeat("x", n*20), callbacks.URL)
		request, err := http.NewRequest("POST", server.URL+"/webhooks/modelriver", strings.NewReader(string(payload)))
		if err != nil {
			return err
		}
		if err := modelriver.Sign(request.Header, "body", secret, time.Now(), payload); err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("webhook %d: %s", n, response.Status)
		}
		return nil
	}
	var senders sync.WaitGroup
	for c := range connections {
		senders.Go(func() {
			for i := range each {
				n := c*each + i
				for _, err := range []error{post(n), post(n - n%2)} { // every second one comes three times
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	senders.Wait()
	apptest.Eventually(t, "no callback is pending", func() bool {
		n, err := app.CountRecords("modelriverCallbacks")
		left, err2 := app.CountRecords("modelriverCallbacks", dbx.NewExp("state = 'pending'"))
		return err == nil && err2 == nil && n == connections*each && left == 0
	})
	if n, err := app.CountRecords("aiContent"); err != nil || n != connections*each*2/3 {
		t.Errorf("%d records, %v", n, err)
	}
	p.same(t)
	t.Logf("%d webhooks, position %d", 2*connections*each, p.position(t))
}

// A webhook that is kept as it came, on the node that led then, goes with its record, whichever node that is deleted by.
func TestPayloadGoesWithItsRecordOnEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.register = func(app core.App, node *Node) {
		hooks.MustRegister(app, nil, hooks.Config{WebhookSecrets: []string{"secret"}, APIKey: "key", Node: node})
	}
	apps, clients := c.apps(t)
	led := c.leader(t)
	payload := []byte(`{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":{"title":"one"}}}`)
	apptest.Eventually(t, "it is taken", func() bool {
		request := clients[led].request(t, "POST", "/webhooks/modelriver", string(payload))
		if err := modelriver.Sign(request.Header, "body", "secret", time.Now(), payload); err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	kept := func() (n int) {
		if err := apps[led].AuxDB().NewQuery("SELECT count(*) FROM modelriverPayloads").Row(&n); err != nil {
			return 0 // there is no table yet
		}
		return n
	}
	apptest.Eventually(t, "it is kept", func() bool { return kept() == 1 })
	other, _ := others(led)
	c.makeLead(t, other)
	clients[other].sql(t, "DELETE FROM aiContent")
	c.same(t)
	for _, app := range apps {
		for _, job := range app.Cron().Jobs() {
			job.Run()
		}
	}
	if n := kept(); n != 0 {
		t.Errorf("%d payloads of a record that was deleted", n)
	}
}

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

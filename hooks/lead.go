package hooks

import (
	"net/http"
	"slices"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// bindNode has the plugin hear, where several nodes share the database, of each time this one begins to lead, and its
// viewers of what another one wrote, and keeps batches from beginning a transaction while it does not: each writes.
func (p *plugin) bindNode() {
	if p.config.Node == nil {
		return
	}
	p.config.Node.OnLead(p.lead)
	p.config.Node.LocalJob(outbox.RetentionJob)
	p.config.Node.Secret("webhook secret", strings.Join(slices.Sorted(slices.Values(p.config.WebhookSecrets)), ","))
	p.config.Node.Secret("ModelRiver key", p.config.APIKey)
	p.fanOut.Position = p.config.Node.Position
	p.fanOut.BindApplied(p.config.Node.Applied())
	p.app.OnBatchRequest().Bind(&hook.Handler[*core.BatchRequestEvent]{
		Id: "modelriverLead", Priority: -10000,
		Func: func(e *core.BatchRequestEvent) error {
			if !p.outbox.Leads() {
				return refuseToWrite(e.RequestEvent)
			}
			return e.Next()
		},
	})
}

// refuseToWrite answers who writes to a node that does not lead.
func refuseToWrite(e *core.RequestEvent) error {
	setRetryAfter(e)
	return apis.NewApiError(http.StatusServiceUnavailable, notLeading+": try again later.", nil)
}

// begin begins to send, on one of several nodes once it is told that it leads.
func (p *plugin) begin() {
	if p.config.Node == nil {
		p.outbox.Start()
		return
	}
	p.leading.Lock()
	defer p.leading.Unlock()
	p.serving = true
	if p.told {
		p.takeUp()
	}
}

// end has the plugin begin no more.
func (p *plugin) end() {
	p.leading.Lock()
	defer p.leading.Unlock()
	p.serving = false
}

// lead is called each time this node begins to lead.
func (p *plugin) lead() {
	p.leading.Lock()
	defer p.leading.Unlock()
	p.told = true
	if p.serving {
		p.takeUp()
	}
}

// takeUp begins what only the node that leads does, with what the one before left: no hook of this
// app has heard of what that wrote.
func (p *plugin) takeUp() {
	if err := store.RestoreSchema(p.app); err != nil {
		p.app.Logger().Error("Failed to create a collection of ModelRiver's again", "error", err)
	}
	p.schema.Check(p.app)
	p.charts.Forget()
	p.outbox.Stop() // what is left of the last time
	p.outbox.Start()
}

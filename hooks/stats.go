package hooks

import (
	"net/http"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/cli"
	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// stats are the figures of the dashboard, and what it shows of the settings.
type stats struct {
	store.All

	Path     string       `json:"path"`    // where webhooks are received
	Secrets  int          `json:"secrets"` // how many webhook secrets are configured
	KeySet   bool         `json:"keySet"`  // an API key is configured
	Problem  string       `json:"problem"` // why webhooks can't be stored; empty if they can
	Versions versions     `json:"versions"`
	Asking   store.Asking `json:"asking"`

	Replica *replica    `json:"replica"` // nil if there is none
	Nodes   []nodeStats `json:"nodes"`   // null if there is one
}

// A nodeStats is how a node stands: the same from one question to the next while all is well.
type nodeStats struct {
	Name    string   `json:"name"`
	Address string   `json:"address"`
	Here    bool     `json:"here"` // it answers this
	Reached bool     `json:"reached"`
	Leads   bool     `json:"leads"`
	Behind  string   `json:"behind"` // in words, and empty while it has all but what is on its way
	Differs []string `json:"differs"`
}

func newNodes(states []NodeState) (all []nodeStats) {
	for _, s := range states {
		all = append(all, nodeStats{s.Name, s.Address, s.Here, s.Reached, s.Leads, s.Lag(), append([]string{}, s.Differs...)})
	}
	return all
}

// A replica is how it stands: the same from one question to the next while all is well, so that the
// dashboard's page stays as it is.
type replica struct {
	URL      string             `json:"url"`
	Ack      string             `json:"ack"`
	Epoch    int                `json:"epoch"`
	UpToDate bool               `json:"upToDate"`
	Shipped  time.Time          `json:"shipped,omitzero"` // if it is not: it has all that was committed then
	Error    string             `json:"error"`
	Verified *recovery.Verified `json:"verified"`
}

func newReplica(s *recovery.State) *replica {
	if s == nil {
		return nil
	}
	r := &replica{URL: s.URL, Ack: s.Ack, Epoch: s.Epoch, UpToDate: s.UpToDate(time.Now()), Shipped: s.Shipped, Error: s.Error, Verified: s.Verified}
	if r.UpToDate {
		r.Shipped = time.Time{}
	}
	return r
}

// handleStats answers with the figures since the query parameter "since".
func (p *plugin) handleStats(e *core.RequestEvent) error {
	since, err := p.readSince(e)
	if err != nil {
		return err
	}
	var all store.All
	err = p.rejected.withUnwritten(func(unwritten []store.Rejection) (err error) {
		all, err = store.ReadAll(e.App, p.outbox.Now(), since, p.config.CallbackWindow, unwritten)
		return err
	})
	if err != nil {
		return e.InternalServerError("The figures could not be read.", err)
	}
	if all.Rejected == nil { // their table was deleted
		all.Rejected = &store.Rejected{}
	}
	result := stats{
		All: all, Path: p.config.Path, Secrets: len(p.config.WebhookSecrets), KeySet: p.config.APIKey != "",
		Versions: p.versions, Asking: store.ReadAsking(e.App), Replica: newReplica(p.recovery.State()), Nodes: newNodes(p.config.nodes()),
	}
	if err := p.schema.Problem(); err != nil {
		result.Problem = err.Error()
	}
	return e.JSON(http.StatusOK, result)
}

// readSince returns the query parameter "since", a date with time zone, by default the
// last midnight UTC.
func (p *plugin) readSince(e *core.RequestEvent) (time.Time, error) {
	given := e.Request.URL.Query().Get("since")
	if given == "" {
		return p.outbox.Now().UTC().Truncate(day), nil
	}
	since, err := time.Parse(time.RFC3339, given)
	if err != nil {
		return since, e.BadRequestError("The parameter since must be a date as in 2026-01-31T00:00:00Z.", err)
	}
	return since, nil
}

// handleDoctor answers with what the doctor's checks see that need no network.
func (p *plugin) handleDoctor(e *core.RequestEvent) error {
	return e.JSON(http.StatusOK, map[string]any{"findings": cli.Examine(e.App, p.commandOptions())})
}

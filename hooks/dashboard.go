package hooks

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/ui"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
	public "github.com/pocketriver/pocketriver/pb_public"
)

//go:embed dashboard
var dashboardFiles embed.FS

// bindDashboard adds the routes of the figures and lists, and, if PocketBase's dashboard is built
// in, the plugin's page there.
func (p *plugin) bindDashboard(e *core.ServeEvent) error {
	e.Router.GET("/api/modelriver/stats", p.handleStats).
		Bind(apis.RequireSuperuserAuth(), apis.SkipSuccessActivityLog())
	e.Router.GET("/api/modelriver/deliveries", p.handleDeliveries).
		Bind(apis.RequireSuperuserAuth(), apis.SkipSuccessActivityLog())
	e.Router.GET("/api/modelriver/deliveries/{id}", p.handleDelivery).
		Bind(apis.RequireSuperuserAuth(), apis.SkipSuccessActivityLog())
	if ui.DistDirFS == nil { // built without the dashboard
		return nil
	}

	files, err := fs.Sub(dashboardFiles, "dashboard")
	if err != nil {
		return err
	}
	e.UIExtensions = append(e.UIExtensions, core.UIExtension{Name: "modelriver", FS: files})
	shared, err := public.LiveQuery.ReadDir(".")
	if err != nil {
		return err
	}
	for _, file := range shared {
		e.Router.GET("/_/extensions/modelriver/"+file.Name(), func(e *core.RequestEvent) error {
			content, err := public.LiveQuery.ReadFile(file.Name())
			if err != nil {
				return err
			}
			return e.Blob(http.StatusOK, "text/javascript", content)
		}).Bind(apis.SkipSuccessActivityLog())
	}

	// PocketBase lets browsers keep these files for 14 days, past any upgrade.
	e.Router.Bind(&hook.Handler[*core.RequestEvent]{
		Id: "modelriverNoCache",
		Func: func(e *core.RequestEvent) error {
			if path := e.Request.URL.Path; path == "/_/extensions.js" || strings.HasPrefix(path, "/_/extensions/modelriver/") {
				e.Response.Header().Set("Cache-Control", "no-cache")
			}
			return e.Next()
		},
	})

	return nil
}

// stats are the figures of the dashboard.
type stats struct {
	store.Figures
	Requests store.RequestFigures `json:"requests"`
	Rejected store.Rejected       `json:"rejected"` // webhooks, since the start of the server, if any was in the last day

	Path      string `json:"path"`      // where webhooks are received
	SecretSet bool   `json:"secretSet"` // at least one webhook secret is configured
	KeySet    bool   `json:"keySet"`    // an API key is configured
	Problem   string `json:"problem"`   // why webhooks can't be stored; empty if they can
}

// handleStats answers with the figures since the query parameter "since", a date with
// time zone, by default the last midnight UTC.
func (p *plugin) handleStats(e *core.RequestEvent) error {
	since := p.outbox.Now().UTC().Truncate(24 * time.Hour)
	if given := e.Request.URL.Query().Get("since"); given != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, given); err != nil {
			return e.BadRequestError("The parameter since must be a date as in 2026-01-31T00:00:00Z.", err)
		}
	}
	figures, err := store.ReadFigures(e.App, since, p.config.CallbackWindow)
	if err != nil {
		return e.InternalServerError("The figures could not be read.", err)
	}
	requests, err := store.ReadRequestFigures(e.App)
	if err != nil {
		return e.InternalServerError("The figures of requests could not be read.", err)
	}
	result := stats{
		Figures: figures, Requests: requests, Rejected: p.rejected.recent(),
		Path: p.config.Path, SecretSet: p.verifier != nil, KeySet: p.config.APIKey != "",
	}
	if err := p.schema.Problem(); err != nil {
		result.Problem = err.Error()
	}
	return e.JSON(http.StatusOK, result)
}

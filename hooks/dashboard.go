package hooks

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/ui"

	public "github.com/pocketriver/pocketriver/pb_public"
)

//go:embed dashboard
var dashboardFiles embed.FS

// bindDashboard adds the routes of the figures and lists, and, if PocketBase's dashboard is built
// in, the plugin's page there.
func (p *plugin) bindDashboard(e *core.ServeEvent) error {
	api := e.Router.Group("/api/modelriver")
	api.Bind(apis.RequireSuperuserAuth(), apis.SkipSuccessActivityLog())
	api.GET("/stats", p.handleStats)
	api.GET("/deliveries", p.handleDeliveries)
	api.GET("/deliveries/{id}", p.handleDelivery)
	api.GET("/rejections", p.handleRejections)
	api.GET("/chart", p.handleChart)
	api.GET("/doctor", p.handleDoctor)
	e.Router.GET("/api/modelriver/metrics", p.handleMetrics).
		Bind(&hook.Handler[*core.RequestEvent]{Func: p.requireMetricsAuth}, apis.SkipSuccessActivityLog())
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

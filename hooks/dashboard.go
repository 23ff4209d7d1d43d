package hooks

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/pocketbase/pocketbase/ui"

	public "github.com/pocketriver/pocketriver/pb_public"
)

//go:embed dashboard
var dashboardFiles embed.FS

// medianOf is how many of the latest delivered callbacks the median time is taken of.
const medianOf = 1000

// bindDashboard adds the route of the figures, and, if PocketBase's dashboard is built
// in, the plugin's page there.
func (p *plugin) bindDashboard(e *core.ServeEvent) error {
	e.Router.GET("/api/modelriver/stats", p.handleStats).
		Bind(apis.RequireSuperuserAuth(), apis.SkipSuccessActivityLog())
	if ui.DistDirFS == nil { // built without the dashboard
		return nil
	}

	files, err := fs.Sub(dashboardFiles, "dashboard")
	if err != nil {
		return err
	}
	e.UIExtensions = append(e.UIExtensions, core.UIExtension{Name: "modelriver", FS: files})
	e.Router.GET("/_/extensions/modelriver/live-query.js", func(e *core.RequestEvent) error {
		return e.Blob(http.StatusOK, "text/javascript", public.LiveQuery)
	}).Bind(apis.SkipSuccessActivityLog())

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
	Since     types.DateTime `json:"since"`     // the begin of today
	Received  int            `json:"received"`  // events since then: stored or refused
	Stored    int            `json:"stored"`    // records since then
	Refused   int            `json:"refused"`   // events since then that are refused still
	Delivered int            `json:"delivered"` // callbacks since then
	Failed    int            `json:"failed"`    // callbacks of any time that are not retried yet
	Waiting   int            `json:"waiting"`   // callbacks to be sent

	// Median is the time from a webhook to ModelRiver's answer to its callback, in
	// milliseconds, of the latest callbacks that were delivered within their window: of
	// later ones it is how long someone took to retry. It is nil if there are none.
	Median *int64 `json:"median"`

	Rejected rejected `json:"rejected"` // webhooks, since the start of the server, if any was in the last day

	Path      string `json:"path"`      // where webhooks are received
	SecretSet bool   `json:"secretSet"` // at least one webhook secret is configured
	KeySet    bool   `json:"keySet"`    // an API key is configured
	Problem   string `json:"problem"`   // why webhooks can't be stored; empty if they can
}

// handleStats answers with the figures since the query parameter "since", a date with
// time zone, by default the last midnight UTC.
func (p *plugin) handleStats(e *core.RequestEvent) error {
	since := p.outbox.now().UTC().Truncate(24 * time.Hour)
	if given := e.Request.URL.Query().Get("since"); given != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, given); err != nil {
			return e.BadRequestError("The parameter since must be a date as in 2026-01-31T00:00:00Z.", err)
		}
	}
	result, err := readStats(e.App, since, p.config.CallbackWindow)
	if err != nil {
		return e.InternalServerError("The figures could not be read.", err)
	}
	result.Rejected = p.rejected.recent()
	result.Path = p.config.Path
	result.SecretSet = p.verifier != nil
	result.KeySet = p.config.APIKey != ""
	if reason := p.schemaErr.Load(); reason != nil {
		result.Problem = (*reason).Error()
	}
	return e.JSON(http.StatusOK, result)
}

// The queries of the figures. They read indexes, and of the rows, which carry bodies,
// only those of refused events.
const (
	countStored    = "SELECT COUNT(*) FROM aiContent WHERE created >= {:since}"
	countRefused   = "SELECT COUNT(*) FROM modelriverCallbacks WHERE payload != '' AND created >= {:since}"
	countDelivered = "SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'delivered' AND deliveredAt >= {:since}"
	countFailed    = "SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'failed'"
	countWaiting   = "SELECT COUNT(*) FROM modelriverCallbacks WHERE state = 'pending'"
	latestTimes    = `SELECT deliveredAt, created FROM modelriverCallbacks
		WHERE state = 'delivered' AND deliveredAt <= strftime('%Y-%m-%d %H:%M:%fZ', created, {:window})
		ORDER BY deliveredAt DESC LIMIT {:n}`
)

func readStats(app core.App, since time.Time, window time.Duration) (*stats, error) {
	result := &stats{Since: dateTime(since)}
	for query, count := range map[string]*int{
		countStored: &result.Stored, countRefused: &result.Refused, countDelivered: &result.Delivered,
		countFailed: &result.Failed, countWaiting: &result.Waiting,
	} {
		err := app.ConcurrentDB().NewQuery(query).Bind(dbx.Params{"since": result.Since}).Row(count)
		if err != nil {
			return nil, err
		}
	}
	result.Received = result.Stored + result.Refused

	var latest []struct {
		DeliveredAt types.DateTime `db:"deliveredAt"`
		Created     types.DateTime `db:"created"`
	}
	err := app.ConcurrentDB().NewQuery(latestTimes).Bind(dbx.Params{
		"n": medianOf, "window": fmt.Sprintf("+%.3f seconds", window.Seconds()),
	}).All(&latest)
	if err != nil {
		return nil, err
	}
	if len(latest) > 0 {
		times := make([]int64, len(latest))
		for i, row := range latest {
			times[i] = row.DeliveredAt.Sub(row.Created).Milliseconds()
		}
		slices.Sort(times)
		median := (times[(len(times)-1)/2] + times[len(times)/2]) / 2
		result.Median = &median
	}
	return result, nil
}

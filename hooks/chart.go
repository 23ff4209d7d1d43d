package hooks

import (
	"cmp"
	"net/http"
	"strconv"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// handleChart answers with what went on in the last hours: 24, or 168 by the query parameter
// "hours".
func (p *plugin) handleChart(e *core.RequestEvent) error {
	hours, err := strconv.Atoi(cmp.Or(e.Request.URL.Query().Get("hours"), "24"))
	if err != nil || !store.ChartHours(hours) {
		return e.BadRequestError("The parameter hours must be 24 or 168.", err)
	}
	var chart store.Chart
	err = p.rejected.withUnwritten(func(unwritten []store.Rejection) (err error) {
		chart, err = p.charts.Read(e.App, hours, p.outbox.Now(), p.config.CallbackWindow, unwritten)
		return err
	})
	if err != nil {
		return e.InternalServerError("The chart could not be read.", err)
	}
	return e.JSON(http.StatusOK, chart)
}

package hooks

import (
	"net/http"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// handleDelivery answers with one delivery and all that is kept of it.
func (p *plugin) handleDelivery(e *core.RequestEvent) error {
	p.payloads.flush()
	delivery, err := store.FindDelivery(e.App, e.Request.PathValue("id"))
	if err != nil {
		return e.InternalServerError("The delivery could not be read.", err)
	}
	if delivery == nil {
		return e.NotFoundError("There is no delivery with this id.", nil)
	}
	return e.JSON(http.StatusOK, struct {
		*store.WholeDelivery
		PayloadRetention int64 `json:"payloadRetention"` // seconds; 0 if no payloads are kept
	}{delivery, int64(max(p.config.PayloadRetention, 0).Seconds())})
}

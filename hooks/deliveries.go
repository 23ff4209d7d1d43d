package hooks

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// handleDeliveries answers with a page of the deliveries that the query lets through.
func (p *plugin) handleDeliveries(e *core.RequestEvent) error {
	filter, err := deliveryFilter(e)
	if err != nil {
		return err
	}
	page, err := store.FindDeliveries(e.App, filter)
	switch {
	case errors.Is(err, store.ErrNoPosition):
		return e.BadRequestError("The parameter after must be the next of the page before: leave it out for the first page.", nil)
	case err != nil:
		return e.InternalServerError("The deliveries could not be read.", err)
	}
	return e.JSON(http.StatusOK, page)
}

// deliveryFilter reads the filter of a request. Its error is the answer, which names the
// remedy.
func deliveryFilter(e *core.RequestEvent) (store.DeliveryFilter, error) {
	query := e.Request.URL.Query()
	filter := store.DeliveryFilter{
		State: query.Get("state"), Event: query.Get("event"), Category: query.Get("category"), User: query.Get("user"),
		Search: query.Get("search"), After: query.Get("after"), Limit: 30,
	}
	if !slices.Contains([]string{"", store.Waiting, store.Delivered, store.Failed, store.Refused}, filter.State) {
		return filter, e.BadRequestError("The parameter state must be waiting, delivered, failed or refused.", nil)
	}
	for name, date := range map[string]*time.Time{"from": &filter.From, "to": &filter.To} {
		given := query.Get(name)
		if given == "" {
			continue
		}
		var err error
		if *date, err = time.Parse(time.RFC3339, given); err != nil {
			return filter, e.BadRequestError("The parameter "+name+" must be a date as in 2026-01-31T00:00:00Z.", err)
		}
	}
	if given := query.Get("limit"); given != "" {
		var err error
		if filter.Limit, err = strconv.Atoi(given); err != nil || filter.Limit < 1 || filter.Limit > 200 {
			return filter, e.BadRequestError("The parameter limit must be a number from 1 to 200.", err)
		}
	}
	return filter, nil
}

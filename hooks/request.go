package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/pocketriver/pocketriver/hooks/internal/rawjson"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// serversNames are the members of a request to ModelRiver that are not a client's to choose:
// they say what is asked, at whose cost, for whom, and where the answer goes.
var serversNames = []string{
	"workflow", "events", "event", "request_id", "user_id", "customer_data", "provider", "model",
	"webhook_url", "callback_url", "delivery_method",
}

func (p *plugin) bindRequests() {
	p.app.OnRecordCreateRequest(store.Requests).Bind(&hook.Handler[*core.RecordRequestEvent]{
		Id: "modelriverRequest", Func: p.guardRequest, Priority: -10000, // the app's own hooks may add to what is left
	})
}

// bindAsking adds the route by which a page knows whether to offer asking.
func (p *plugin) bindAsking(e *core.ServeEvent) {
	e.Router.GET("/api/modelriver/asking", p.handleAsking).Bind(apis.SkipSuccessActivityLog())
}

// handleAsking answers whether anybody but superusers may create requests. Who may is known
// only when they do: the collection's rule may read what is asked.
func (p *plugin) handleAsking(e *core.RequestEvent) error {
	requests, err := e.App.FindCachedCollectionByNameOrId(store.Requests)
	if err != nil {
		return e.InternalServerError("", err)
	}
	return e.JSON(http.StatusOK, map[string]bool{"open": requests.CreateRule != nil || e.HasSuperuserAuth()})
}

// guardRequest leaves of a new request what a client decides: the workflow and the input.
// PocketBase calls it for single requests, and within the transaction of a batch.
func (p *plugin) guardRequest(e *core.RecordRequestEvent) error {
	if !p.outbox.Leads() {
		return refuseToWrite(e.RequestEvent)
	}
	input := json.RawMessage(e.Record.GetString("input"))
	if !e.HasSuperuserAuth() {
		for _, field := range e.Collection.Fields {
			if name := field.GetName(); name != "workflow" && name != "input" {
				e.Record.Set(name, nil)
			}
		}
		if e.Auth != nil {
			e.Record.Set("userId", e.Auth.Id)
		}
		if name := serversName(input); name != "" {
			return refuseInput(e, "validation_server_member", fmt.Sprintf("The server sets %s: leave it out.", name))
		}
	}
	members, err := rawjson.Members(input)
	switch {
	case int64(len(input)) > p.config.MaxInput:
		return refuseInput(e, "validation_input_too_large", fmt.Sprintf("Must be no more than %d bytes.", p.config.MaxInput))
	case err != nil:
		return refuseInput(e, "validation_not_object", "Must be a JSON object.")
	case members["metadata"] != nil && !rawjson.IsObject(members["metadata"]):
		return refuseInput(e, "validation_metadata_not_object", "Its metadata must be a JSON object.")
	}
	defer p.outbox.Creating()()
	return e.Next()
}

// serversName returns a name in the input that is the server's, or an empty text.
func serversName(input json.RawMessage) string {
	members := rawjson.OptionalMembers(input)
	for _, name := range serversNames {
		if _, ok := members[name]; ok {
			return name
		}
	}
	metadata := rawjson.OptionalMembers(members["metadata"])
	for _, name := range []string{"request_id", "user_id"} {
		if _, ok := metadata[name]; ok {
			return "metadata." + name
		}
	}
	for name := range members {
		if strings.HasPrefix(name, "metadata.") { // as ModelRiver writes the path of a cache field
			return name
		}
	}
	return ""
}

func refuseInput(e *core.RecordRequestEvent, code, message string) error {
	return e.BadRequestError("Failed to create record.", validation.Errors{"input": validation.NewError(code, message)})
}

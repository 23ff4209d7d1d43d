package hooks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/internal/simulator"
)

// A host lets its users ask ModelRiver: whoever signed in, one workflow only, and twice in a
// day. The simulator answers here, in ModelRiver's place.
func ExampleMustRegister_ask() {
	app, modelRiver := newHost(), freeAddress()
	hooks.MustRegister(app, nil, hooks.Config{ // with pocketbase.New(): app.RootCmd in place of nil
		WebhookSecrets: []string{"secret"},
		APIKey:         "key",
		APIURL:         "http://" + modelRiver,
	})
	app.OnServe().BindFunc(openAsking)
	app.OnRecordCreateRequest("aiRequests").BindFunc(limitAsking)

	server := serve(app)
	go simulate(modelRiver, server.URL)
	token := signUp(app)
	fmt.Println(ask(app, server, token, "story", "A lighthouse"))
	fmt.Println(ask(app, server, token, "novel", "A lighthouse"))
	fmt.Println(ask(app, server, token, "story", "A harbour"))
	fmt.Println(ask(app, server, token, "story", "A ferry"))
	// Output:
	// answered: A lighthouse
	// 400: Only stories are told here.
	// answered: A harbour
	// 429: You have asked twice today. Come back tomorrow.
}

// openAsking lets whoever signed in create requests. A migration can do it, too.
func openAsking(e *core.ServeEvent) error {
	requests, err := e.App.FindCollectionByNameOrId("aiRequests")
	if err != nil {
		return err
	}
	requests.CreateRule = types.Pointer(`@request.auth.id != ""`)
	if err := e.App.Save(requests); err != nil {
		return err
	}
	return e.Next()
}

// limitAsking refuses what the app does not offer, and a user's third request in a day.
func limitAsking(e *core.RecordRequestEvent) error {
	if e.Auth == nil || e.HasSuperuserAuth() {
		return e.Next()
	}
	if e.Record.GetString("workflow") != "story" {
		return e.BadRequestError("Only stories are told here.", nil)
	}
	app := e.App
	defer func() { e.App = app }()
	return app.RunInTransaction(func(tx core.App) error { // so that requests at the same time do not pass
		e.App = tx
		since := types.NowDateTime().Add(-24 * time.Hour)
		asked := int64(0)
		for collection, created := range map[string]string{"aiRequests": "created", "modelriverChannels": "asked"} { // those that were deleted, too
			count, err := tx.CountRecords(collection, dbx.NewExp("userId = {:user} AND "+created+" > {:since}", dbx.Params{"user": e.Auth.Id, "since": since}))
			if err != nil {
				return err
			}
			asked += count
		}
		if asked >= 2 {
			return e.TooManyRequestsError("You have asked twice today. Come back tomorrow.", nil)
		}
		return e.Next()
	})
}

// ask creates a request as a page does, and returns what came of it.
func ask(app core.App, server *httptest.Server, token, workflow, question string) string {
	body := fmt.Sprintf(`{"workflow":%q,"input":{"messages":[{"role":"user","content":%q}]}}`, workflow, question)
	request, err := http.NewRequest(http.MethodPost, server.URL+"/api/collections/aiRequests/records", strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {token}, "Content-Type": {"application/json"}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	var created struct{ Id, Message string }
	if err := json.NewDecoder(response.Body).Decode(&created); err != nil {
		log.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d: %s", response.StatusCode, created.Message)
	}
	for range 600 { // a page sees it live
		asked, err := app.FindRecordById("aiRequests", created.Id)
		if err != nil {
			log.Fatal(err)
		}
		if answer, err := app.FindRecordById("aiContent", asked.GetString("record")); err == nil {
			return asked.GetString("state") + ": " + answer.GetString("title")
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "no answer"
}

// simulate takes ModelRiver's place, as the command modelriver simulate does.
func simulate(address, server string) {
	err := simulator.Run(context.Background(), io.Discard, simulator.Settings{Secret: "secret", APIKey: "key"}, simulator.Options{
		Listen: address, Target: server + "/webhooks/modelriver", Scheme: "body", Speed: 1,
		CacheFields: []string{"request_id", "user_id"}, // as the workflow should have them
	})
	log.Fatal(err)
}

// signUp returns the token of a new user.
func signUp(app core.App) string {
	users, err := app.FindCollectionByNameOrId("users")
	if err != nil {
		log.Fatal(err)
	}
	user := core.NewRecord(users)
	user.SetEmail("asker@example.com")
	user.SetRandomPassword()
	if err := app.Save(user); err != nil {
		log.Fatal(err)
	}
	token, err := user.NewAuthToken()
	if err != nil {
		log.Fatal(err)
	}
	return token
}

func freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

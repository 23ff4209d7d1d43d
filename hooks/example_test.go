package hooks_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// A PocketBase app with the plugin: this is a whole main.go.
func ExampleMustRegister() {
	app := pocketbase.New()

	config, _ := hooks.ConfigFromEnv() // serve says what is wrong with it
	hooks.MustRegister(app, app.RootCmd, config)

	if err := app.Start(); err != nil {
		log.Fatal(err)
	}
}

// A hook shapes and enriches a record before it is stored. What it leaves in data is
// what the callback brings to ModelRiver's clients.
func ExampleRegister_enrich() {
	app := newApp()
	app.OnRecordCreate("aiContent").BindFunc(func(e *core.RecordEvent) error {
		var data map[string]any
		if err := e.Record.UnmarshalJSONField("data", &data); err != nil {
			return err
		}
		data["slug"] = strings.ReplaceAll(strings.ToLower(e.Record.GetString("title")), " ", "-")
		e.Record.Set("data", data)
		return e.Next()
	})

	callback := deliver(app, `{"title":"River Towns"}`)
	fmt.Println(callback[:strings.Index(callback, `,"id"`)])
	// Output: {"data":{"slug":"river-towns","title":"River Towns"
}

// A hook that returns an error refuses the content: it is not stored, ModelRiver gets an
// error callback, and the payload is kept on the callback's row, to be ingested again.
func ExampleRegister_refuse() {
	app := newApp()
	app.OnRecordCreate("aiContent").BindFunc(func(e *core.RecordEvent) error {
		if strings.Contains(e.Record.GetString("title"), "forbidden") {
			return apis.NewBadRequestError("This is not published here.", nil)
		}
		return e.Next()
	})

	fmt.Println(deliver(app, `{"title":"A forbidden tale"}`))
	// Output: {"error":"processing_failed","message":"refused: This is not published here."}
}

// A callback that fails for good is saved through PocketBase, so that a hook hears of it.
func ExampleRegister_alarm() {
	app := newApp()
	alarm := make(chan string)
	app.OnRecordAfterUpdateSuccess("modelriverCallbacks").BindFunc(func(e *core.RecordEvent) error {
		if e.Record.GetString("state") == "failed" {
			alarm <- e.Record.GetString("lastError")
		}
		return e.Next()
	})

	deliver(app, `{"title":"Too late"}`, http.StatusGone)
	fmt.Println(<-alarm)
	// Output: answered 410 Gone; error callback: answered 410 Gone
}

// newApp returns an app with the plugin on a data directory of its own.
func newApp() *tests.TestApp {
	app := newHost()
	hooks.MustRegister(app, nil, hooks.Config{
		WebhookSecrets: []string{"secret"},
		APIKey:         "key",
		CallbackHosts:  []string{"127.0.0.1"},
	})
	return app
}

// newHost returns an app on a data directory of its own.
func newHost() *tests.TestApp {
	dir, err := os.MkdirTemp("", "pocketriver")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	app, err := tests.NewTestApp(dir) // which it copies
	if err != nil {
		log.Fatal(err)
	}
	return app
}

// deliver serves the app, sends it one webhook with the AI data, and returns the first
// callback, which it answers with the given status, or 200.
func deliver(app *tests.TestApp, data string, status ...int) string {
	callbacks := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, code := range status {
			w.WriteHeader(code)
		}
		callbacks <- string(body)
	}))

	server := serve(app)

	payload := fmt.Appendf(nil, `{"type":"task.ai_generated","channel_id":"c1","ai_response":{"data":%s},"callback_url":"%s/v1/callback/c1"}`, data, receiver.URL)
	request, err := http.NewRequest(http.MethodPost, server.URL+"/webhooks/modelriver", bytes.NewReader(payload))
	if err != nil {
		log.Fatal(err)
	}
	if err := modelriver.Sign(request.Header, "body", "secret", time.Now(), payload); err != nil {
		log.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	return <-callbacks
}

// serve does what the serve command does, on a free port.
func serve(app core.App) (server *httptest.Server) {
	router, err := apis.NewRouter(app)
	if err != nil {
		log.Fatal(err)
	}
	err = app.OnServe().Trigger(&core.ServeEvent{App: app, Router: router}, func(e *core.ServeEvent) error {
		mux, err := e.Router.BuildMux()
		server = httptest.NewServer(mux)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	return server
}

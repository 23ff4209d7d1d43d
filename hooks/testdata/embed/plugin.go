//go:build !without

package main

import (
	"os"

	"github.com/pocketbase/pocketbase"

	"github.com/pocketriver/pocketriver/hooks"
)

func addPlugin(app *pocketbase.PocketBase) {
	hooks.MustRegister(app, app.RootCmd, hooks.Config{
		WebhookSecrets: []string{os.Getenv("HOST_SECRET")},
		APIKey:         os.Getenv("HOST_KEY"),
		CallbackHosts:  []string{"127.0.0.1"},
		Path:           "/in/ai",
		MaxBodySize:    2048,
	})
}

// Command embed is an app of its own that takes the plugin with one line, in plugin.go.
// The test in hooks/embed_test.go builds it with the plugin and without, and runs both.
package main

import (
	"log"
	"os"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
	"github.com/pocketbase/pocketbase/plugins/migratecmd"
)

func main() {
	app := pocketbase.New()
	jsvm.MustRegister(app, jsvm.Config{HooksDir: os.Getenv("HOST_HOOKS")})
	migratecmd.MustRegister(app, app.RootCmd, migratecmd.Config{})

	addPlugin(app)

	if err := app.Start(); err != nil {
		log.Fatal(err)
	}
}

func init() {
	core.AppMigrations.Register(func(app core.App) error {
		notes := core.NewBaseCollection("notes")
		notes.Fields.Add(&core.TextField{Name: "text", Required: true})
		return app.Save(notes)
	}, func(app core.App) error {
		notes, err := app.FindCollectionByNameOrId("notes")
		if err != nil {
			return err
		}
		return app.Delete(notes)
	}, "1700000000_host_init.go")
}

// Command pocketriver is PocketBase with the ModelRiver plugin: one binary that
// receives signed webhooks, stores their AI data, calls ModelRiver back and pushes
// every record to the pages that subscribe.
package main

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"

	"github.com/mattn/go-isatty"
	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/cmd"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
	"github.com/pocketbase/pocketbase/plugins/migratecmd"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/osutils"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks"
	"github.com/pocketriver/pocketriver/hooks/replica"
)

//go:embed all:pb_public
var embeddedPublic embed.FS

// version is set by the release build.
var version = "(untracked)"

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // the heap is small, so collecting it half as often costs little memory
	}
	connect := hooks.DBConnect
	app := pocketbase.NewWithConfig(pocketbase.Config{
		DefaultDev: osutils.IsProbablyGoRun(),
		DBConnect:  func(path string) (*dbx.DB, error) { return connect(path) },
	})
	app.RootCmd.SetErr(os.Stderr) // PocketBase's own writer prints errors to standard output
	app.RootCmd.Version = version + " (PocketBase " + hooks.PocketBaseVersion() + ")"

	config, _ := hooks.ConfigFromEnv() // serve says what is wrong with it
	flags := addFlags(app)
	node := addNode(app, &config, flags)
	if node != nil {
		connect = node.Connect
	}
	addPlugins(app, flags, node == nil)
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id:       "pocketriverPublic",
		Func:     func(e *core.ServeEvent) error { return servePublic(e, flags.publicDir, flags.indexFallback) },
		Priority: 999, // after every route of hooks and plugins
	})

	app.OnBootstrap().BindFunc(func(e *core.BootstrapEvent) error {
		if err := e.Next(); err != nil {
			hint := ""
			if file, cant := os.CreateTemp(e.App.DataDir(), ".writable"); cant != nil {
				hint = ": it must be writable"
			} else {
				file.Close()
				os.Remove(file.Name())
			}
			return fmt.Errorf("%w (the data directory is %s%s)", err, e.App.DataDir(), hint)
		}
		return nil
	})

	// PocketBase drops the error of a failed command, and with it the exit status
	// (fixed in v0.40.0). The plugin's commands see to theirs themselves.
	app.RootCmd.AddCommand(cmd.NewSuperuserCommand(app), cmd.NewServeCommand(app, true))
	var failed atomic.Bool
	trackFailure(app.RootCmd, &failed)
	hooks.MustRegister(app, app.RootCmd, config)
	if _, _, err := app.RootCmd.Find(os.Args[1:]); err != nil {
		failed.Store(true) // an unknown command
	}
	if err := app.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	if failed.Load() {
		os.Exit(1)
	}
}

// addNode makes the app one of several nodes with one database, if the environment says so; if that can't be, whatever
// would open the database ends with why.
func addNode(app *pocketbase.PocketBase, config *hooks.Config, flags *flags) (node *replica.Node) {
	replica.AddCommands(app, app.RootCmd)
	nodes, err := replica.ConfigFromEnv(app.DataDir())
	if err == nil && nodes.Node == "" {
		return nil
	}
	if err == nil && config.Replica != "" {
		err = errors.New("REPLICA_URL and POCKETRIVER_NODE are set: several nodes ship nothing, so far: unset one of them")
	}
	if err == nil {
		nodes.Same, err = flags.same(app.DataDir())
	}
	if err == nil {
		node, err = replica.Open(nodes)
	}
	if err != nil {
		app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{
			Func:     func(*core.BootstrapEvent) error { return err },
			Priority: -15000, // before anything is made, after the commands that need no database
		})
		return nil
	}
	node.Register(app, app.RootCmd)
	node.OnLead(func() { log.Printf("The node %s leads", nodes.Node) })
	config.Node = node
	return node
}

// flags are PocketBase's own, of JavaScript hooks, migrations and static files.
type flags struct {
	hooksDir, migrationsDir, publicDir     string
	hooksWatch, automigrate, indexFallback bool
	hooksPool                              int
}

func addFlags(app *pocketbase.PocketBase) *flags {
	f, all := &flags{}, app.RootCmd.PersistentFlags()
	all.StringVar(&f.hooksDir, "hooksDir", "", "the directory with the JS app hooks")
	all.BoolVar(&f.hooksWatch, "hooksWatch", true, "auto restart the app on pb_hooks file change; it has no effect on Windows")
	all.IntVar(&f.hooksPool, "hooksPool", 15, "the total prewarm goja.Runtime instances for the JS app hooks execution")
	all.StringVar(&f.migrationsDir, "migrationsDir", "", "the directory with the user defined migrations")
	all.BoolVar(&f.automigrate, "automigrate", true, "enable/disable auto migrations")
	all.StringVar(&f.publicDir, "publicDir", "", "the directory to serve static files (default: the built-in feed page)")
	all.BoolVar(&f.indexFallback, "indexFallback", true, "fallback the request to index.html on missing static path, e.g. when pretty urls are used with SPA")
	_ = app.RootCmd.ParseFlags(os.Args[1:]) // Execute parses again and reports
	return f
}

// same returns what must be the same on several nodes.
func (f *flags) same(dataDir string) (map[string]string, error) {
	beside := filepath.Dir(filepath.Clean(dataDir)) // where PocketBase has the folders
	hooksHash, err := replica.HashFiles(cmp.Or(f.hooksDir, filepath.Join(beside, "pb_hooks")))
	if err != nil {
		return nil, err
	}
	migrationsHash, err := replica.HashFiles(cmp.Or(f.migrationsDir, filepath.Join(beside, "pb_migrations")))
	return map[string]string{
		"PocketRiver": version, "PocketBase": hooks.PocketBaseVersion(), "pb_hooks": hooksHash, "pb_migrations": migrationsHash,
	}, err
}

// addPlugins adds JavaScript hooks and migrations. Of several nodes, none makes migrations by itself: they would be that one's only.
func addPlugins(app *pocketbase.PocketBase, flags *flags, alone bool) {
	jsvm.MustRegister(app, jsvm.Config{
		MigrationsDir: flags.migrationsDir,
		HooksDir:      flags.hooksDir,
		HooksWatch:    flags.hooksWatch,
		HooksPoolSize: flags.hooksPool,
	})
	migratecmd.MustRegister(app, app.RootCmd, migratecmd.Config{
		TemplateLang: templateLang(),
		Automigrate:  flags.automigrate && alone,
		Dir:          flags.migrationsDir,
	})
}

// templateLang is Go while this repository is worked on, and JS for the binary's users,
// whose migrations are files in pb_migrations.
func templateLang() string {
	if osutils.IsProbablyGoRun() {
		return migratecmd.TemplateLangGo
	}
	return migratecmd.TemplateLangJS
}

// contentPolicy lets the page load and call nothing but its own server, and no other
// site frame it. An icon may be a data: URL, and what the AI wrote may name images of
// other sites, which the page loads only if the reader asks for them.
const contentPolicy = "default-src 'self'; img-src 'self' data: https:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// servePublic serves the feed page, or the files of publicDir, where no route does.
func servePublic(e *core.ServeEvent, publicDir string, indexFallback bool) error {
	if !isatty.IsTerminal(os.Stdout.Fd()) {
		e.InstallerFunc = nil // its link holds a superuser's token, and nobody reads it here
	}
	if e.Router.HasRoute(http.MethodGet, "/{path...}") {
		return e.Next()
	}
	if publicDir != "" {
		e.Router.GET("/{path...}", apis.Static(os.DirFS(publicDir), indexFallback))
		return e.Next()
	}
	files, err := fs.Sub(embeddedPublic, "pb_public")
	if err != nil {
		return err
	}
	e.Router.GET("/{path...}", apis.Static(files, indexFallback)).BindFunc(func(e *core.RequestEvent) error {
		e.Response.Header().Set("Content-Security-Policy", contentPolicy)
		return e.Next()
	})
	return e.Next()
}

// trackFailure notes whether a command returns an error, bad flags and arguments
// included.
func trackFailure(command *cobra.Command, failed *atomic.Bool) {
	note := func(err error) error {
		if err != nil {
			failed.Store(true)
		}
		return err
	}
	if run := command.RunE; run != nil {
		command.RunE = func(c *cobra.Command, args []string) error { return note(run(c, args)) }
	}
	if check := command.Args; check != nil {
		command.Args = func(c *cobra.Command, args []string) error { return note(check(c, args)) }
	}
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return note(err) })
	for _, child := range command.Commands() {
		trackFailure(child, failed)
	}
}

// Package hooks connects a PocketBase app to ModelRiver: it receives signed webhooks,
// stores the AI data of each as a record of the collection aiContent, which PocketBase
// pushes to every subscriber, and owes ModelRiver one callback for each, which a
// background outbox sends until it is accepted. It also asks ModelRiver for whoever creates
// a record of the collection aiRequests, and gives the answer to that user.
//
//	config, _ := hooks.ConfigFromEnv() // serve says what is wrong with it
//	hooks.MustRegister(app, app.RootCmd, config)
//
// To shape, enrich or refuse content, bind PocketBase's own OnRecordCreate("aiContent"):
// the callback carries what the hook leaves in the record's data field. A callback that
// fails for good is saved as an update of its row, so that
// OnRecordAfterUpdateSuccess("modelriverCallbacks") can raise an alarm.
package hooks

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/spf13/cobra"

	"github.com/pocketriver/pocketriver/hooks/internal/cli"
	"github.com/pocketriver/pocketriver/hooks/internal/commit"
	"github.com/pocketriver/pocketriver/hooks/internal/outbox"
	"github.com/pocketriver/pocketriver/hooks/internal/realtime"
	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
	"github.com/pocketriver/pocketriver/hooks/modelriver"
)

// MustRegister is [Register] that panics if it fails.
func MustRegister(app core.App, rootCmd *cobra.Command, config Config) {
	if err := Register(app, rootCmd, config); err != nil {
		panic(err)
	}
}

// Register adds the plugin to app, and its commands to rootCmd unless that is nil. It
// returns an error if the configuration is not usable. But secrets, key, URL and hosts,
// which come from outside the code, are told of when they matter: serve ends with the
// error, and so does a command that needs them; every other command works. Missing ones
// are not an error. Registering again replaces the earlier registration.
func Register(app core.App, rootCmd *cobra.Command, config Config) error {
	p, err := newPlugin(app, config)
	if err == nil && p.config.Replica != "" && rootCmd == nil {
		err = errors.New("Replica needs the root command, to know when the app serves: register with app.RootCmd")
	}
	if err != nil {
		return fmt.Errorf("modelriver: %w", err)
	}
	p.bindRecovery(rootCmd)
	p.versions = readVersions(rootCmd)
	p.bind()
	if rootCmd != nil {
		p.addCommands(rootCmd)
	}
	return nil
}

type plugin struct {
	app      core.App
	config   Config
	verifier *modelriver.Verifier // nil without a secret
	commits  *commit.Committer
	creates  *commit.Committer // of requests
	outbox   *outbox.Outbox
	fanOut   *realtime.FanOut
	schema   store.Schema
	recovery *recovery.Recovery
	versions versions

	unusable error // why the settings are not usable; nil if they are
	stopping atomic.Bool
	rejected rejections
	payloads payloads
	charts   store.ChartReader

	leading sync.Mutex // is held by who begins to lead, or ends
	serving bool
	told    bool // that this node leads
}

func newPlugin(app core.App, config Config) (*plugin, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	p := &plugin{app: app, config: config, rejected: rejections{every: time.Minute}}
	var client *modelriver.Client
	if p.verifier, client, p.unusable = config.protocol(); p.unusable != nil {
		_, client, _ = Config{CallbackTimeout: config.CallbackTimeout}.withDefaults().protocol() // for the commands, which send nothing
	}
	p.fanOut = realtime.New(app, store.Content, store.Callbacks, store.Requests)
	p.fanOut.Partly = []string{store.Callbacks} // which the outbox writes by plain SQL
	p.commits = commit.New(app, store.Content)
	p.commits.Committed, p.commits.Settled = p.fanOut.Committed, p.fanOut.Settled
	p.commits.OwnHooks = sync.OnceValue(ownSaveHooks)
	p.creates = commit.New(app, store.Requests)
	p.commits.Yields = p.creates.Busy
	p.creates.OwnHooks = func() int { return math.MaxInt } // none runs in its transactions
	p.rejected.commits, p.rejected.leads = p.commits, config.leads
	p.payloads.app = app
	var leads func() bool
	if config.Node != nil {
		leads = config.Node.Leads
	}
	p.outbox = outbox.New(app, p.commits, client, outbox.Options{
		Keyed: config.APIKey != "", Timeout: config.CallbackTimeout, Window: config.CallbackWindow, Retention: config.Retention,
		PayloadRetention: max(config.PayloadRetention, 0), InWords: config.inWords, Reingest: p.reingest,
		Leads: leads,
	})
	return p, nil
}

// bind adds what the plugin consists of to PocketBase's hooks. Each has an Id, so that
// registering twice replaces, and so that a host can unbind one.
func (p *plugin) bind() {
	p.app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{Id: "modelriverServe", Func: p.serve})
	p.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "modelriverRefuse", Func: p.refuseWebhooks, Priority: -10000, // before PocketBase shuts the HTTP server down
	})
	p.app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "modelriverOutbox", Func: p.stop, Priority: -1000, // after the HTTP server, before the last logs are written
	})
	p.app.OnBackupCreate().Bind(&hook.Handler[*core.BackupEvent]{
		Id: "modelriverBackup", Func: p.backup, Priority: 10000, // within every other hook
	})
	p.commits.Bind()
	p.commits.UpdatePrepared(store.Requests)
	p.creates.InsertTogether(store.Requests)
	p.outbox.Bind()
	p.fanOut.Bind()
	p.schema.Bind(p.app)
	store.BindContent(p.app)
	p.payloads.bind()
	p.bindRequests()
	p.bindNode()
}

func (p *plugin) addCommands(rootCmd *cobra.Command) {
	cli.Add(p.app, rootCmd, p.commandOptions())
}

func (p *plugin) commandOptions() cli.Options {
	return cli.Options{
		WebhookSecrets: p.config.WebhookSecrets, APIKey: p.config.APIKey, APIURL: p.config.APIURL,
		Path: p.config.Path, Window: p.config.CallbackWindow, Unusable: p.unusable, InWords: p.config.inWords, Replica: p.recovery, Nodes: p.config.nodes,
		Several: p.config.Node != nil,
	}
}

// serve begins to receive webhooks and to send callbacks.
func (p *plugin) serve(e *core.ServeEvent) error {
	if p.unusable != nil {
		return p.unusable
	}
	if err := p.bindRoutes(e); err != nil {
		return err
	}
	p.bindAsking(e)
	if err := p.bindDashboard(e); err != nil {
		return err
	}
	if p.config.leads() {
		if err := store.RestoreSchema(e.App); err != nil {
			return err
		}
		p.schema.Check(e.App)
	}
	p.warnOfSettings(e.App)
	if err := e.Next(); err != nil {
		return err
	}
	// The port is bound: this process is the one that serves the data.
	p.stopping.Store(false)
	p.begin()
	return nil
}

func (p *plugin) refuseWebhooks(e *core.TerminateEvent) error {
	p.stopping.Store(true)
	return e.Next()
}

// stop ends what serve began. Callbacks that are being sent and hooks that run after a
// commit share its time.
func (p *plugin) stop(e *core.TerminateEvent) error {
	began := time.Now()
	p.end()
	p.outbox.Stop()        // which still commits
	p.rejected.stop(e.App) // and this too
	p.payloads.flush()
	p.commits.Stop(max(outbox.StopGrace+time.Second-time.Since(began), outbox.StopGrace/4))
	p.creates.Stop(outbox.StopGrace / 4) // of requests, which those hooks have created
	return e.Next()
}

// ownSaveHooks returns how many hooks run around a save in an app that has only
// PocketBase's and the plugin's.
func ownSaveHooks() int {
	app := core.NewBaseApp(core.BaseAppConfig{})
	p, err := newPlugin(app, Config{})
	if err != nil {
		return 0
	}
	p.bind()
	return commit.SaveHooks(app)
}

func (p *plugin) bindRoutes(e *core.ServeEvent) error {
	if e.Router.HasRoute(http.MethodPost, p.config.Path) {
		return fmt.Errorf("modelriver: the app has a route POST %s already: set Config.Path to another path", p.config.Path)
	}
	e.Router.POST(p.config.Path, p.handleWebhook).
		Bind(apis.SkipSuccessActivityLog()).
		Unbind(apis.DefaultBodyLimitMiddlewareId) // handleWebhook has its own limit

	// PocketBase's router has no 405 of its own, and its static files would answer a
	// GET here with a page.
	for _, method := range []string{
		http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace,
	} {
		if !e.Router.HasRoute(method, p.config.Path) {
			e.Router.Route(method, p.config.Path, methodNotAllowed).Bind(apis.SkipSuccessActivityLog())
		}
	}
	return nil
}

// warnOfSettings tells what an operator should know about this start: the terminal too,
// if webhooks will be refused or callbacks fail.
func (p *plugin) warnOfSettings(app core.App) {
	warn := func(text string) {
		text = p.config.inWords(text)
		app.Logger().Warn(text)
		fmt.Fprintf(os.Stderr, "Warning: %s.\n", text)
	}
	switch {
	case p.verifier == nil:
		warn("No ModelRiver webhook secret: every webhook is answered 503. Set MODELRIVER_WEBHOOK_SECRET")
	case slices.ContainsFunc(p.config.WebhookSecrets, cli.InQuotes):
		warn("MODELRIVER_WEBHOOK_SECRET is in quotes, and they count as a part of it. Docker keeps those of an --env-file: write the value without them")
	}
	switch {
	case p.config.APIKey == "":
		warn("No ModelRiver API key: requests fail, callbacks wait and then fail. Set MODELRIVER_API_KEY")
	case cli.InQuotes(p.config.APIKey):
		warn("MODELRIVER_API_KEY is in quotes, and they count as a part of it. Docker keeps those of an --env-file: write the value without them")
	}
	var synchronous int
	if err := app.NonconcurrentDB().NewQuery("PRAGMA synchronous").Row(&synchronous); err == nil && synchronous < 2 && !app.HasTable(logTable) { // with a log, that is the durable copy
		app.Logger().Warn("The database runs with synchronous=NORMAL or OFF: a power failure can undo webhooks that were answered 200. Set pocketbase.Config.DBConnect to hooks.DBConnect")
	}
}

package replica

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/router"
	"github.com/spf13/cobra"
)

// retryAfter is how many seconds whoever wrote in vain is told to wait.
const retryAfter = "5"

// healthTimeout is how long a node is healthy that doesn't hear of the log.
const healthTimeout = 5 * time.Second

// Register adds to the app, whose database the node has, what it needs of it: writes that the log
// doesn't take are answered 503, whatever route they came by; the log is closed when the app
// terminates or restarts itself; backups leave the log and what was put aside out, and restoring one is refused, as the
// log would undo it. On one of several nodes, requests that may write are answered by the node that leads, /api/health
// is 503 while none is known, and cron jobs that are added before the app serves run on the node that leads, but for
// those of [Node.LocalJob] and PocketBase's for logs, rate limits and the database's file. Register before the app is bootstrapped.
//
// The root command tells whether this process serves: if another command of it was called than serve, the process is beside the
// server. Of several nodes, it has the database of the node that leads then, over that one's port for other nodes, and may run on
// any machine that has the configuration of a node, whether that one's server runs or not: what it changes is as if the server
// had, and hooks, which may ask and print, are its own. A transaction in which it does nothing for 10 seconds is rolled back, and rows
// that it reads outside of one are closed when it hasn't read on for 5 minutes. A node
// without others refuses a command as long as its server runs, which has the log: stop that first. Without a root command, the process serves.
func (n *Node) Register(app core.App, rootCmd *cobra.Command) {
	n.app.Store(app)
	n.rootCmd.Store(rootCmd)
	n.bootstrapped.Store(app.IsBootstrapped())
	n.Secret("encryption key", os.Getenv(app.EncryptionEnv())) // of the settings
	app.OnBootstrap().Bind(&hook.Handler[*core.BootstrapEvent]{Id: "replicaBootstrap", Func: func(e *core.BootstrapEvent) error {
		err := e.Next()
		n.bootstrapped.Store(err == nil)
		return err
	}})
	for _, failed := range []*hook.TaggedHook[*core.CollectionErrorEvent]{
		app.OnCollectionAfterCreateError(), app.OnCollectionAfterUpdateError(), app.OnCollectionAfterDeleteError(),
	} {
		failed.Bind(&hook.Handler[*core.CollectionErrorEvent]{Id: "replicaReload", Func: n.reloadBehind, Priority: -10000}) // around PocketBase's own
	}
	n.applied = &appliedApp{App: app}
	app.OnRealtimeConnectRequest().Bind(&hook.Handler[*core.RealtimeConnectRequestEvent]{Id: "replicaStream", Func: n.serveStream, Priority: -10000})
	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{Id: "replicaServe", Func: n.serve})
	app.OnTerminate().Bind(&hook.Handler[*core.TerminateEvent]{
		Id: "replicaClose", Func: n.terminate, Priority: 10000, // after all that may still write
	})
	app.OnBackupCreate().Bind(&hook.Handler[*core.BackupEvent]{Id: "replicaBackup", Func: func(e *core.BackupEvent) error {
		if n.isCommand() {
			return errBackup
		}
		if n.several() && !n.Leads() && strings.HasPrefix(e.Name, autoBackupPrefix) { // whose job is another one after each change of its schedule
			return nil
		}
		e.Exclude = append(e.Exclude, "data.db"+logSuffix)
		files, err := os.ReadDir(e.App.DataDir())
		if err != nil {
			return err
		}
		for _, file := range files {
			if strings.HasPrefix(file.Name(), asidePrefix) {
				e.Exclude = append(e.Exclude, file.Name())
			}
		}
		return e.Next()
	}})
	app.OnBackupRestore().Bind(&hook.Handler[*core.BackupEvent]{Id: "replicaRestore", Func: func(*core.BackupEvent) error { return errRestore }})
}

var errRestore = errors.New("a backup can't be restored into a database that has a log: unpack it into another data directory, and end the log of its data.db with \"cluster leave\"")

// refuseRestore tells who asks for a restore: PocketBase answers 204 before it tries one.
func refuseRestore(e *core.RequestEvent) error {
	path := e.Request.URL.Path
	if e.Request.Method == http.MethodPost && strings.HasPrefix(path, "/api/backups/") && strings.HasSuffix(path, "/restore") && e.HasSuperuserAuth() {
		return e.BadRequestError(errRestore.Error(), nil)
	}
	return e.Next()
}

// terminate closes the log before PocketBase closes its connections: when it restarts itself,
// nothing of this process runs after that.
func (n *Node) terminate(e *core.TerminateEvent) error {
	return errors.Join(n.Close(), e.Next())
}

func (n *Node) serve(e *core.ServeEvent) error {
	if n.isCommand() {
		return errServes
	}
	n.starting.Store(false)
	e.Router.Bind(&hook.Handler[*core.RequestEvent]{
		Id: "replicaUnavailable", Func: answerUnavailable, Priority: apis.DefaultActivityLoggerMiddlewarePriority + 1, // so that the logs have it too
	})
	e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "replicaRefuseRestore", Func: refuseRestore})
	if n.several() {
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{
			Id: "replicaPassOn", Func: n.passOn, Priority: apis.DefaultCorsMiddlewarePriority, // after that, and before what counts and logs requests
		})
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "replicaHealth", Func: n.answerHealth})
		if !n.Leads() {
			e.InstallerFunc = nil // which writes
		}
	}
	if _, err := apis.NewRouter(n.applied); err != nil { // of which only the events are wanted
		return err
	}
	if err := e.Next(); err != nil {
		return err
	}
	n.serving.Store(true)
	if n.several() {
		n.peer.handler.Store(&e.Server.Handler)
		if err := n.leaveJobs(e.App); err != nil {
			return err
		}
	}
	if n.Leads() {
		n.begins()
	}
	return nil
}

// localJobs are PocketBase's jobs for what each node has of its own.
var localJobs = []string{"__pbLogsCleanup__", "__pbDBOptimize__", "__pbRateLimitersCleanup__"}

// LocalJob has a cron job run on every node, and not only on the one that leads: one for what a node has of its own, as in its files.
// It is called before the app serves.
func (n *Node) LocalJob(id string) {
	n.localJobs = append(n.localJobs, id)
}

// Secret tells the node of a secret that is to be the same on all, by what it is: a node that has another one is told like one that differs in
// what [Config.Same] has. Of the value, other nodes get a hash with a salt. A command compares those that it has.
func (n *Node) Secret(what, value string) {
	n.secrets.Store(what, value)
}

// leaveJobs has only the node that leads run the jobs that the app has by now, but for those of each node.
func (n *Node) leaveJobs(app core.App) error {
	for _, job := range app.Cron().Jobs() {
		if slices.Contains(localJobs, job.Id()) || slices.Contains(n.localJobs, job.Id()) {
			continue
		}
		if err := app.Cron().Add(job.Id(), job.Expression(), func() {
			if n.Leads() {
				job.Run()
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// autoBackupPrefix is that of the backups that PocketBase makes by its schedule.
const autoBackupPrefix = "@auto_pb_backup_"

// answerHealth tells a balancer to send nobody to a node that knows of no node that leads.
func (n *Node) answerHealth(e *core.RequestEvent) error {
	if e.Request.URL.Path == "/api/health" && !n.healthy() {
		return apis.NewApiError(http.StatusServiceUnavailable, "This node can't reach the one that leads.", nil)
	}
	return e.Next()
}

// healthy reports whether a node leads, as far as this one has heard lately.
func (n *Node) healthy() bool { return n.heardWithin(healthTimeout) }

func (n *Node) heardWithin(timeout time.Duration) bool {
	return n.Leads() || n.heard.ago() < timeout
}

// answerUnavailable answers 503 to what PocketBase answers 400, and other statuses: the request
// was right, and may come again.
func answerUnavailable(e *core.RequestEvent) error {
	err := e.Next()
	if !isUnavailable(err) {
		return err
	}
	return unavailable(e, err)
}

// unavailable answers that nothing can be written now, or that it isn't known whether it was.
func unavailable(e *core.RequestEvent, err error) error {
	e.Response.Header().Set("Retry-After", retryAfter)
	return apis.NewApiError(http.StatusServiceUnavailable, "The database can't be written to now. Try again later.", err)
}

func isUnavailable(err error) bool {
	if errors.Is(err, ErrUnavailable) {
		return true
	}
	// Routes that change collections keep only the text of an error.
	var answer *router.ApiError
	return errors.As(err, &answer) && strings.Contains(fmt.Sprint(answer.Message, answer.RawData()), ErrUnavailable.Error())
}

package hooks

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/pocketriver/pocketriver/hooks/internal/nodes"
	"github.com/pocketriver/pocketriver/hooks/internal/recovery"
)

// Config configures the plugin. The zero value is usable, but without a secret every
// webhook is answered 503, and without a key callbacks wait.
type Config struct {
	// WebhookSecrets are the signing secrets of the webhooks, as ModelRiver's console
	// shows them. A webhook may be signed with any of them. One may hold several,
	// separated by commas; white space around each does not count. A blank one among
	// them is an error, but a single empty one, as of a variable that is not set, is
	// none. Defaults to none.
	WebhookSecrets []string

	// APIKey is the ModelRiver project key that requests and callbacks are sent with. Without
	// it requests fail, and callbacks wait, and fail when CallbackWindow ends. Defaults to
	// none.
	APIKey string

	// APIURL is ModelRiver's address; requests go there, and callbacks may go to its host. Only https is
	// allowed, or http to a loopback host. Defaults to "https://api.modelriver.com".
	APIURL string

	// CallbackHosts are further hosts that may get callbacks, and with them APIKey,
	// each "host" or "host:port". Defaults to none.
	CallbackHosts []string

	// Path is where webhooks are received. Defaults to "/webhooks/modelriver".
	Path string

	// MaxBodySize is the largest webhook that is read, in bytes; a larger one is
	// answered 413. At most 100 MiB. Defaults to 5 MiB.
	MaxBodySize int64

	// Tolerance is how far a signed timestamp may lie from now, in either direction.
	// It has no effect on the documented scheme, which signs none, and it refuses
	// retries and replays that keep their first timestamp. Defaults to 0, any.
	Tolerance time.Duration

	// CallbackTimeout is how long one attempt to send a callback or a request may take.
	// Defaults to 30 seconds.
	CallbackTimeout time.Duration

	// MaxInput is the largest input of a request that a client may create, in bytes; a larger
	// one is answered 400. Defaults to 256 KiB.
	MaxInput int64

	// HTTPClient is what requests and callbacks are sent with, for a proxy or a client certificate of
	// your own. Hosts stay pinned, and redirects are not followed. Defaults to a client
	// that takes the proxy from the environment.
	HTTPClient *http.Client

	// CallbackWindow is how long a callback is tried, from the webhook on. Defaults
	// to 5 minutes, as long as ModelRiver waits for one.
	CallbackWindow time.Duration

	// Retention is how long delivered callbacks are kept, requests that ended, and the rows
	// that keep deleted records from coming back. Failed callbacks are kept until they are
	// retried or deleted by hand. Defaults to 45 days: a webhook may come again for 30.
	Retention time.Duration

	// PayloadRetention is how long each webhook is kept as it came, in auxiliary.db, beside
	// what is stored of it, so that it can be looked at. It goes with its record, if that is
	// deleted earlier. Defaults to 7 days. [KeepNoPayloads] keeps none.
	PayloadRetention time.Duration

	// MetricsToken is what a monitor sends as bearer to read the metrics, which superusers may
	// read too. At least 16 characters. Defaults to none.
	MetricsToken string

	// Replica is where each change of data.db is shipped, for the day on which this machine is
	// gone: file:///path/of/a/folder, on another disk, or s3://bucket/path?endpoint=…&region=…,
	// in any S3-compatible store, whose credentials are AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY. A server that starts without a database restores it from there.
	// It needs the root command. Defaults to none.
	Replica string

	// ReplicaAck decides when a webhook is answered 200: [AckAsync], when it is on this
	// machine's disk, or [AckWait], when the replica has it too. Defaults to AckAsync.
	ReplicaAck string

	// ReplicaRetention is how far back any moment can be restored from the replica, to within
	// 30 seconds; to the second for the last 5 minutes. A day at least. Defaults to 7 days.
	ReplicaRetention time.Duration

	// Node is this one of several nodes that share one database: a *replica.Node of hooks/replica,
	// registered with the app. Only the one that leads can write. The others send nothing, and
	// answer webhooks and new requests 503 with Retry-After, unless something before the app's
	// routes passes them on, as a *replica.Node does. Defaults to nil: there is one node.
	Node Node

	fromEnv bool  // the settings that have a variable come from there
	envErr  error // why the variable of PayloadRetention is not usable
}

// A Node is one of several that share one database, each with a copy of it. Its methods may be called from any
// goroutine, and none blocks while the app serves.
type Node interface {
	// Leads reports whether this node leads, and can be written.
	Leads() bool

	// OnLead is given, when the plugin is registered, a function that is to be called once each
	// time this node begins to lead, or leads again: when its copy has all that the node before
	// wrote, and Leads reports true. It does what a start does after a crash, which may take
	// seconds; called before the app serves, it is done then.
	OnLead(lead func())

	// Applied returns an app that has the hooks that are triggered on this node by what another one wrote, so that its
	// viewers see it: OnModelUpdate, OnModelDelete, OnModelAfterCreateSuccess and the like, with the
	// app that the plugin is registered with.
	Applied() core.App

	// Position tells how far this node's database has come, by a text without a dot. The ids of
	// the events of live queries end with it, so that a client that comes to another node can ask
	// that one for no less.
	Position() string

	// LocalJob is given, when the plugin is registered, the id of a cron job that is to run on every node, whichever
	// leads: it deletes what each has of its own.
	LocalJob(id string)

	// Secret is given, when the plugin is registered, a secret that is to be the same on all nodes, by what it is. State tells
	// which nodes have another one. No value leaves the process but as a hash with a salt.
	Secret(what, value string)

	// State returns how each of the nodes stands, for the dashboard's page, the metrics, and the commands
	// status and doctor.
	State() []NodeState
}

// NodeState is how one of several nodes stands: its Name and Address; whether it is the one that is Here, is Reached and Leads;
// its Position in the log, how many entries it is Behind, and its LagSeconds; what its clock is ahead, in ClockSeconds; what must be
// the Same on all; and what Differs, in words.
type NodeState = nodes.State

// KeepNoPayloads is a [Config.PayloadRetention] with which no payload is kept, and those that
// are there are deleted, at night.
const KeepNoPayloads time.Duration = -1

// The values of [Config.ReplicaAck].
const (
	AckAsync = recovery.AckAsync
	AckWait  = recovery.AckWait
)

const maxBodySizeLimit = 100 << 20 // what the fields of the collections hold

func (c Config) withDefaults() Config {
	c = c.tidy()
	c.APIURL = cmp.Or(c.APIURL, "https://api.modelriver.com")
	c.Path = cmp.Or(c.Path, "/webhooks/modelriver")
	c.MaxBodySize = cmp.Or(c.MaxBodySize, 5<<20)
	c.MaxInput = cmp.Or(c.MaxInput, 256<<10)
	c.CallbackTimeout = cmp.Or(c.CallbackTimeout, 30*time.Second)
	c.CallbackWindow = cmp.Or(c.CallbackWindow, 5*time.Minute)
	c.Retention = cmp.Or(c.Retention, 45*24*time.Hour)
	if c.PayloadRetention != 0 {
		c.envErr = nil
	}
	c.PayloadRetention = cmp.Or(c.PayloadRetention, 7*24*time.Hour)
	c.ReplicaAck = cmp.Or(c.ReplicaAck, AckAsync)
	c.ReplicaRetention = cmp.Or(c.ReplicaRetention, 7*24*time.Hour)
	return c
}

func (c Config) leads() bool { return c.Node == nil || c.Node.Leads() }

// nodes returns how the nodes stand; nil if there is one.
func (c Config) nodes() []NodeState {
	if c.Node == nil {
		return nil
	}
	return c.Node.State()
}

func (c Config) validate() error {
	switch {
	case !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, "{} ?#"):
		return fmt.Errorf("Path %q: use a plain path that begins with /", c.Path)
	case c.MaxBodySize < 0 || c.MaxBodySize > maxBodySizeLimit:
		return fmt.Errorf("MaxBodySize %d: use at most %d bytes", c.MaxBodySize, maxBodySizeLimit)
	case c.MaxInput < 0 || c.MaxInput > maxBodySizeLimit:
		return fmt.Errorf("MaxInput %d: use at most %d bytes", c.MaxInput, maxBodySizeLimit)
	case c.Tolerance < 0, c.CallbackTimeout < 0, c.CallbackWindow < 0, c.Retention < 0:
		return errors.New("Tolerance, CallbackTimeout, CallbackWindow and Retention: a duration cannot be negative")
	case c.PayloadRetention < 0 && c.PayloadRetention != KeepNoPayloads:
		return fmt.Errorf("PayloadRetention %s: a duration cannot be negative; use KeepNoPayloads to keep none", c.PayloadRetention)
	case c.Node != nil && c.Replica != "":
		return errors.New("Replica: several nodes ship nothing, so far: leave it out")
	}
	return nil
}

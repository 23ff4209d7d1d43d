package hooks

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"modernc.org/sqlite"

	"github.com/pocketriver/pocketriver/hooks/internal/apptest"
)

// A node is one of several servers that share one database, each with hooks, caches and an
// auxiliary.db of its own: what another one writes, its hooks don't hear of. It can commit while
// it leads only, as one with a log can.
type node struct {
	*testServer
	leads   atomic.Bool
	states  atomic.Pointer[[]NodeState] // how the nodes stand, if a test says so
	lead    func()                      // what its plugin is to be told
	refused atomic.Int32                // commits
}

func (n *node) Leads() bool { return n.leads.Load() }

func (n *node) OnLead(lead func()) { n.lead = lead }

// LocalJob has nothing to do: all jobs run on each node.
func (n *node) LocalJob(string) {}

// Secret has nothing to do: there is one configuration.
func (n *node) Secret(string, string) {}

// Applied returns an app of which no hook runs.
func (n *node) Applied() core.App { return core.NewBaseApp(core.BaseAppConfig{}) }

func (n *node) Position() string { return "test-1" }

func (n *node) State() []NodeState {
	if states := n.states.Load(); states != nil {
		return *states
	}
	return nil
}

// A cluster makes nodes of one database, that of the first.
type cluster struct{ path string }

// newNode returns a node that serves. Its own requests and callbacks have its name in a header.
func (c *cluster) newNode(t *testing.T, name string, leads bool, config Config) *node {
	t.Helper()
	n := &node{}
	n.leads.Store(true) // while its app is made
	app := apptest.NewAppConnected(t, func(path string) (*dbx.DB, error) {
		if filepath.Base(path) != "data.db" {
			return core.DefaultDBConnect(path)
		}
		if c.path == "" {
			c.path = path
		}
		return dbx.NewFromDB(sql.OpenDB(nodeConnector{n, c.path}), "sqlite"), nil
	})
	app.Settings().Logs.MaxDays = 5
	config.HTTPClient = &http.Client{Transport: named(name)}
	config.Node = n
	p, err := newPlugin(app, config)
	if err != nil {
		t.Fatal(err)
	}
	p.bind()
	n.leads.Store(leads)
	if leads {
		n.lead()
	}
	n.testServer = serve(t, app, p)
	return n
}

// takeOver has the node lead instead of another one.
func (n *node) takeOver(from *node) {
	from.leads.Store(false)
	n.leads.Store(true)
	n.lead()
}

// named is a transport whose requests say whose they are.
type named string

func (name named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Node", string(name))
	return http.DefaultTransport.RoundTrip(r)
}

// from returns what the node sent of it.
func from(name string, received []receivedRequest) (own []receivedRequest) {
	for _, r := range received {
		if r.header.Get("X-Node") == name {
			own = append(own, r)
		}
	}
	return own
}

type nodeConnector struct {
	node *node
	path string
}

func (c nodeConnector) Driver() driver.Driver { return &sqlite.Driver{} }

func (c nodeConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(ON)")
	if err != nil {
		return nil, err
	}
	conn.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
		if c.node.leads.Load() {
			return 0
		}
		c.node.refused.Add(1)
		return 1
	})
	return conn, nil
}

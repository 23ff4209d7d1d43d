package replica

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"

	"github.com/pocketriver/pocketriver/hooks/internal/called"
)

// sqlPath is where the node that leads takes what commands do to the database, over a connection that is upgraded to
// this protocol: a gob of each request, and one of the answer to it.
const (
	sqlPath     = "/sql"
	sqlProtocol = "replica-sql"
)

// commandWait is how long a command waits for a node that leads: longer than an election takes.
const commandWait = 12 * time.Second

var (
	errServes = errors.New("this process is a command, which has no log: call the command that serves serve, or register the node without rootCmd")
	errBackup = errors.New("a command has no database of its own to back up: have a server do it, in the dashboard or by POST /api/backups")
)

// isCommand reports whether this process is one beside the servers of several nodes. It is asked first when the database is
// opened, when all commands are there.
func (n *Node) isCommand() bool { return n.several() && n.command() }

// findCommand is for one goroutine: what looks for a command changes it.
func (n *Node) findCommand() bool {
	return n.rootCmd.Load() != nil && called.Name(n.rootCmd.Load()) != "serve"
}

// connectLeader returns the database as the node that leads has it, and opens nothing here.
func (n *Node) connectLeader() (*dbx.DB, error) {
	p, err := newPeer(n.log.config)
	if err != nil {
		return nil, err
	}
	return dbx.NewFromDB(sql.OpenDB(leaderConnector{p}), "sqlite"), nil
}

type leaderConnector struct{ peer *peer }

func (c leaderConnector) Driver() driver.Driver { return sqliteDriver() }

// Connect waits for a node that leads, but not for long.
func (c leaderConnector) Connect(ctx context.Context) (driver.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	for {
		leader, err := c.peer.leader()
		var stream io.ReadWriteCloser
		if err == nil {
			stream, err = c.peer.openSQL(wait, leader)
		}
		if err == nil {
			return &leaderConn{peer: c.peer, leader: leader, stream: stream, out: gob.NewEncoder(stream), in: gob.NewDecoder(stream)}, nil
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%w: %w: see that the servers of most of the nodes run (%s), and try again:\n%w",
				ErrUnavailable, errNoLeader, strings.Join(slices.Sorted(maps.Keys(c.peer.config.Peers)), ", "), err)
		case <-time.After(10 * lookPause):
		}
	}
}

// leader asks all nodes who leads.
func (p *peer) leader() (string, error) {
	return p.first(slices.Collect(maps.Keys(p.config.Peers)), func(name string) error {
		state, err := p.state(name)
		if err == nil && !state.Leads {
			err = errMissed
		}
		return err
	})
}

// openSQL opens a connection of a node's database.
func (p *peer) openSQL(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	response, err := p.ask(ctx, name, sqlPath, http.Header{"Connection": {"Upgrade"}, "Upgrade": {sqlProtocol}})
	if err != nil {
		return nil, err
	}
	stream, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		response.Body.Close()
		return nil, fmt.Errorf("the node %s answers %s", name, response.Status)
	}
	return stream, nil
}

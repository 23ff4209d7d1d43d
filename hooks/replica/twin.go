package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
)

// A twin is another process that runs as a node of the same name: a machine that was replaced and is switched on again, or a copy of
// one. The log's servers take both for one, whose disk has what either of them has confirmed. Which one is the node, the others
// tell: the one that answers at the address that they have for it. If none answers there, nobody knows of two.

// processPath is where a node tells which process it is, and processHeader has that of a node that asks.
const (
	processPath   = "/process"
	processHeader = "Replica-Process"
)

var errTwin = errors.New("another machine is the node")

// twinOf says what helps where the node answers at an address, and is another process than this one.
func (c Config) twinOf(address string) error {
	return fmt.Errorf("%w %s, at %s: leave this one off, or, if it is to be the node again, stop that one, delete this one's data directory, and set its address in %s of all nodes",
		errTwin, c.Node, address, peersVariable)
}

// processOf asks which process is a node. It takes no other node's answer, and none that isn't here soon: who may be a twin is asked about again.
func (p *peer) processOf(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	response, err := p.ask(ctx, name, processPath, nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if is := nameOf(response.TLS); is != name {
		return "", fmt.Errorf("at the address of the node %s answers the node %s", name, is)
	}
	process, err := io.ReadAll(io.LimitReader(response.Body, maxMessage))
	return string(process), err
}

// twin returns the address at which the node of a name is another process than the one that says to be it, or "" if that isn't certain. A
// command of the node has its name, and says no process.
func (n *Node) twin(ctx context.Context, name, process string) string {
	if process == "" {
		return ""
	}
	if is, err := n.peer.processOf(ctx, name); err != nil || is == process {
		return ""
	}
	return n.log.config.Peers[name]
}

// An admission decides which process gets into the log as a node.
type admission func(name, process string, from net.Addr) bool

// Check is what the log's server asks before it takes anything from one that connects.
func (a admission) Check(c server.ClientAuthentication) bool {
	return a(nameOf(c.GetTLSConnectionState()), c.GetOpts().Username, c.RemoteAddress())
}

// admits turns twins away. They are told why when they ask how this node stands.
func (n *Node) admits(name, process string, from net.Addr) bool {
	address := n.twin(context.Background(), name, process)
	if address != "" && n.turnedAway.Swap(process) != process { // it connects again and again
		n.logger().Warn("A machine is turned away that says it is a node, which is another one", "node", name, "from", from, "is", address)
	}
	return address == ""
}

// twinPath returns the path of the file that has the address of the twin, if there was one: what that has confirmed in the node's name, this
// disk may never have, also when the twin is off.
func twinPath(path string) string { return filepath.Join(path+logSuffix, "twin") }

// mustBeOne fails if another machine is this node, or was.
func (n *Node) mustBeOne(path string) error {
	address, err := os.ReadFile(twinPath(path))
	if err == nil {
		return n.log.config.twinOf(string(address))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if address := n.askOthers(context.Background(), n.peer); address != "" {
		return n.hasTwin(path, address)
	}
	return nil
}

// hasTwin has no start make a node of what is at path, and returns why.
func (n *Node) hasTwin(path, address string) error {
	err := n.log.config.twinOf(address)
	if hasBegun(path + logSuffix) {
		err = errors.Join(err, writeMark(twinPath(path), address))
	}
	return err
}

// giveWay ends this node's part in the log, and the server, which doesn't start again then.
func (n *Node) giveWay(address string) {
	n.condemned.Store(true)
	n.ready.Store(false)
	n.logger().Error("This node ends", "because", n.hasTwin(n.path, address))
	n.restartApp()
}

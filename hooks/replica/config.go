package replica

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Config says which nodes there are. The zero Config is one node, which needs none of it.
type Config struct {
	// Node is the name of this node, and Peers has the address, as host:port, at which each node is reached
	// by the others, by its name: this one's too. There are three or five. The port after that is used as well.
	Node  string
	Peers map[string]string

	// Listen is the address, as host:port, at which this node listens for the others. Empty is its address in Peers.
	Listen string

	// Certs is this node's folder of certificates, as [WriteCerts] makes them.
	Certs string

	// Same has what must be the same on all nodes, by what it is called: the program's version, and the hashes of folders, as
	// [HashFiles] returns them. Nodes that differ in it, in the names of their peers, in the key that settings are encrypted
	// with or in what their clocks say tell so, in their logs and by [Node.State].
	Same map[string]string

	// LocalJobs are the ids of cron jobs that run on every node, and not only on the one that leads: those for what a node
	// has of its own, as in its files.
	LocalJobs []string
}

func (c Config) several() bool { return len(c.Peers) > 0 }

// check completes a configuration.
func (c Config) check() (Config, error) {
	if !c.several() {
		if c.Node != "" || c.Listen != "" || c.Certs != "" || len(c.Same) > 0 || len(c.LocalJobs) > 0 {
			return c, errors.New("a node has a name, an address, certificates, what is the same or jobs, and no peers: name them, or leave all of it out")
		}
		return c, nil
	}
	if c.Listen == "" {
		c.Listen = c.Peers[c.Node]
	}
	switch {
	case len(c.Peers) != 3 && len(c.Peers) != 5:
		return c, fmt.Errorf("there are %d nodes: three or five can be one, with this one among them", len(c.Peers))
	case c.Peers[c.Node] == "":
		return c, fmt.Errorf("the node %q is none of its peers: %s", c.Node, strings.Join(slices.Sorted(maps.Keys(c.Peers)), ", "))
	case c.Certs == "":
		return c, errors.New("several nodes need certificates: replica.WriteCerts makes them")
	}
	has := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		address := c.Peers[name]
		next, err := peerAddress(address)
		if err != nil {
			return c, fmt.Errorf("the address %q of the node %q: %w", address, name, err)
		}
		for _, address := range []string{address, next} {
			if other := has[address]; other != "" {
				return c, fmt.Errorf("the nodes %q and %q have %s: a node has the port of its address and the next one", other, name, address)
			}
			has[address] = name
		}
		if strings.ContainsAny(name, " .*>") {
			return c, fmt.Errorf("the node's name %q has a space, a dot, * or >", name)
		}
	}
	_, err := loadCerts(c.Certs)
	return c, err
}

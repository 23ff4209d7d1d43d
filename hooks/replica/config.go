package replica

import (
	"crypto/x509"
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
	// [HashFiles] returns them. Nodes that differ in it, in the names of their peers, in a [Node.Secret] or in
	// what their clocks say tell so, in their logs and by [Node.State].
	Same map[string]string
}

func (c Config) several() bool { return len(c.Peers) > 0 }

// check completes a configuration.
func (c Config) check() (Config, error) {
	if !c.several() {
		if c.Node != "" || c.Listen != "" || c.Certs != "" || len(c.Same) > 0 {
			return c, errors.New("a node has a name, an address, certificates or what is the same, and no peers: name them, or leave all of it out")
		}
		return c, nil
	}
	if c.Listen == "" {
		c.Listen = c.Peers[c.Node]
	}
	names := slices.Sorted(maps.Keys(c.Peers))
	if err := checkNames(names); err != nil {
		return c, err
	}
	switch {
	case c.Peers[c.Node] == "":
		return c, fmt.Errorf("the node %q is none of its peers, which are %s: name it as it's called there", c.Node, strings.Join(names, ", "))
	case c.Certs == "":
		return c, errors.New(`several nodes need certificates: "cluster certs" makes them`)
	}
	has := map[string]string{}
	for _, name := range names {
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
	}
	if _, err := peerAddress(c.Listen); err != nil {
		return c, fmt.Errorf("the address %q to listen at: %w", c.Listen, err)
	}
	certs, err := loadCerts(c.Certs)
	if err != nil {
		return c, err
	}
	cert := certs.Certificates[0].Leaf
	if name := cert.Subject.CommonName; name != c.Node {
		return c, fmt.Errorf("the certificates in %s are those of the node %q, and this is %q: each node has its own", c.Certs, name, c.Node)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: certs.RootCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return c, fmt.Errorf("no node takes the certificate in %s: %w: see that its CA is in %s there, and that the clock is right, or make new ones for all nodes by \"cluster certs\"", c.Certs, err, caFile)
	}
	return c, nil
}

// checkNames refuses nodes that can't be so many, or that can't be called so: names are those of folders and of the log's servers, too.
func checkNames(names []string) error {
	if len(names) != 3 && len(names) != 5 {
		return fmt.Errorf("there are %d nodes: name three or five, with this one among them", len(names))
	}
	for i, name := range names {
		if name == "" || strings.ContainsFunc(name, isNoName) {
			return fmt.Errorf("the node's name %q: use letters, digits, - and _", name)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("the node %q is there twice: give each a name of its own", name)
		}
	}
	return nil
}

func isNoName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
}

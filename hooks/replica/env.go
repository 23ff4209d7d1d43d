package replica

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The variables of a node, and what one looks like that names all of them.
const (
	nodeVariable   = "POCKETRIVER_NODE"
	peersVariable  = "POCKETRIVER_PEERS"
	listenVariable = "POCKETRIVER_LISTEN"
	certsVariable  = "POCKETRIVER_CERTS"

	examplePeers = "a=10.0.0.1:8100,b=10.0.0.2:8100,c=10.0.0.3:8100"
)

// ConfigFromEnv returns the configuration that the environment has, as the pocketriver binary reads it: POCKETRIVER_NODE
// is the name of this node; POCKETRIVER_PEERS has the addresses of all, as in
// a=10.0.0.1:8100,b=10.0.0.2:8100,c=10.0.0.3:8100; POCKETRIVER_LISTEN is where this one listens for the others, if
// that isn't its address there; and POCKETRIVER_CERTS is its folder of certificates, by default certs/NAME beside the data
// directory. Where none of them is set, the app is no node: Node is empty then, and there is nothing to open.
func ConfigFromEnv(dataDir string) (Config, error) {
	value := func(variable string) string { return strings.TrimSpace(os.Getenv(variable)) }
	config := Config{Node: value(nodeVariable), Listen: value(listenVariable), Certs: value(certsVariable)}
	peers := value(peersVariable)
	if config.Node == "" {
		for _, variable := range []string{peersVariable, listenVariable, certsVariable} {
			if value(variable) != "" {
				return Config{}, fmt.Errorf("%s is set, and %s isn't: set that to the name of this node, or unset %s", variable, nodeVariable, variable)
			}
		}
		return Config{}, nil
	}
	if peers == "" {
		return Config{}, fmt.Errorf("%s is set, and %s isn't: set that to the addresses of all nodes, as in %s, or unset %s", nodeVariable, peersVariable, examplePeers, nodeVariable)
	}
	var err error
	if config.Peers, err = parsePeers(peers); err != nil {
		return Config{}, fmt.Errorf("%s: %w", peersVariable, err)
	}
	if config.Certs == "" {
		config.Certs = filepath.Join(certsDir(dataDir), config.Node)
	}
	if _, err := config.check(); err != nil {
		return Config{}, fmt.Errorf("%s and %s: %w", nodeVariable, peersVariable, err)
	}
	return config, nil
}

// certsDir is where a node looks for its folder of certificates, by its name.
func certsDir(dataDir string) string {
	return filepath.Join(filepath.Dir(filepath.Clean(dataDir)), "certs")
}

func parsePeers(text string) (map[string]string, error) {
	peers := map[string]string{}
	for peer := range strings.SplitSeq(text, ",") {
		name, address, ok := strings.Cut(peer, "=")
		name, address = strings.TrimSpace(name), strings.TrimSpace(address)
		switch {
		case !ok || name == "" || address == "" || strings.Contains(address, "="): // as where spaces are between them
			return nil, fmt.Errorf("%q is no node with its address: write them as in %s", strings.TrimSpace(peer), examplePeers)
		case peers[name] != "":
			return nil, fmt.Errorf("the node %q is there twice: give each a name of its own", name)
		}
		peers[name] = address
	}
	return peers, nil
}

// Package nodes has what one of several nodes that share a database tells of all of them.
package nodes

import (
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
)

// A State is how a node stands, as the one that tells it has heard last.
type State struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Here    bool   `json:"here"`    // it is the node that tells this
	Reached bool   `json:"reached"` // it answers; if not, what follows is the last it told
	Leads   bool   `json:"leads"`

	// Position is how far its database has come in the log, Behind how many entries that is behind the node that
	// has most, and LagSeconds how long ago it had all of the log.
	Position   uint64  `json:"position"`
	Behind     uint64  `json:"behind"`
	LagSeconds float64 `json:"lagSeconds"`

	// ClockSeconds is what its clock is ahead of that of the node that tells this; less than 0 if it is behind.
	ClockSeconds float64 `json:"clockSeconds"`

	// Same is what must be the same on all nodes, as this one has it, by what it is called. Differs tells in words what
	// is not as on the node that tells this, the clock too.
	Same    map[string]string `json:"same"`
	Differs []string          `json:"differs"`
}

// lagShown is from how many seconds on a node is said to lag: followers ask each second how far the log is.
const lagShown = 5

// Lag tells in words how far behind a node is; it is empty unless that is further than each is from time to time.
func (s *State) Lag() string {
	if s.LagSeconds < lagShown {
		return ""
	}
	lag := (time.Duration(s.LagSeconds) * time.Second).String() + " behind"
	if s.Behind > 0 {
		lag = english.Plural(int(s.Behind), "entry", "entries") + " and " + lag
	}
	return lag
}

// Role tells in a word what the node does.
func (s *State) Role() string {
	switch {
	case !s.Reached:
		return "lost"
	case s.Leads:
		return "leads"
	}
	return "follows"
}

// InWords tells in one line what is to be known of a node beside its role.
func (s *State) InWords() string {
	words := []string{s.Address}
	if lag := s.Lag(); lag != "" {
		words = append(words, lag)
	}
	return strings.Join(append(words, s.Differs...), "; ")
}

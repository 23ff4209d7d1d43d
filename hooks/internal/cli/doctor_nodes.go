package cli

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize/english"
)

// checkNodes finds out whether each of several nodes is there, has all, and is like this one.
func (c *commands) checkNodes() (findings []Finding) {
	states := c.options.Nodes()
	if len(states) == 0 {
		return nil
	}
	add := func(g grade, text, remedy string) { findings = append(findings, Finding{"nodes", g, text, remedy}) }
	leader := ""
	for _, n := range states {
		if n.Leads {
			leader = n.Name
		}
		if !n.Reached {
			add(gradeWarning, fmt.Sprintf("%s does not answer at %s", n.Name, n.Address),
				"The others go on while most of the nodes reach each other. See whether its server runs, and what its log says.")
			continue
		}
		if lag := n.Lag(); lag != "" {
			add(gradeWarning, fmt.Sprintf("%s is %s", n.Name, lag), "It shows what was until then. If that doesn't pass, see what its log says.")
		}
		if len(n.Differs) > 0 {
			than := "this node"
			if n.Here {
				than = "most of the others"
			}
			add(gradeWarning, fmt.Sprintf("%s is not as %s: %s", n.Name, than, strings.Join(n.Differs, "; ")),
				"What becomes of a request depends on which node leads. Give all nodes the same programs, files and settings, and set their clocks.")
		}
	}
	if leader == "" {
		add(gradeProblem, "none leads, so that nothing can be stored", "Webhooks are answered 503 until most of the nodes run and reach each other.")
	}
	if len(findings) == 0 {
		add(gradeOK, fmt.Sprintf("%s, all alike; %s leads", english.Plural(len(states), "node", ""), leader), "")
	}
	return findings
}

package tests

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Whoever looks at one node sees how all stand: in the terminal, on the dashboard's page and in the metrics.
func TestNodesAreSeen(t *testing.T) {
	t.Parallel()
	const token = "a-token-for-metrics"
	axe := repositoryFile(t, "node_modules/axe-core/axe.min.js")
	c := newCluster(t)
	for _, n := range c.nodes {
		n.env = append(n.env, "MODELRIVER_METRICS_TOKEN="+token)
	}
	c.start()
	sees := func(what string, parts ...string) {
		t.Helper()
		await(t, what, func() bool {
			request, _ := http.NewRequest(http.MethodGet, c.nodes[0].URL+"/api/modelriver/metrics", nil)
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return false
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			for _, part := range parts {
				if !strings.Contains(string(body), part+"\n") {
					return false
				}
			}
			return true
		})
	}
	sees("all nodes are well", `modelriver_node_reached{node="a"} 1`, `modelriver_node_reached{node="b"} 1`, `modelriver_node_reached{node="c"} 1`,
		`modelriver_node_differences{node="a"} 0`, `modelriver_node_differences{node="b"} 0`, `modelriver_node_differences{node="c"} 0`)
	leader := c.leader()
	p := openDashboard(t, c.nodes[0])
	nodes := `[...document.querySelectorAll(".modelriver-facts div")].find((f) => f.firstChild.textContent === "Nodes")?.lastChild.textContent`
	roles := []string{"a (this node) follows", "b follows", "c follows"}
	roles[leader] = strings.Replace(roles[leader], "follows", "leads", 1)
	p.Wait(nodes + ` === "` + strings.Join(roles, "; ") + `"`)
	checkDashboard(p, axe, "nodes")

	// A node that has other migrations, and another key: the command finds those beside its own data, and in its environment.
	other := c.nodes[2]
	other.Stop()
	writeBeside(t, other.Dir, "pb_migrations/notes.txt", "one more file")
	env := other.env
	other.env = append(slices.Clone(env), "MODELRIVER_API_KEY=another-key")
	other.Start()
	sees("one differs", `modelriver_node_reached{node="c"} 1`, `modelriver_node_differences{node="b"} 0`, `modelriver_node_differences{node="c"} 2`)
	p.Wait(nodes + `.endsWith(", not as this node")`)
	p.Wait(`document.querySelector(".modelriver-findings")?.innerText.includes("Warning: nodes – c is not as this node: its pb_migrations is ")`)
	checkDashboard(p, axe, "nodes-differ")
	await(t, "the status is told", func() bool {
		out, _, ok := c.run(2, "modelriver", "status")
		return ok && strings.Contains(out, "\nnode a") && strings.Contains(out, "; its pb_migrations is none, and here ") && strings.Count(out, "pb_migrations") == 2 &&
			strings.Count(out, "its ModelRiver key is another one") == 2
	})
	other.env = append(env, "MODELRIVER_API_KEY=")
	if out, _, _ := c.run(2, "modelriver", "status"); strings.Contains(out, "another one") {
		t.Errorf("a command that has no key compares it: %s", out)
	}

	other.Kill()
	sees("one is lost", `modelriver_node_reached{node="c"} 0`, `modelriver_node_leads{node="c"} 0`)
	p.Wait(nodes + `.endsWith("c does not answer")`)
	p.Wait(`document.querySelector(".modelriver-findings")?.innerText.includes("Warning: nodes – c does not answer at 127.0.0.1:")`)
	checkDashboard(p, axe, "nodes-lost")
	await(t, "the status is told", func() bool {
		out, _, ok := c.run(0, "modelriver", "status")
		return ok && strings.Contains(out, "lost     127.0.0.1:")
	})
}

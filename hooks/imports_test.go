package hooks_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// An app of one node doesn't link the server of a log of several, which the binary has.
func TestOneNodeLinksNoLog(t *testing.T) {
	t.Parallel()
	const module = "github.com/pocketriver/pocketriver"
	for room, links := range map[string]bool{"": true, "/hooks": false, "/hooks/replica": true} {
		out, err := exec.Command("go", "list", "-deps", module+room).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), "github.com/nats-io/"); got != links {
			t.Errorf("%s links NATS: %v", module+room, got)
		}
	}
}

// Imports point one way: each package may import these of the module's, and no others.
func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	const module = "github.com/pocketriver/pocketriver"
	allowed := map[string]string{
		"":                         "hooks hooks/replica migrations",
		"hooks":                    "hooks/internal/cli hooks/internal/commit hooks/internal/nodes hooks/internal/outbox hooks/internal/prepared hooks/internal/rawjson hooks/internal/realtime hooks/internal/recovery hooks/internal/store hooks/modelriver migrations pb_public",
		"hooks/internal/called":    "",
		"hooks/internal/cli":       "hooks/internal/disk hooks/internal/nodes hooks/internal/recovery hooks/internal/simulator hooks/internal/store hooks/modelriver",
		"hooks/internal/commit":    "",
		"hooks/internal/disk":      "",
		"hooks/internal/nodes":     "",
		"hooks/internal/outbox":    "hooks/internal/commit hooks/internal/store hooks/modelriver",
		"hooks/internal/prepared":  "",
		"hooks/internal/rawjson":   "",
		"hooks/internal/realtime":  "",
		"hooks/internal/recovery":  "hooks/internal/called hooks/internal/disk",
		"hooks/internal/simulator": "hooks/internal/rawjson hooks/modelriver",
		"hooks/internal/store":     "hooks/internal/commit hooks/internal/rawjson hooks/modelriver migrations",
		"hooks/modelriver":         "hooks/internal/rawjson",
		"hooks/replica":            "hooks/internal/called hooks/internal/disk hooks/internal/nodes hooks/internal/prepared",
		"migrations":               "hooks/internal/rawjson",
		"pb_public":                "",
		"hooks/internal/apptest":   "",
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		imports := strings.Fields(line)
		room := strings.Trim(strings.TrimPrefix(imports[0], module), "/")
		if strings.HasPrefix(room, "tests") { // which attack from outside
			continue
		}
		may, known := allowed[room]
		if !known {
			t.Errorf("%s is not on the map: say what it may import", room)
		}
		for _, path := range imports[1:] {
			target, ours := strings.CutPrefix(path, module+"/")
			if ours && !slices.Contains(strings.Fields(may), target) {
				t.Errorf("%s imports %s", room, target)
			}
		}
	}
}

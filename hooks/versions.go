package hooks

import (
	"runtime/debug"
	"strings"

	"github.com/pocketbase/pocketbase"
	"github.com/spf13/cobra"
)

const modulePath = "github.com/pocketriver/pocketriver"

// versions are what an operator names in a question.
type versions struct {
	PocketRiver string `json:"pocketriver"`
	PocketBase  string `json:"pocketbase"`
}

// readVersions returns the plugin's version, of the binary what its build has set, and
// PocketBase's.
func readVersions(rootCmd *cobra.Command) versions {
	version := builtWith(modulePath)
	if version == "" && rootCmd != nil { // the binary itself, or its test
		version, _, _ = strings.Cut(rootCmd.Version, " (PocketBase ")
	}
	return versions{PocketRiver: version, PocketBase: PocketBaseVersion()}
}

// PocketBaseVersion returns the version of PocketBase that the app is built with:
// pocketbase.Version is set in PocketBase's own builds only.
func PocketBaseVersion() string {
	if version := builtWith("github.com/pocketbase/pocketbase"); version != "" {
		return version
	}
	return pocketbase.Version
}

// builtWith returns the version of a module that the app depends on, or nothing.
func builtWith(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range info.Deps {
		if module.Path == path {
			if module.Replace != nil {
				module = module.Replace
			}
			return module.Version
		}
	}
	return ""
}

// Package called tells what this process was started for.
package called

import (
	"os"

	"github.com/spf13/cobra"
)

// Name returns the name of the command that was called, if it is one right under rootCmd. Only serve serves.
func Name(rootCmd *cobra.Command) string {
	if rootCmd == nil {
		return ""
	}
	command, _, err := rootCmd.Find(os.Args[1:])
	if err != nil || command.Parent() != rootCmd {
		return ""
	}
	return command.Name()
}

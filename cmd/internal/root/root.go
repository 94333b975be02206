// Package root is the whole tree of commands of wherry, apart from the program
// that runs it: manual pages and completions are made of the same tree.
package root

import (
	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/ctl"
	"github.com/wherry-run/wherry/cmd/internal/daemon"
	"github.com/wherry-run/wherry/cmd/internal/term"
)

// New is the command `wherry` of a version.
func New(version string) *cobra.Command {
	cobra.EnableCommandSorting = false // the tables are in the order of use
	c := &cobra.Command{
		Use:   "wherry",
		Short: "Run containers on one host and keep them running",
		Example: `  sudo wherry daemon               keep units running
  wherry ctl status                what runs, and why something does not
  wherry ctl apply web.yaml        make web what the file says`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.AddCommand(daemon.Command(version), daemon.KeeperCommand(), ctl.Command(daemon.Look(version)), versionCommand(version))
	c.SetHelpTemplate(term.HelpTemplate)
	return c
}

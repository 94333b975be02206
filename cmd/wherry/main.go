// Command wherry is the daemon and the command line that talks to it.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/ctl"
	"github.com/wherry-run/wherry/cmd/internal/daemon"
	"github.com/wherry-run/wherry/cmd/internal/term"
)

// version is set by the build: -ldflags "-X main.version=...".
var version string

func main() { os.Exit(run()) }

func run() int {
	err := term.Execute(newRoot())
	return term.Report(term.Open(os.Stderr, os.Getenv), err)
}

func newRoot() *cobra.Command {
	cobra.EnableCommandSorting = false // the tables are in the order of use
	root := &cobra.Command{
		Use:   "wherry",
		Short: "Run containers on one host and keep them running",
		Example: `  sudo wherry daemon               keep units running
  wherry ctl status                what runs, and why something does not
  wherry ctl apply web.yaml        make web what the file says`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(daemon.Command(versionText()), daemon.KeeperCommand(), ctl.Command(), versionCommand())
	root.SetHelpTemplate(term.HelpTemplate)
	return root
}

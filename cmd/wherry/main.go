// Command wherry is the daemon and the command line that talks to it.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/root"
	"github.com/wherry-run/wherry/cmd/internal/term"
	build "github.com/wherry-run/wherry/cmd/internal/version"
)

// version is set by the build: -ldflags "-X main.version=...".
var version string

func main() { os.Exit(run()) }

func run() int {
	err := term.Execute(newRoot())
	return term.Report(term.Open(os.Stderr, os.Getenv), err)
}

func newRoot() *cobra.Command { return root.New(build.Text(version)) }

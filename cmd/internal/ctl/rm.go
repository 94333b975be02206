package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func rmCommand(a *app) *cobra.Command {
	var f actFlags
	var yes, force, glob bool
	c := &cobra.Command{
		Use:   "rm UNIT...",
		Short: "Stop units and forget them, with their output and writable layers",
		Example: `  wherry ctl rm web
  wherry ctl rm --glob 'test-*'
  wherry ctl rm -f $(wherry ctl ps -aq)`,
		Long:              "Takes exact names, or with --glob patterns. -f kills what runs instead of stopping it, and does not ask.",
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Remove %s?", strings.Join(args, ", "))
			if f.all {
				question = "Remove all units?"
			}
			if err := a.confirm(yes || force, question); err != nil {
				return err
			}
			r.Glob, r.Force = glob, force
			return a.act(c.Context(), "remove", r, a.client().Remove)
		},
	}
	f.add(c, "all units", "")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&force, "force", "f", false, "kill what runs; implies --yes")
	c.Flags().BoolVar(&glob, "glob", false, "the names are patterns")
	return c
}

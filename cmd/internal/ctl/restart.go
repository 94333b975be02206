package ctl

import "github.com/spf13/cobra"

func restartCommand(a *app) *cobra.Command {
	var f actFlags
	c := &cobra.Command{
		Use:   "restart UNIT...",
		Short: "Replace the units' runs by new ones",
		Example: `  wherry ctl restart web
  wherry ctl restart --all --no-wait`,
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			return a.act(c.Context(), "restart", r, a.client().Restart)
		},
	}
	f.add(c, "all units", "how long to wait")
	return c
}

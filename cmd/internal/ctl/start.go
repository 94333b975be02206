package ctl

import "github.com/spf13/cobra"

func startCommand(a *app) *cobra.Command {
	var f actFlags
	c := &cobra.Command{
		Use:   "start UNIT...",
		Short: "Start stopped units and wait until they run",
		Example: `  wherry ctl start web
  wherry ctl start 'web-*' --timeout 1m
  wherry ctl start --all`,
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			return a.act(c.Context(), "start", r, a.client().Start)
		},
	}
	f.add(c, "all units", "how long to wait")
	return c
}

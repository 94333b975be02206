package ctl

import "github.com/spf13/cobra"

func stopCommand(a *app) *cobra.Command {
	var f actFlags
	var yes bool
	c := &cobra.Command{
		Use:   "stop UNIT...",
		Short: "Stop units; they stay stopped, also after a reboot",
		Example: `  wherry ctl stop web
  wherry ctl stop web --timeout 2s
  wherry ctl stop --all --yes`,
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			if r.All {
				if err := a.confirm(yes, "Stop all units?"); err != nil {
					return err
				}
			}
			return a.act(c.Context(), "stop", r, a.client().Stop)
		},
	}
	f.add(c, "all units", "kill after this time, instead of the unit's stop_grace_period")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

package ctl

import "github.com/spf13/cobra"

func reloadCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "reload",
		Short:   "Make the daemon read wherry.yaml again",
		Example: `  wherry ctl reload`,
		Long:    "An invalid file changes nothing. Prints what is applied and what needs a restart of the daemon.",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.client().Reload(c.Context())
			if err != nil {
				return a.cannot("reload", "", err)
			}
			for _, key := range r.Applied {
				if err := a.print("applied: %s\n", key); err != nil {
					return err
				}
			}
			for _, key := range r.NeedsRestart {
				if err := a.print("needs a restart of the daemon: %s\n", key); err != nil {
					return err
				}
			}
			if len(r.Applied)+len(r.NeedsRestart) == 0 {
				return a.print("nothing has changed\n")
			}
			return nil
		},
	}
}

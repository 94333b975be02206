package ctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/supervisor/api"
)

func pauseCommand(a *app) *cobra.Command {
	return a.targetsCommand("pause", "Freeze all processes of units, instances or containers",
		`  wherry ctl pause web
  wherry ctl pause web.1`, func(ctx context.Context, targets []string) ([]string, error) {
			return a.client().Pause(ctx, targets...)
		})
}

func resumeCommand(a *app) *cobra.Command {
	c := a.targetsCommand("resume", "Let what is paused go on",
		`  wherry ctl resume web`, func(ctx context.Context, targets []string) ([]string, error) {
			return a.client().Resume(ctx, targets...)
		})
	c.Aliases = []string{"unpause"}
	return c
}

func killCommand(a *app) *cobra.Command {
	var signal string
	c := a.targetsCommand("kill", "Send a signal to units, instances or containers",
		`  wherry ctl kill -s HUP web       reload
  wherry ctl kill web.1            SIGKILL; the unit heals it as after a crash`, func(ctx context.Context, targets []string) ([]string, error) {
			return a.client().Kill(ctx, api.KillRequest{TargetsRequest: api.TargetsRequest{Targets: targets}, Signal: signal})
		})
	c.Long = "What the unit should be stays as it is: see stop."
	c.Flags().StringVarP(&signal, "signal", "s", "SIGKILL", "the signal, by name or number")
	return c
}

// targetsCommand is a verb that does something to containers that run, and
// prints which.
func (a *app) targetsCommand(verb, short, example string, do func(context.Context, []string) ([]string, error)) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " UNIT|INSTANCE[/CONTAINER]...",
		Short:             short,
		Example:           example,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTargets,
		RunE: func(c *cobra.Command, args []string) error {
			names, err := do(c.Context(), args)
			if err != nil {
				return a.cannot(verb, strings.Join(args, " "), err)
			}
			return a.lines(names)
		},
	}
}

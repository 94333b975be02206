package ctl

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func waitCommand(a *app) *cobra.Command {
	var state string
	var timeout durationFlag
	c := &cobra.Command{
		Use:   "wait UNIT...",
		Short: "Wait for the end of units and print their exit codes",
		Example: `  wherry ctl wait migrate
  wherry ctl wait --for running --timeout 1m web
  wherry ctl wait --for stopped web db`,
		Long: `Waits until each unit has ended for good (no restart will follow) and prints
its exit code, 255 if nobody could see it. With --for, until all are in that
state. Ends with 124 when the time is up.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := watching(c.Context())
			defer stop()
			return a.wait(ctx, api.WaitRequest{Units: args, State: state, Timeout: unit.Duration(timeout)})
		},
	}
	c.Flags().StringVar(&state, "for", "", "a state, such as running or stopped, instead of the end")
	c.Flags().Var(&timeout, "timeout", "how long to wait; 0 is for ever")
	return c
}

func (a *app) wait(ctx context.Context, r api.WaitRequest) error {
	what := strings.Join(r.Units, " ")
	// One call a unit and end: their codes come as they end, in order.
	requests := []api.WaitRequest{r}
	if r.State == "" {
		requests = requests[:0]
		for _, u := range r.Units {
			requests = append(requests, api.WaitRequest{Units: []string{u}, Timeout: r.Timeout})
		}
	}
	deadline := time.Now().Add(time.Duration(r.Timeout))
	for n, r := range requests {
		if r.Timeout > 0 && n > 0 {
			r.Timeout = unit.Duration(max(time.Until(deadline), time.Millisecond))
		}
		res, err := a.client().Wait(ctx, r)
		if err != nil {
			return a.goesOn(a.cannot("wait for", what, err), "nothing is changed: %s goes on", what)
		}
		for _, w := range res.Units {
			if w.Exit == nil {
				continue
			}
			if w.Exit.Unknown {
				term.Warn(a.err, "nobody could see how "+w.Name+" ended")
			}
			if err := a.print("%d\n", exitCode(*w.Exit)); err != nil {
				return err
			}
		}
	}
	return nil
}

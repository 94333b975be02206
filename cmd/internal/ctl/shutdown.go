package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

const (
	// shutdownPatience is how much longer than its budget a shutdown is waited for: what is
	// killed needs a moment to end, and the daemon one to say so.
	shutdownPatience = 5 * time.Second

	// answerPatience is how long the daemon may take for the first answer. One that hangs must
	// not keep a host from going down.
	answerPatience = 10 * time.Second

	// fallbackBudget is that of a shutdown that no daemon sees to.
	fallbackBudget = time.Minute
)

func shutdownCommand(a *app) *cobra.Command {
	var budget durationFlag
	var ifStops, cancel bool
	c := &cobra.Command{
		Use:   "shutdown",
		Short: "Stop everything because the host goes down",
		Example: `  wherry ctl shutdown
  wherry ctl shutdown --budget 30s
  wherry ctl shutdown --cancel`,
		Long: `Stops all units, those that others depend on last, within the budget. Each level
gets a part of it; what has used up its own is killed and named. What units should
be does not change: they start again with the next daemon. Until then nothing is
started any more. To interrupt this command calls nothing off, --cancel does.

Prints the units as they have stopped. Fails if something could not be ended.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if cancel {
				if budget != 0 || ifStops {
					return term.Usage("--cancel goes with no other flag")
				}
				return a.cannot("call the shutdown off", "", a.client().CancelShutdown(c.Context()))
			}
			if !ifStops {
				return a.shutdown(c.Context(), time.Duration(budget))
			}
			if stops, err := hostStops(c.Context()); !stops {
				return err
			}
			return a.shutdownHost(c.Context(), time.Duration(budget))
		},
	}
	c.Flags().Var(&budget, "budget", "how long all of it may take (default: shutdown.budget of the daemon)")
	c.Flags().BoolVar(&ifStops, "if-host-stops", false, "do nothing unless systemd is stopping the host; end what runs if no daemon answers")
	c.Flags().BoolVar(&cancel, "cancel", false, "call it off: what was stopped starts again")
	return c
}

// shutdown asks the daemon for it and tells how it goes.
func (a *app) shutdown(ctx context.Context, budget time.Duration) error {
	ctx, stop := watching(ctx)
	defer stop()
	info, err := a.answering(ctx)
	if err != nil {
		return a.cannot("shut down", "", err)
	}
	if budget == 0 {
		budget = time.Duration(info.ShutdownBudget)
	}
	extendStop(budget + 2*shutdownPatience)
	limited, cancel := context.WithTimeoutCause(ctx, budget+shutdownPatience, errHangs)
	defer cancel()
	told := a.tellStops(limited, info.LastEvent)
	res, err := a.client().Shutdown(limited, api.ShutdownRequest{Budget: unit.Duration(budget)})
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = errHangs
	}
	if err != nil {
		return a.goesOn(a.cannot("shut down", "", err), "the shutdown goes on; `wherry ctl shutdown --cancel` calls it off")
	}
	cancel() // whoever tells has told all that is in the result, or it is told here
	already := <-told
	for _, name := range res.Stopped {
		if !slices.Contains(already, name) {
			if err := a.print("%s\n", name); err != nil {
				return err
			}
		}
	}
	for _, name := range res.Killed {
		a.note("%s did not end in its time, and was killed", name)
	}
	if len(res.Left) > 0 {
		return a.cannot("shut down", "", fmt.Errorf("still there: %v", res.Left))
	}
	return nil
}

var errHangs = errors.New("the daemon does not answer")

// answering is what the daemon says of itself, if it does so soon.
func (a *app) answering(ctx context.Context) (api.Info, error) {
	limited, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	info, err := a.client().Info(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = &api.UnreachableError{Socket: a.socket, Err: errHangs}
	}
	return info, err
}

// tellStops prints each unit when it has stopped, until ctx ends, and gives those it has
// told.
func (a *app) tellStops(ctx context.Context, since uint64) <-chan []string {
	done := make(chan []string, 1)
	go func() {
		var told []string
		for e, err := range a.client().Events(ctx, since, true) {
			if err != nil {
				break
			}
			if e.Type == api.EventShutdown && e.Unit != "" && e.Instance == "" {
				told = append(told, e.Unit)
				_ = a.print("%s\n", e.Unit)
			}
		}
		done <- told
	}()
	return done
}

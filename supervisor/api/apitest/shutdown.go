package apitest

import (
	"context"
	"slices"

	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
)

// Shutdown ends what runs, and says that all of it heeded its stop signal.
func (d *Daemon) Shutdown(_ context.Context, r api.ShutdownRequest, by string) (api.ShutdownResult, error) {
	res := api.ShutdownResult{Stopped: []string{}}
	for _, u := range d.Units() {
		if u.State == plan.StateRunning {
			res.Stopped = append(res.Stopped, u.Name)
		}
	}
	slices.Reverse(res.Stopped)
	if len(res.Stopped) == 0 {
		return res, nil
	}
	_, err := d.act("Shutdown", api.ActRequest{Units: slices.Clone(res.Stopped), Timeout: r.Budget}, by, func(u *pretended) {
		u.end(api.Exit{Code: 0, Cause: "host shutdown"})
		u.State = plan.StateStopped
	})
	return res, err
}

// CancelShutdown does nothing.
func (d *Daemon) CancelShutdown(context.Context, string) error { return nil }

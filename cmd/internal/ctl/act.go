package ctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// actFlags are what start, stop, restart and rm have in common.
type actFlags struct {
	all, noWait bool
	timeout     durationFlag
}

func (f *actFlags) add(c *cobra.Command, all, timeout string) {
	c.Flags().BoolVar(&f.all, "all", false, all)
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "do not wait for the effect")
	if timeout != "" {
		c.Flags().VarP(&f.timeout, "timeout", "t", timeout)
	}
}

// request checks that units or --all are named, and only one of them.
func (f *actFlags) request(units []string) (api.ActRequest, error) {
	switch {
	case f.all && len(units) > 0:
		return api.ActRequest{}, term.Usage("name units or say --all, not both")
	case !f.all && len(units) == 0:
		return api.ActRequest{}, term.Usage("name a unit, or say --all")
	}
	return api.ActRequest{Units: units, All: f.all, NoWait: f.noWait, Timeout: unit.Duration(f.timeout)}, nil
}

// act does one verb and prints the names of the units acted on.
func (a *app) act(ctx context.Context, verb string, r api.ActRequest,
	call func(context.Context, api.ActRequest) ([]string, error)) error {
	ctx, stop := watching(ctx)
	defer stop()
	names, err := call(ctx, r)
	what := strings.Join(r.Units, " ")
	if r.All {
		what = "all units"
	}
	if err != nil {
		return a.goesOn(a.cannot(verb, what, err), "the daemon goes on; `wherry ctl status` shows how far it is")
	}
	return a.lines(names)
}

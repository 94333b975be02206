package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func applyCommand(a *app) *cobra.Command {
	var noWait, again, quiet bool
	timeout := durationFlag(2 * time.Minute)
	c := &cobra.Command{
		Use:   "apply FILE|FOLDER|-...",
		Short: "Make units what the files say, and wait until they run",
		Example: `  wherry ctl apply web.yaml
  wherry ctl apply /etc/wherry/units --timeout 5m
  wherry ctl apply --no-wait - <web.yaml`,
		Long: `All or nothing: one invalid file and nothing changes. Ends with 3 as soon as a
unit fails to start or its process ends right after it (within 300 ms), and if it
does not run in time; it stays applied, and the daemon goes on trying.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := a.readFiles(args)
			if err != nil {
				return err
			}
			res, err := a.client().Apply(c.Context(), api.ApplyRequest{Files: files, Again: again})
			if err != nil {
				return a.cannot("apply", strings.Join(args, " "), err)
			}
			if quiet {
				a.warn(res.Warnings)
			} else {
				res.Actions = nil // the waiting shows them
				if err := a.printChanges(res); err != nil {
					return err
				}
			}
			if noWait {
				return nil
			}
			return a.awaitRunning(c.Context(), res, time.Duration(timeout))
		},
	}
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the units run")
	c.Flags().Var(&timeout, "timeout", "how long to wait")
	c.Flags().BoolVar(&again, "again", false, "also what was rolled back and has not changed since")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print errors and warnings only")
	return c
}

// awaitRunning waits for the applied units that should run, and explains those
// that do not.
func (a *app) awaitRunning(ctx context.Context, res api.ApplyResult, timeout time.Duration) error {
	names := make([]string, 0, len(res.Units))
	for _, u := range res.Units {
		names = append(names, u.Unit)
	}
	if len(names) == 0 {
		return nil
	}
	ctx, stop := watching(ctx)
	defer stop()
	units, err := a.client().Units(ctx, names...)
	if err != nil {
		return a.cannot("wait for", strings.Join(names, " "), err)
	}
	names = names[:0]
	for _, u := range units {
		switch {
		case u.Intent == string(plan.Running) && u.Replicas > 0:
			names = append(names, u.Name)
		case u.Replicas > 0:
			a.note("%s is %s by hand and stays so; `wherry ctl start %s` starts it", u.Name, u.Intent, u.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	end := a.showStates(ctx, names)
	_, err = a.client().Wait(ctx, api.WaitRequest{Units: names, State: api.WaitUp, Timeout: unit.Duration(timeout)})
	end()
	switch {
	case errors.Is(err, context.Canceled):
		return a.goesOn(err, "the units are applied and go on starting; `wherry ctl status` shows how far they are")
	case errors.Is(err, api.ErrUnreachable):
		return a.cannot("wait for", strings.Join(names, " "), err)
	case err != nil:
		return a.explainDown(ctx, names, err)
	}
	return nil
}

// explainDown says of each unit that does not run what is wrong. A cause that
// is no more than "not up" is told in the units' own words, which say more.
func (a *app) explainDown(ctx context.Context, names []string, cause error) error {
	given := a.cannot("start", strings.Join(names, " "), cause)
	f := &term.Failure{Code: term.ExitNotRunning, Err: given}
	var said *term.Failure
	if errors.As(given, &said) && said.Err != nil {
		f.Err = said.Err
	}
	f.Hint = "what is applied stays so and is tried again; `wherry ctl status` shows how far it is"
	units, err := a.client().Units(ctx, names...)
	if err != nil {
		return f
	}
	var down []error
	for _, u := range units {
		// One that ended well was not in vain.
		if u.State == plan.StateRunning || u.State == plan.StateCompleted {
			continue
		}
		down = append(down, fmt.Errorf("cannot start %s: %s", u.Name, term.Clean(a.whyDown(u, time.Now()))))
		f.Hint = downHint(u)
	}
	if len(down) > 0 {
		f.Err = errors.Join(down...)
	}
	return f
}

// downHint names the command to type next.
func downHint(u api.Unit) string {
	look := "`wherry ctl status " + u.Name + "` shows how far it is"
	if slices.ContainsFunc(u.Instances, func(i api.Instance) bool { return i.Exit != nil }) {
		look = "`wherry ctl logs " + u.Name + "` shows its output" // it had a process
	}
	if u.State == plan.StateFailed {
		return "the unit stays applied; " + look + ", `wherry ctl start " + u.Name + "` tries it again"
	}
	return "the unit stays applied and is tried again; " + look
}

// whyDown is what is wrong with a unit and its instances, each thing once.
func (a *app) whyDown(u api.Unit, now time.Time) string {
	var parts []string
	if note := unitNote(u); note != "" {
		parts = append(parts, note)
	}
	for _, i := range u.Instances {
		if note := a.instanceNote(i, now); note != "" {
			parts = append(parts, "container "+i.Name+": "+note)
		}
	}
	if len(parts) == 0 {
		return u.State
	}
	return strings.Join(parts, "; ")
}

// showEvery is how often a waiting person sees what has changed.
const showEvery = 200 * time.Millisecond

// showStates tells a person about the units' states until end is called.
func (a *app) showStates(ctx context.Context, names []string) (end func()) {
	if !a.err.People() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := map[string]string{}
		t := time.NewTicker(showEvery)
		defer t.Stop()
		for {
			units, err := a.client().Units(ctx, names...)
			if err != nil {
				return
			}
			for _, u := range units {
				if last[u.Name] != u.State {
					last[u.Name] = u.State
					a.note("%s: %s%s", u.Name, a.err.Paint(stateStyle(u.State), u.State), prefixed(": ", term.Clean(u.Reason)))
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

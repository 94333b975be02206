package ctl

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func runCommand(a *app) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run IMAGE [COMMAND...]",
		Short: "Run an image as a unit of its own",
		Example: `  wherry ctl run --rm busybox echo hello
  wherry ctl run -d --name web --restart always -p 8080:80 nginx
  wherry ctl run --rm --net host -v /srv:/srv:ro -e A=b alpine ls /srv`,
		Long: `In the foreground stdout and stderr come apart, and it ends with the command's
own code; 125 if it could not be run, 126 not executable, 127 not found, 128+n
ended by signal n. Ctrl-C and SIGTERM stop the unit; a second time they leave
it stopping. With -d it prints the unit's name.`,
		Args: ours(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.interactive.check(); err != nil {
				return err
			}
			u, err := f.unit(args[0], args[1:])
			if err != nil {
				return &term.Failure{Code: term.ExitOurs, Err: err}
			}
			r := api.RunRequest{Unit: u, Attach: !f.detach, Remove: f.remove}
			return a.run(c.Context(), r, args[0], f.quiet)
		},
	}
	c.Flags().SetInterspersed(false)
	c.SetFlagErrorFunc(oursFlags)
	f.add(c)
	return c
}

// run starts the unit and, attached, stays until its end.
func (a *app) run(ctx context.Context, r api.RunRequest, image string, quiet bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &runSignals{app: a, client: a.client(), ctx: ctx, leave: cancel}
	end := s.watch()
	defer end()

	bars := newPullProgress(a.err, quiet)
	res, err := a.client().Run(ctx, r, api.RunOutput{
		Stdout: a.out, Stderr: a.err,
		Progress: bars.update,
		Created: func(name string) {
			bars.finish()
			s.created(name)
		},
	})
	switch {
	case errors.Is(err, context.Canceled) && res.Unit == "":
		a.note("not started")
		return term.Code(term.ExitInterrupted)
	case errors.Is(err, context.Canceled):
		a.note("%s goes on stopping; `wherry ctl status %s` shows how far it is", res.Unit, res.Unit)
		return term.Code(term.ExitInterrupted)
	case err != nil && res.Unit != "":
		err = a.cannotOurs("follow", res.Unit, err)
		if errors.Is(err, api.ErrUnreachable) || errors.Is(err, api.ErrUnavailable) {
			a.note("%s goes on; `wherry ctl logs -f %s` follows it again", res.Unit, res.Unit)
		}
		return err
	case err != nil:
		return a.cannotOurs("run", image, err)
	case res.Exit == nil:
		return a.print("%s\n", res.Unit)
	}
	return a.endWith(*res.Exit, res.Unit)
}

// runSignals is what Ctrl-C and SIGTERM do during a run: before the unit has
// started they undo the start, then the first stops the unit and the second
// leaves it.
type runSignals struct {
	app    *app
	client *api.Client
	ctx    context.Context
	leave  context.CancelFunc

	mu   sync.Mutex
	unit string
}

func (s *runSignals) created(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unit = name
}

// watch begins; end waits for what it has begun.
func (s *runSignals) watch() (end func()) {
	signals, hush := interrupted()
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		stopping := false
		for {
			select {
			case <-ended:
				return
			case <-signals:
			}
			s.mu.Lock()
			unit := s.unit
			s.mu.Unlock()
			if unit == "" || stopping {
				s.leave()
				return
			}
			stopping = true
			all.Go(func() { s.stop(unit) })
		}
	})
	return func() {
		hush()
		close(ended)
		s.leave()
		all.Wait()
	}
}

// stop asks for the unit's end; that the run's stream ends is the answer.
func (s *runSignals) stop(unit string) {
	if s.app.err.People() {
		s.app.note("stopping %s; once more leaves it stopping", unit)
	}
	_, err := s.client.Stop(s.ctx, api.ActRequest{Units: []string{unit}, NoWait: true})
	if err != nil && s.ctx.Err() == nil && !errors.Is(err, api.ErrNoSuchUnit) {
		term.Report(s.app.err, s.app.cannot("stop", unit, err))
	}
}

package ctl

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func runCommand(a *app) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run IMAGE [COMMAND...]",
		Short: "Run an image as a unit of its own",
		Example: `  wherry ctl run --rm busybox echo hello
  wherry ctl run -it --rm -v "$PWD:/app" -w /app alpine sh
  tar c . | wherry ctl run -i --rm busybox tar t
  wherry ctl run -d --name web --restart always -p 8080:80 nginx
  wherry ctl run --rm --net host -v /srv:/srv:ro -e A=b alpine ls /srv`,
		Long: `In the foreground stdout and stderr come apart, and it ends with the command's
own code; 125 if it could not be run, 126 not executable, 127 not found, 128+n
ended by signal n. Ctrl-C and SIGTERM go to the command; a second time they stop
the unit, a third time they leave it stopping. With -t the keys go to the command, and
ctrl-p ctrl-q leaves it running. With -d it prints the unit's name.`,
		Args: ours(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			u, err := f.unit(args[0], args[1:])
			if err != nil {
				return &term.Failure{Code: term.ExitOurs, Err: err}
			}
			r := api.RunRequest{Unit: u, Attach: !f.detach, Remove: f.remove}
			return a.run(c.Context(), r, args[0], f)
		},
	}
	c.Flags().SetInterspersed(false)
	c.SetFlagErrorFunc(oursFlags)
	f.add(c)
	return c
}

// run starts the unit and, attached, stays until its end.
func (a *app) run(ctx context.Context, r api.RunRequest, image string, f runFlags) error {
	in := f.interactive
	if f.detach {
		in.stdin, in.tty = false, false
	}
	con, err := a.console(in)
	if err != nil {
		return err
	}
	defer con.back()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &runSignals{app: a, client: a.client(), ctx: ctx, leave: cancel, forward: r.Unit.Restart.Condition == unit.Never}
	defer s.watch()()
	ctx, told := con.ending(ctx)
	if con.resize != nil {
		r.Size = con.size(a)
		defer con.watchSize(a)()
	}
	bars := newPullProgress(a.err, f.quiet)
	start := a.client().Run
	if in.stdin || in.tty {
		start = func(ctx context.Context, r api.RunRequest, o api.RunOutput) (api.RunResult, error) {
			return a.client().RunStream(ctx, r, con.input(in), o)
		}
	}
	res, err := start(ctx, r, api.RunOutput{
		Stdout: a.out, Stderr: a.err,
		Progress: bars.update,
		Created: func(name string) {
			bars.finish()
			s.created(name)
			con.begin()
		},
	})
	sig := told()
	con.back()
	switch {
	case errors.Is(err, api.ErrDetached):
		a.note("detached; `wherry ctl attach %s` comes back", res.Unit)
		return nil
	case err != nil && sig != nil:
		return a.left(err, sig, res.Unit)
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
// started they undo the start, then the first goes to the command, the next stops the unit and the
// last leaves it.
type runSignals struct {
	app    *app
	client *api.Client
	ctx    context.Context
	leave  context.CancelFunc

	forward bool // the first goes to the command; otherwise it would be restarted, so the unit is stopped

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
			var sig os.Signal
			select {
			case <-ended:
				return
			case sig = <-signals:
			}
			s.mu.Lock()
			name := s.unit
			s.mu.Unlock()
			if name == "" || stopping {
				s.leave()
				return
			}
			if s.forward {
				s.forward = false
				all.Go(func() { s.pass(name, sig) })
				continue
			}
			stopping = true
			all.Go(func() { s.stop(name) })
		}
	})
	return func() {
		hush()
		close(ended)
		s.leave()
		all.Wait()
	}
}

// pass gives the command the signal that we got.
func (s *runSignals) pass(name string, sig os.Signal) {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return
	}
	r := api.KillRequest{TargetsRequest: api.TargetsRequest{Targets: []string{name}}, Signal: strconv.Itoa(int(number))}
	_, err := s.client.Kill(s.ctx, r)
	if err != nil && s.ctx.Err() == nil && !errors.Is(err, api.ErrNoSuchUnit) && !errors.Is(err, api.ErrNotRunning) {
		term.Report(s.app.err, s.app.cannot("signal", name, err))
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

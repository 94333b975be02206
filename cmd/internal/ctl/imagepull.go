package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func imagePullCommand(a *app) *cobra.Command { return pullCommand(a, "image pull") }

// pullAlias is `wherry ctl pull`.
func pullAlias(a *app) *cobra.Command { return pullCommand(a, "pull") }

// pullFlags are the flags of `pull`.
type pullFlags struct {
	api.PullRequest
	quiet, detach bool
	abort         string
	format        formatFlags
}

var policies = []string{"always", "newer", "missing", "never"}

func pullCommand(a *app, path string) *cobra.Command {
	var f pullFlags
	c := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image",
		Example: "  wherry ctl " + path + ` nginx:1.27
  wherry ctl ` + path + ` --platform linux/arm64 -q registry.example.com/app@sha256:...
  wherry ctl ` + path + ` -d nginx:1.27     leave it to the daemon
  wherry ctl ` + path + ` --abort pull-7f3k`,
		Long: `Asks the registry, also if the image is there. Prints the image's name and
digest. Ctrl-C aborts the pull, unless another one of the image goes on. With -d
it prints the pull's id; status shows the pulls under way.`,
		Args: func(c *cobra.Command, args []string) error {
			if f.abort != "" {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(1)(c, args)
		},
		ValidArgsFunction: a.completeImage,
		RunE: func(c *cobra.Command, args []string) error {
			if f.abort != "" {
				return a.abortPull(c.Context(), f.abort)
			}
			if !slices.Contains(policies, f.Policy) {
				return term.Usage("--policy %s: want always, newer, missing or never", f.Policy)
			}
			f.Ref = args[0]
			format, err := f.format.parse()
			if err != nil {
				return err
			}
			return a.pull(c.Context(), f, format)
		},
	}
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no progress, and only the name")
	c.Flags().BoolVarP(&f.detach, "detach", "d", false, "leave it to the daemon and print the pull's id")
	c.Flags().StringVar(&f.abort, "abort", "", "abort the pull with this `ID`")
	c.Flags().StringVar(&f.Platform, "platform", "", "os/architecture, if not the host's")
	c.Flags().StringVar(&f.Policy, "policy", "always", "when to ask the registry: always; newer, which makes do with what is\nthere if the registry is away; missing, if nothing is there; never")
	f.format.add(c, "")
	_ = c.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(policies, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("abort", a.completeOperations)
	return c
}

// pull pulls and shows how. Ctrl-C aborts the operation in the daemon, whose
// answer then ends the stream; once more leaves at once.
func (a *app) pull(ctx context.Context, f pullFlags, format term.Format) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	s := &pullSignals{app: a, client: a.client(), ctx: ctx, leave: leave, detach: f.detach}
	end := s.watch()
	bars := newPullProgress(a.err, f.quiet || f.detach)
	i, err := a.client().Pull(ctx, f.PullRequest, s.started, bars.update)
	bars.finish()
	end()
	if s.told != "" {
		a.note("%s", s.told)
	}
	id, aborted := s.state()
	switch {
	case f.detach && id != "" && errors.Is(err, context.Canceled):
		return a.print("%s\n", id)
	case err != nil && aborted:
		return term.Code(term.ExitInterrupted) // everything is said
	case errors.Is(err, context.Canceled):
		a.note("the pull goes on in the daemon; the same command shows it again")
		return term.Code(term.ExitInterrupted)
	case err != nil:
		return a.cannot("pull", f.Ref, err)
	case !format.Table():
		return format.Print(a.out, i)
	}
	name := f.Ref
	if len(i.Names) == 1 {
		name = i.Names[0]
	}
	if f.quiet {
		return a.print("%s\n", name)
	}
	return a.print("%s %s\n", name, i.Digest)
}

func (a *app) abortPull(ctx context.Context, id string) error {
	r, err := a.client().Abort(ctx, id)
	if err != nil {
		return a.cannot("abort", id, err)
	}
	return a.print("%s\n", abortText(r))
}

func abortText(r api.Abort) string {
	if r.GoesOn {
		return fmt.Sprintf("aborted; another pull of %s goes on", r.Operation.Object)
	}
	return fmt.Sprintf("aborted: %s", r.Operation.Object)
}

// pullSignals is what Ctrl-C does during a pull.
type pullSignals struct {
	app    *app
	client *api.Client
	ctx    context.Context
	leave  context.CancelFunc
	detach bool

	mu      sync.Mutex
	id      string
	aborted bool
	told    string // how the abort went; said when the bars are done, and read after end
}

func (s *pullSignals) started(id string) {
	s.mu.Lock()
	s.id = id
	s.mu.Unlock()
	if s.detach {
		s.leave()
	}
}

func (s *pullSignals) state() (id string, aborted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id, s.aborted
}

// watch begins; end waits for what it has begun.
func (s *pullSignals) watch() (end func()) {
	interrupts, stop := interrupted()
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-interrupts:
			}
			if id, aborted := s.state(); id == "" || aborted {
				s.leave()
				return
			}
			s.abort()
		}
	})
	return func() {
		stop()
		close(ended)
		all.Wait()
	}
}

// abortWait bounds how long Ctrl-C may hang on a daemon that does not answer.
const abortWait = 5 * time.Second

func (s *pullSignals) abort() {
	s.mu.Lock()
	s.aborted = true
	id := s.id
	s.mu.Unlock()
	limited, cancel := context.WithTimeout(s.ctx, abortWait)
	defer cancel()
	r, err := s.client.Abort(limited, id)
	switch {
	case errors.Is(err, api.ErrNoSuchOperation): // done at that moment
		return
	case err != nil:
		s.mu.Lock()
		s.aborted = false
		s.mu.Unlock()
		term.Report(s.app.err, s.app.cannot("abort", id, err))
		s.leave()
		return
	}
	s.told = abortText(r)
}

// pullProgress shows the layers of a pull, or of the images of an archive one after the other.
type pullProgress struct {
	out   term.Stream
	quiet bool
	bars  *term.Progress // made with the first layer
	image string         // of bars
}

func newPullProgress(out term.Stream, quiet bool) *pullProgress {
	return &pullProgress{out: out, quiet: quiet}
}

func (p *pullProgress) update(u api.Progress) {
	if p.quiet {
		return
	}
	if p.bars != nil && u.Image != p.image {
		p.bars.Finish()
		p.bars = nil
	}
	if u.Layer == "" {
		if p.bars != nil && u.Total > 0 {
			p.bars.Whole(u.Done, u.Total, u.Rate, u.Left)
		}
		return
	}
	if p.bars == nil {
		p.bars, p.image = term.NewProgress(p.out, u.Image), u.Image
	}
	p.bars.Update(shortID(u.Layer), u.Step, u.Done, u.Total, u.Step == "done" || u.Step == "exists")
}

func (p *pullProgress) finish() {
	if p.bars != nil {
		p.bars.Finish()
	}
}

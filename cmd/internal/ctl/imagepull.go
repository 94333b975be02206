package ctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func imagePullCommand(a *app) *cobra.Command { return pullCommand(a, "image pull") }

// pullAlias is `wherry ctl pull`.
func pullAlias(a *app) *cobra.Command { return pullCommand(a, "pull") }

func pullCommand(a *app, path string) *cobra.Command {
	var quiet bool
	var r api.PullRequest
	c := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image",
		Example: "  wherry ctl " + path + ` nginx:1.27
  wherry ctl ` + path + ` --platform linux/arm64 -q registry.example.com/app@sha256:...`,
		Long: `Asks the registry, also if the image is there. Prints the image's name and
digest. Ctrl-C leaves the pull going on in the daemon.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r.Ref = args[0]
			ctx, stop := watching(c.Context())
			defer stop()
			return a.pull(ctx, r, quiet)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress, and only the name")
	c.Flags().StringVar(&r.Platform, "platform", "", "os/architecture, if not the host's")
	c.Flags().StringVar(&r.Policy, "policy", "always", "always, or missing to ask only for what is not there")
	return c
}

func (a *app) pull(ctx context.Context, r api.PullRequest, quiet bool) error {
	bars := newPullProgress(a.err, quiet)
	i, err := a.client().Pull(ctx, r, nil, bars.update)
	bars.finish()
	if err != nil {
		return a.goesOn(a.cannot("pull", r.Ref, err), "the pull goes on in the daemon; the same command shows it again")
	}
	name := r.Ref
	if len(i.Names) == 1 {
		name = i.Names[0]
	}
	if quiet {
		return a.print("%s\n", name)
	}
	return a.print("%s %s\n", name, i.Digest)
}

// pullProgress shows the layers of a pull.
type pullProgress struct {
	out   term.Stream
	quiet bool
	bars  *term.Progress // made with the first layer
}

func newPullProgress(out term.Stream, quiet bool) *pullProgress {
	return &pullProgress{out: out, quiet: quiet}
}

func (p *pullProgress) update(u api.Progress) {
	if p.quiet || u.Layer == "" {
		return
	}
	if p.bars == nil {
		p.bars = term.NewProgress(p.out, u.Image)
	}
	p.bars.Update(shortID(u.Layer), u.Step, u.Done, u.Total, u.Step == "done" || u.Step == "exists")
}

func (p *pullProgress) finish() {
	if p.bars != nil {
		p.bars.Finish()
	}
}

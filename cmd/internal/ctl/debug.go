package ctl

import (
	"context"
	"errors"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func debugCommand(a *app) *cobra.Command {
	var r api.DebugRequest
	var quiet bool
	c := &cobra.Command{
		Use:   "debug TARGET --image TOOLS [COMMAND...]",
		Short: "Run tools beside a container that may have none",
		Example: `  wherry ctl debug web --image busybox
  wherry ctl debug web.1/php --image nicolaka/netshoot tcpdump -c 10`,
		Long: `Starts a command from an image of its own in the namespaces of a running container: it
has the container's processes, network and host name, and its files at /target. It is
root there, may trace, and is removed at its end, at the latest with the container. On a terminal
it has one too. Ends with the command's own code.`,
		Args:              ours(cobra.MinimumNArgs(1)),
		ValidArgsFunction: a.completeUnit,
		RunE: func(c *cobra.Command, args []string) error {
			// Flags may stand before the target and behind it, but those behind the command are the command's.
			if err := c.Flags().Parse(args[1:]); err != nil {
				return oursFlags(c, err)
			}
			r.Target, r.Args = args[0], c.Flags().Args()
			if r.Image == "" {
				return &term.Failure{Code: term.ExitOurs, Err: errors.New("no image of tools: say --image"), Hint: a.again("--image", "busybox")}
			}
			var err error
			if r.Env, err = environment(r.Env); err != nil {
				return err
			}
			return a.debug(c.Context(), r, quiet)
		},
	}
	c.SetFlagErrorFunc(oursFlags)
	c.Flags().SetInterspersed(false)
	c.Flags().StringVar(&r.Image, "image", "", "`IMAGE` with the tools")
	c.Flags().StringArrayVarP(&r.Env, "env", "e", nil, "`NAME=VALUE`, or NAME for its value here")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "no pull progress")
	c.Flags().BoolP("interactive", "i", true, "has no effect: it takes input")
	c.Flags().BoolP("tty", "t", true, "has no effect: it has a terminal if we do")
	_ = c.Flags().MarkHidden("interactive")
	_ = c.Flags().MarkHidden("tty")
	return c
}

func (a *app) debug(ctx context.Context, r api.DebugRequest, quiet bool) error {
	f := interactiveFlags{stdin: true, tty: isTerminal(a.in)}
	con, err := a.console(f)
	if err != nil {
		return err
	}
	defer con.back()
	r.Stdin, r.TTY, r.Env = true, f.tty, withTerm(r.Env, f.tty)
	if f.tty {
		r.Size = con.size(a)
		defer con.watchSize(a)()
	}
	ctx, told := con.ending(ctx, syscall.SIGTERM, syscall.SIGINT)
	bars := newPullProgress(a.err, quiet)
	exit, err := a.client().Debug(ctx, r, con.input(f), api.RunOutput{
		Stdout: a.out, Stderr: a.err, Progress: bars.update,
		Created: func(string) {
			bars.finish()
			con.begin()
		},
	})
	sig := told()
	con.back()
	if err != nil {
		return a.left(a.cannotOurs("debug", r.Target, err), sig, r.Target)
	}
	return a.endWith(exit, "the command")
}

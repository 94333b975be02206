package ctl

import (
	"context"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/supervisor/api"
)

func attachCommand(a *app) *cobra.Command {
	f := interactiveFlags{}
	var r api.AttachRequest
	c := &cobra.Command{
		Use:   "attach TARGET",
		Short: "Connect to a running container's input and output",
		Example: `  wherry ctl attach web
  wherry ctl attach --no-stdin web.1/php`,
		Long: `Shows what is written from now on (--tail shows what came before) and ends with
the container's own code. On its terminal ctrl-p ctrl-q leaves it running; without
one Ctrl-C leaves it running too. Any number may be attached at a time.`,
		Args:              ours(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeUnit,
		RunE: func(c *cobra.Command, args []string) error {
			r.Target = args[0]
			return a.attach(c.Context(), r, f)
		},
	}
	c.SetFlagErrorFunc(oursFlags)
	f.addKeys(c)
	c.Flags().BoolVar(&r.NoStdin, "no-stdin", false, "output alone")
	c.Flags().IntVar(&r.Tail, "tail", 0, "begin with the last `N` lines")
	return c
}

// attach finds out first whether there is a terminal: ours becomes raw only then.
func (a *app) attach(ctx context.Context, r api.AttachRequest, f interactiveFlags) error {
	kind, err := a.client().Attachment(ctx, r.Target)
	if err != nil {
		return a.cannotOurs("attach to", r.Target, err)
	}
	f.tty, f.stdin = kind.TTY, kind.Stdin && !r.NoStdin
	if f.tty && f.stdin && !isTerminal(a.in) {
		f.tty = false // as Docker, from a pipe too
	}
	con, err := a.console(f)
	if err != nil {
		return err
	}
	defer con.back()
	if con.resize != nil {
		r.Size = con.size(a)
		defer con.watchSize(a)()
	}
	ctx, told := con.ending(ctx, syscall.SIGTERM, syscall.SIGINT)
	con.begin()
	exit, err := a.client().Attach(ctx, r, con.input(f), api.Output{Stdout: a.out, Stderr: a.err}, nil)
	sig := told()
	con.back()
	if err != nil {
		if sig != nil && !con.typed {
			a.note("%s goes on", r.Target)
		}
		return a.left(a.cannotOurs("attach to", r.Target, err), sig, r.Target)
	}
	return a.endWith(exit, r.Target)
}

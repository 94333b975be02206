package ctl

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func execCommand(a *app) *cobra.Command {
	var r api.ExecRequest
	var interactive interactiveFlags
	c := &cobra.Command{
		Use:   "exec UNIT|INSTANCE COMMAND...",
		Short: "Run a command in a running unit",
		Example: `  wherry ctl exec web cat /etc/hosts
  wherry ctl exec -it web sh
  wherry ctl exec -u nobody -e A=b web.2 sh -c 'echo $A'
  tar c . | wherry ctl exec -i web tar x -C /srv`,
		Long: `Ends with the command's own code; 125 if it could not be run, 126 not
executable, 127 not found, 128+n ended by signal n. Without -t Ctrl-C leaves the
command running; it gets SIGPIPE when it writes more. With -t the keys go to the
command, ctrl-p ctrl-q leaves it running.`,
		Args:              ours(cobra.MinimumNArgs(2)),
		ValidArgsFunction: a.completeUnit,
		RunE: func(c *cobra.Command, args []string) error {
			r.Target, r.Args = args[0], args[1:]
			var err error
			if r.Env, err = environment(r.Env); err != nil {
				return err
			}
			return a.exec(c.Context(), r, interactive)
		},
	}
	c.Flags().SetInterspersed(false)
	c.SetFlagErrorFunc(oursFlags)
	interactive.add(c)
	c.Flags().StringArrayVarP(&r.Env, "env", "e", nil, "`NAME=VALUE`, or NAME for its value here")
	c.Flags().StringVarP(&r.User, "user", "u", "", "user or uid, with :group if wanted")
	c.Flags().StringVarP(&r.Cwd, "workdir", "w", "", "folder to run in")
	c.Flags().BoolVar(&r.Privileged, "privileged", false, "with all capabilities and no seccomp filter")
	c.Flags().BoolVarP(&r.Detach, "detach", "d", false, "leave it running, its output is dropped")
	return c
}

// exec runs a command with what is ours as its input and output.
func (a *app) exec(ctx context.Context, r api.ExecRequest, f interactiveFlags) error {
	if r.Detach {
		f.stdin, f.tty = false, false
	}
	con, err := a.console(f)
	if err != nil {
		return err
	}
	defer con.back()
	r.Stdin, r.TTY, r.Env = f.stdin, f.tty, withTerm(r.Env, f.tty)
	failed := func(err error) error {
		return a.goesOn(a.cannotOurs("execute in", r.Target, err), "the command goes on in %s", r.Target)
	}
	if !f.stdin && !f.tty {
		ctx, stop := watching(ctx)
		defer stop()
		exit, err := a.client().Exec(ctx, r, a.out, a.err)
		if err != nil {
			return failed(err)
		}
		return a.endWith(exit, "the command")
	}
	if f.tty {
		r.Size = con.size(a)
		defer con.watchSize(a)()
	}
	ctx, told := con.ending(ctx, syscall.SIGTERM, syscall.SIGINT)
	con.begin()
	exit, err := a.client().ExecStream(ctx, r, con.input(f), api.Output{Stdout: a.out, Stderr: a.err})
	sig := told()
	con.back()
	if err != nil {
		if sig != nil && !f.tty {
			a.note("the command goes on in %s", r.Target)
		}
		return a.left(failed(err), sig, "the command")
	}
	return a.endWith(exit, "the command")
}

// endWith ends as the command did.
func (a *app) endWith(e api.Exit, what string) error {
	switch {
	case e.Unknown:
		return &term.Failure{Code: term.ExitOurs, Err: errors.New("nobody could see how " + what + " ended")}
	case e.OOM:
		term.Warn(a.err, what+" ran out of memory"+prefixed(": ", e.Cause))
	}
	return term.Code(exitCode(e))
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// ours gives a check of arguments the code 125, so that no caller takes it for
// the command's own.
func ours(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return oursFlags(c, err)
		}
		return nil
	}
}

func oursFlags(c *cobra.Command, err error) error {
	return &term.Failure{Code: term.ExitOurs, Err: err, Hint: "see " + c.CommandPath() + " --help"}
}

// environment fills in what stands without a value from our own environment,
// as Docker does; a name that is not set here is left out.
func environment(given []string) ([]string, error) {
	var env []string
	for _, e := range given {
		name, _, hasValue := strings.Cut(e, "=")
		switch value, set := os.LookupEnv(name); {
		case name == "":
			return nil, &term.Failure{Code: term.ExitOurs, Err: errors.New("-e " + e + ": want NAME=VALUE or NAME")}
		case hasValue:
			env = append(env, e)
		case set:
			env = append(env, name+"="+value)
		}
	}
	return env, nil
}

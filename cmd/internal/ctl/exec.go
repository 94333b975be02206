package ctl

import (
	"errors"
	"os"
	"strings"

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
  wherry ctl exec -u nobody -e A=b web.2 sh -c 'echo $A'`,
		Long: `Ends with the command's own code; 125 if it could not be run, 126 not
executable, 127 not found, 128+n ended by signal n. Ctrl-C leaves the command
running; it gets SIGPIPE when it writes more.`,
		Args:              ours(cobra.MinimumNArgs(2)),
		ValidArgsFunction: a.completeUnit,
		RunE: func(c *cobra.Command, args []string) error {
			if err := interactive.check(); err != nil {
				return err
			}
			r.Target, r.Args = args[0], args[1:]
			var err error
			if r.Env, err = environment(r.Env); err != nil {
				return err
			}
			ctx, stop := watching(c.Context())
			defer stop()
			exit, err := a.client().Exec(ctx, r, a.out, a.err)
			if err != nil {
				return a.goesOn(a.cannotOurs("execute in", r.Target, err), "the command goes on in %s", r.Target)
			}
			return a.endWith(exit, "the command")
		},
	}
	c.Flags().SetInterspersed(false)
	c.SetFlagErrorFunc(oursFlags)
	interactive.add(c)
	c.Flags().StringArrayVarP(&r.Env, "env", "e", nil, "`NAME=VALUE`, or NAME for its value here")
	c.Flags().StringVarP(&r.User, "user", "u", "", "user or uid, with :group if wanted")
	c.Flags().StringVarP(&r.Cwd, "workdir", "w", "", "folder to run in")
	return c
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

// interactiveFlags are -i and -t, which hands type by themselves.
type interactiveFlags struct{ stdin, tty bool }

func (f *interactiveFlags) add(c *cobra.Command) {
	c.Flags().BoolVarP(&f.stdin, "interactive", "i", false, "not supported yet")
	c.Flags().BoolVarP(&f.tty, "tty", "t", false, "not supported yet")
	_ = c.Flags().MarkHidden("interactive")
	_ = c.Flags().MarkHidden("tty")
}

func (f *interactiveFlags) check() error {
	flag := ""
	switch {
	case f.stdin && f.tty:
		flag = "-it"
	case f.stdin:
		flag = "-i"
	case f.tty:
		flag = "-t"
	default:
		return nil
	}
	return &term.Failure{Code: term.ExitOurs, Err: errors.New(flag + ": not supported yet"),
		Hint: "leave it out: output and exit code come through without"}
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

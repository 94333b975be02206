package ctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

func topCommand(a *app) *cobra.Command {
	var f formatFlags
	c := &cobra.Command{
		Use:   "top UNIT|INSTANCE[/CONTAINER]",
		Short: "The processes of a unit",
		Example: `  wherry ctl top web
  wherry ctl top web.1 --format json`,
		Long:              "A process in state D waits for the kernel; where, stands behind the state.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeUnit,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			list, err := a.client().Top(c.Context(), args[0])
			if err != nil {
				return a.cannot("list the processes of", args[0], err)
			}
			if !format.Table() {
				return term.PrintEach(a.out, format, list)
			}
			t := term.NewTable("INSTANCE", "PID", "INSIDE", "USER", "STATE", "CPU", "MEMORY", "COMMAND")
			for _, p := range list {
				user, state := fmt.Sprint(p.UID), p.State
				if p.UID < 0 {
					user = "-"
				}
				if p.Wait != "" {
					state += " " + p.Wait
				}
				t.Row(p.Instance, fmt.Sprint(p.Pid), fmt.Sprint(p.Inside), user, state,
					time.Duration(p.CPU*float64(time.Second)).Round(10*time.Millisecond).String(), term.Memory(p.RSS), p.Command)
			}
			return t.Print(a.out)
		},
	}
	f.add(c, "")
	return c
}

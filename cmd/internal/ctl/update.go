package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func updateCommand(a *app) *cobra.Command {
	var f unit.LimitFlags
	var format formatFlags
	r := api.UpdateRequest{}
	c := &cobra.Command{
		Use:   "update UNIT...",
		Short: "Change limits of units, without a restart",
		Example: `  wherry ctl update web --memory 512m
  wherry ctl update web --cpus 1.5 --pids 200
  wherry ctl update web --memory 0            no limit any more`,
		Long: `Makes a revision of each unit with other limits, and gives them to what runs. It lasts over restarts.
Applying the same file again changes nothing; a file that has changed says the limits again.
0 lifts a limit.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := format.parse()
			if err != nil {
				return err
			}
			change, err := f.Change()
			if err != nil {
				return &term.Failure{Code: term.ExitUsage, Err: err}
			}
			if change.Empty() {
				return term.Usage("name a limit, such as --memory 512m")
			}
			r.Units, r.Change = args, change
			ctx, stop := watching(c.Context())
			defer stop()
			res, err := a.client().Update(ctx, r)
			if err != nil {
				return a.goesOn(a.cannot("update", strings.Join(args, " "), err), "the daemon goes on; `wherry ctl status` shows how far it is")
			}
			if !p.Table() {
				return term.PrintEach(a.out, p, res.Units)
			}
			for _, u := range res.Units {
				if err := a.print("%s: %s\n", u.Unit, updateWords(u)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.Memory, "memory", "m", "", "memory limit, such as 512m")
	fl.StringVar(&f.CPUs, "cpus", "", "CPU limit, such as 1.5")
	fl.StringVar(&f.Pids, "pids", "", "limit of processes")
	fl.StringVar(&f.Pids, "pids-limit", "", "the same as --pids")
	_ = fl.MarkHidden("pids-limit")
	addLimitFlags(fl, &f)
	fl.StringVar(&f.CpusetCPUs, "cpuset", "", "the same as --cpuset-cpus")
	_ = fl.MarkHidden("cpuset")
	fl.StringVar(&r.Container, "container", "", "which container, of a unit with several")
	fl.BoolVar(&r.NoWait, "no-wait", false, "do not wait for the effect")
	format.add(c, "")
	return c
}

// updateWords says what an update has changed.
func updateWords(u api.UnitChange) string {
	if u.Change == "unchanged" {
		return fmt.Sprintf("unchanged, revision %d", u.Revision)
	}
	words := make([]string, len(u.Fields))
	for i, c := range u.Fields {
		name := strings.TrimPrefix(c.Path, "containers.")
		if _, rest, ok := strings.Cut(name, "."); ok {
			name = rest
		}
		words[i] = fmt.Sprintf("%s %s -> %s", name, orNone(c.Old), orNone(c.New))
	}
	return fmt.Sprintf("revision %d: %s", u.Revision, strings.Join(words, ", "))
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

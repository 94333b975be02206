package ctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func listCommand(a *app) *cobra.Command {
	var f formatFlags
	c := &cobra.Command{
		Use:     "list [UNIT...]",
		Aliases: []string{"ls"},
		Short:   "List units",
		Example: `  wherry ctl list
  wherry ctl list 'web-*' -q
  wherry ctl list --format '{{.Name}} {{.State}}'`,
		ValidArgsFunction: a.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			units, err := a.client().Units(c.Context(), args...)
			switch {
			case err != nil:
				return a.cannot("list units", "", err)
			case f.quiet:
				return a.lines(names(units))
			case !format.Table():
				return term.PrintEach(a.out, format, units)
			}
			t := term.NewTable("NAME", "STATE", "READY", "REV", "RESTARTS", "CREATED", "IMAGE", "PORTS")
			now := time.Now()
			for _, u := range units {
				t.Cells(term.Cell{Text: u.Name}, term.Cell{Text: u.State, Style: stateStyle(u.State)},
					term.Cell{Text: fmt.Sprintf("%d/%d", u.Running, u.Replicas)}, term.Cell{Text: fmt.Sprint(u.Revision)},
					term.Cell{Text: fmt.Sprint(u.Restarts)}, term.Cell{Text: a.out.Since(u.CreatedAt, now)},
					term.Cell{Text: imageText(u)}, term.Cell{Text: portList(u.Ports)})
			}
			return t.Print(a.out)
		},
	}
	f.add(c, "names only")
	return c
}

// imageText is the image of the container that stands for the unit, and how many
// others there are.
func imageText(u api.Unit) string {
	for _, i := range u.Instances {
		if n := len(i.Containers); n > 1 {
			return fmt.Sprintf("%s (+%d)", u.Image, n-1)
		}
	}
	return u.Image
}

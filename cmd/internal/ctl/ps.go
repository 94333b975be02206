package ctl

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

func psCommand(a *app) *cobra.Command {
	var f formatFlags
	var all bool
	c := &cobra.Command{
		Use:   "ps",
		Short: "List units as Docker lists containers",
		Example: `  wherry ctl ps
  wherry ctl ps -a --format '{{.Names}} {{.Status}}'
  wherry ctl rm -f $(wherry ctl ps -aq)`,
		Long: `A Docker-shaped view, one line a unit. Fields of templates: ID Names Image
Command CreatedAt RunningFor Status State Ports Labels Networks.
"list" and "status" say more.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			units, err := a.client().Units(c.Context())
			if err != nil {
				return a.cannot("list units", "", err)
			}
			now := time.Now()
			rows := []psRow{}
			for _, u := range units {
				if r := newPsRow(u, now); all || r.State == "running" || r.State == statePaused || r.State == "restarting" {
					rows = append(rows, r)
				}
			}
			switch {
			case f.quiet:
				for _, r := range rows {
					if err := a.print("%s\n", r.ID); err != nil {
						return err
					}
				}
				return nil
			case !format.Table():
				return term.PrintEach(a.out, format, rows)
			}
			t := term.NewTable("NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS")
			for _, r := range rows {
				t.Row(r.Names, r.Image, r.Command, r.RunningFor, r.Status, r.Ports)
			}
			return t.Print(a.out)
		},
	}
	f.add(c, "names only")
	c.Flags().BoolVarP(&all, "all", "a", false, "also units that do not run")
	return c
}

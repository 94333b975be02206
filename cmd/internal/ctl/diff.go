package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func diffCommand(a *app) *cobra.Command {
	var f formatFlags
	c := &cobra.Command{
		Use:   "diff FILE|FOLDER|-...",
		Short: "What an apply would change",
		Example: `  wherry ctl diff web.yaml
  wherry ctl diff /etc/wherry/units --format json`,
		Long: "Changes nothing. Ends with 1 if an apply would change something.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			files, err := a.readFiles(args)
			if err != nil {
				return err
			}
			res, err := a.client().Apply(c.Context(), api.ApplyRequest{Files: files, DryRun: true})
			if err != nil {
				return a.cannot("compare", strings.Join(args, " "), err)
			}
			if format.Table() {
				err = a.printChanges(res)
			} else {
				err = format.Print(a.out, res)
			}
			if err != nil || !changes(res) {
				return err
			}
			return term.Code(term.ExitFailed)
		},
	}
	f.add(c, "")
	return c
}

// changes reports whether an apply changes something.
func changes(r api.ApplyResult) bool {
	for _, u := range r.Units {
		if u.Change != "unchanged" {
			return true
		}
	}
	return false
}

// printChanges shows each unit with its fields, then what happens next.
func (a *app) printChanges(r api.ApplyResult) error {
	a.warn(r.Warnings)
	for _, u := range r.Units {
		style := map[string]term.Style{"create": term.Good, "update": term.Busy}[u.Change]
		line := u.Unit + ": " + a.out.Paint(style, u.Change)
		if u.Change != "unchanged" {
			line += fmt.Sprintf(" (revision %d)", u.Revision)
		}
		if err := a.print("%s\n", line); err != nil {
			return err
		}
		if u.Change == "create" {
			continue // every field is new
		}
		for _, f := range u.Fields {
			if err := a.print("  %s: %s -> %s\n", f.Path, a.side(term.Bad, f.Old), a.side(term.Good, f.New)); err != nil {
				return err
			}
		}
	}
	for _, act := range r.Actions {
		if err := a.print("%s %s: %s\n", act.Kind, join("", act.Instance, only(act.Instance == "", act.Unit)), term.Clean(act.Reason)); err != nil {
			return err
		}
	}
	return nil
}

func only(ok bool, s string) string {
	if ok {
		return s
	}
	return ""
}

// side is one side of a changed field.
func (a *app) side(style term.Style, value string) string {
	if value == "" {
		return "(none)"
	}
	return a.out.Paint(style, term.Clean(value))
}

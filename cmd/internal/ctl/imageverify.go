package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func imageVerifyCommand(a *app) *cobra.Command {
	var r api.VerifyRequest
	var f formatFlags
	c := &cobra.Command{
		Use:   "verify [IMAGE...]",
		Short: "Compare stored images with what was unpacked, and repair them",
		Example: `  wherry ctl image verify
  wherry ctl image verify --repair nginx:1.27`,
		Long: `Reads every file of every layer, of all images if none is named. Ends with 1 if
damage is left. --repair makes a damaged layer again from its blob, and fetches a
damaged blob again from the registry.`,
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			r.Refs = args
			ctx, stop := watching(c.Context())
			defer stop()
			return a.verify(ctx, r, f.quiet, format)
		},
	}
	c.Flags().BoolVar(&r.Repair, "repair", false, "repair what is damaged")
	f.add(c, "nothing but damage")
	return c
}

func (a *app) verify(ctx context.Context, r api.VerifyRequest, quiet bool, format term.Format) error {
	var bars *term.Progress
	if !quiet && a.err.TTY {
		bars = term.NewProgress(a.err, "verify")
	}
	found, err := a.client().VerifyImages(ctx, r, func(p api.Progress) {
		if bars != nil {
			bars.Update(p.Image, p.Step, p.Done, p.Total, p.Total > 0 && p.Done == p.Total)
		}
	})
	if bars != nil {
		bars.Clear()
	}
	if errors.Is(err, context.Canceled) {
		a.note("not all is verified")
		return term.Code(term.ExitInterrupted)
	}
	if err != nil {
		return a.cannot("verify", strings.Join(r.Refs, " "), err)
	}
	left, repaired := 0, 0
	for _, v := range found {
		for _, d := range v.Damage {
			if d.Repaired {
				repaired++
			} else {
				left++
			}
		}
	}
	if format.Table() {
		err = a.verifyTable(found, quiet)
	} else {
		err = term.PrintEach(a.out, format, found)
	}
	switch {
	case err != nil:
		return err
	case left > 0:
		f := &term.Failure{Code: term.ExitFailed, Err: fmt.Errorf("%d %s damaged", left, plural(left, "thing is", "things are"))}
		if !r.Repair {
			f.Hint = "`" + a.again("--repair") + "` makes it right"
		}
		return f
	case repaired > 0:
		a.note("%d %s repaired", repaired, plural(repaired, "thing is", "things are"))
	}
	return nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// verifyTable is a line an image, then one for each damage.
func (a *app) verifyTable(found []api.Verification, quiet bool) error {
	if !quiet {
		t := term.NewTable("IMAGE", "STATE", "LAYERS", "FILES", "READ")
		for _, v := range found {
			state := term.Cell{Text: "good", Style: term.Good}
			if len(v.Damage) > 0 {
				state = term.Cell{Text: "repaired", Style: term.Busy}
			}
			for _, d := range v.Damage {
				if !d.Repaired {
					state = term.Cell{Text: "damaged", Style: term.Bad}
				}
			}
			t.Cells(term.Cell{Text: v.Image}, state, term.Cell{Text: fmt.Sprint(v.Layers)}, term.Cell{Text: fmt.Sprint(v.Files)},
				term.Cell{Text: term.Size(v.Bytes)})
		}
		if err := t.Print(a.out); err != nil {
			return err
		}
	}
	t, any := term.NewTable("IMAGE", "IN", "PATH", "DAMAGE", "REPAIRED"), false
	for _, v := range found {
		for _, d := range v.Damage {
			any = true
			in := "layer " + shortID(d.Layer)
			if d.Layer == "" {
				in = "blob " + shortID(d.Blob)
			}
			t.Row(v.Image, in, d.Path, d.What, map[bool]string{true: "yes", false: "no"}[d.Repaired])
		}
	}
	if !any {
		return nil
	}
	if !quiet {
		_ = a.print("\n")
	}
	return t.Print(a.out)
}

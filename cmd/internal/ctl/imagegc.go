package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func imageGCCommand(a *app) *cobra.Command {
	var r api.GCRequest
	var explain string
	var f formatFlags
	c := &cobra.Command{
		Use:   "gc",
		Short: "Delete images that nobody needs",
		Example: `  wherry ctl image gc --dry-run
  wherry ctl image gc --all
  wherry ctl image gc --explain nginx:1.27`,
		Long: `The daemon does so by itself when the disk fills (gc in wherry.yaml). What a
container uses, what the last revisions of a unit need and what is being pulled
always stays. Without --all none goes that is younger than gc.min_age, and images
with a name only as far as the disk asks for it, the longest unused first.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			if explain != "" {
				if r.All || r.DryRun {
					return term.Usage("--explain deletes nothing: leave --all and --dry-run out")
				}
				return a.explainImage(c.Context(), explain, format)
			}
			return a.collect(c.Context(), r, format)
		},
	}
	c.Flags().BoolVar(&r.All, "all", false, "every image that nobody needs, whatever the disk says")
	c.Flags().BoolVarP(&r.DryRun, "dry-run", "n", false, "only say what would go")
	c.Flags().StringVar(&explain, "explain", "", "say why this `IMAGE` stays or goes")
	f.add(c, "")
	_ = c.RegisterFlagCompletionFunc("explain", a.completeImages)
	return c
}

func (a *app) collect(ctx context.Context, r api.GCRequest, format term.Format) error {
	// What goes is asked for by digest; people know it by name.
	names := map[string][]string{}
	if format.Table() {
		images, err := a.client().Images(ctx)
		if err != nil {
			return a.cannot("collect images", "", err)
		}
		for _, i := range images {
			names[i.Digest] = i.Names
		}
	}
	g, err := a.client().CollectImages(ctx, r)
	switch {
	case err != nil:
		return a.cannot("collect images", "", err)
	case !format.Table():
		return format.Print(a.out, g)
	}
	verb, freed := "deleted", "freed"
	if r.DryRun {
		verb, freed = "would delete", "would be freed"
	}
	for _, digest := range g.Images {
		if err := a.print("%s: %s\n", verb, term.Clean(strings.TrimSpace(strings.Join(names[digest], " ")+" "+digest))); err != nil {
			return err
		}
	}
	for _, digest := range g.Blobs {
		if err := a.print("%s, the image stays: compressed layer %s\n", verb, term.Clean(digest)); err != nil {
			return err
		}
	}
	if len(g.Images) == 0 {
		a.note("no image %s", map[bool]string{true: "would go", false: "went"}[r.DryRun])
	}
	a.note("%s %s; %s", term.Size(g.Freed), freed, diskText(g.Disk))
	return nil
}

func (a *app) explainImage(ctx context.Context, ref string, format term.Format) error {
	e, err := a.client().ExplainImage(ctx, ref)
	switch {
	case err != nil:
		return a.cannot("explain image", ref, err)
	case !format.Table():
		return format.Print(a.out, e)
	}
	word := term.Cell{Text: "goes", Style: term.Busy}
	if e.Stays {
		word = term.Cell{Text: "stays", Style: term.Good}
	}
	t := term.NewTable()
	field := func(name string, c term.Cell) {
		if c.Text != "" {
			t.Cells(term.Cell{Text: name, Style: term.Faint}, c)
		}
	}
	field("image", term.Cell{Text: e.Image, Style: term.Bold})
	field("digest", term.Cell{Text: e.Digest})
	field("it", word)
	for _, reason := range e.Reasons {
		field("why", term.Cell{Text: reason})
	}
	field("last use", term.Cell{Text: a.out.Since(e.LastUse, time.Now())})
	field("size", term.Cell{Text: fmt.Sprintf("%s, of which only it takes %s", term.Size(e.Size), term.Size(e.Frees))})
	return t.Print(a.out)
}

// diskText is how full a disk is.
func diskText(d api.Disk) string {
	if d.Total == 0 {
		return "the disk's state is not known"
	}
	text := fmt.Sprintf("disk %.0f%% used, %s of %s free", d.Used, term.Size(d.Free), term.Size(d.Total))
	if d.Reserve > 0 {
		text += fmt.Sprintf(", pulls leave %s", term.Size(d.Reserve))
	}
	return text
}

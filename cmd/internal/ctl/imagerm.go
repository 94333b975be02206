package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
)

func imageRmCommand(a *app) *cobra.Command { return removeImageCommand(a, "rm", "image rm") }

// rmiAlias is `wherry ctl rmi`.
func rmiAlias(a *app) *cobra.Command { return removeImageCommand(a, "rmi", "rmi") }

func removeImageCommand(a *app, name, path string) *cobra.Command {
	var yes, force bool
	c := &cobra.Command{
		Use:   name + " IMAGE...",
		Short: "Take names of images away, and delete what nothing needs any more",
		Example: "  wherry ctl " + path + ` nginx:1.27
  wherry ctl ` + path + ` -f $(wherry ctl images -q)`,
		Long: `An image that a container uses stays. -f does not ask, and takes all names away
from an image that is named by its id.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.confirm(yes || force, fmt.Sprintf("Remove %s?", strings.Join(args, ", "))); err != nil {
				return err
			}
			var failed error
			for _, ref := range args {
				r, err := a.client().RemoveImage(c.Context(), ref, force)
				if err != nil {
					// The others still go; the last failure is the command's.
					if failed != nil {
						term.Report(a.err, failed)
					}
					failed = a.cannot("remove image", ref, err)
					continue
				}
				for _, n := range r.Untagged {
					if err := a.print("untagged: %s\n", n); err != nil {
						return err
					}
				}
				for _, d := range r.Deleted {
					if err := a.print("deleted: %s\n", d); err != nil {
						return err
					}
				}
				if r.Freed > 0 {
					a.note("%s freed", term.Size(r.Freed))
				}
			}
			return failed
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask, and take away all names")
	return c
}

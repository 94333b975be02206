package ctl

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func imageLoadCommand(a *app) *cobra.Command { return loadCommand(a, "image load") }

// loadAlias is `wherry ctl load`.
func loadAlias(a *app) *cobra.Command { return loadCommand(a, "load") }

// loadFlags are the flags of `load`.
type loadFlags struct {
	api.LoadRequest
	input  string
	quiet  bool
	format formatFlags
}

func loadCommand(a *app, path string) *cobra.Command {
	var f loadFlags
	c := &cobra.Command{
		Use:   "load [-i FILE | DIR]",
		Short: "Load images from an archive or an OCI layout",
		Example: "  wherry ctl " + path + ` -i images.tar
  docker save nginx | wherry ctl ` + path + `
  wherry ctl ` + path + ` ./oci-layout`,
		Long: `Takes docker archives and OCI archives, also compressed, from a file or stdin, and
the folder of an OCI layout. Prints the names of the images.`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(c *cobra.Command, args []string) error {
			format, err := f.format.parse()
			if err != nil {
				return err
			}
			archive, what, err := a.loadFrom(&f, args)
			if err != nil {
				return err
			}
			defer archive.Close()
			ctx, stop := watching(c.Context())
			defer stop()
			return a.load(ctx, archive, what, f, format)
		},
	}
	c.Flags().StringVarP(&f.input, "input", "i", "", "the archive; stdin if left out or -")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	c.Flags().StringVar(&f.Name, "name", "", "name for an image that the archive has none for")
	c.Flags().StringVar(&f.Platform, "platform", "", "os/architecture to take of an image that has several, if not the host's")
	f.format.add(c, "")
	return c
}

// loadFrom opens what the flags name.
func (a *app) loadFrom(f *loadFlags, args []string) (archive io.ReadCloser, what string, err error) {
	path := f.input
	if len(args) == 1 {
		if f.input != "" {
			return nil, "", term.Usage("-i %s and %s: one of them", f.input, args[0])
		}
		path = args[0]
	}
	if path == "" || path == "-" {
		if term.Open(a.in, func(string) string { return "" }).People() {
			return nil, "", &term.Failure{Code: term.ExitUsage, Err: errors.New("cannot load: stdin is a terminal"),
				Hint: "name the archive with -i FILE, or pipe it in"}
		}
		return io.NopCloser(a.in), "stdin", nil
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		f.Folder, err = filepath.Abs(path)
		if err != nil {
			return nil, "", err
		}
		return io.NopCloser(nil), path, nil
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, "", &term.Failure{Code: term.ExitUsage, Err: unreadable(path, err)}
	}
	return in, path, nil
}

func (a *app) load(ctx context.Context, archive io.Reader, what string, f loadFlags, format term.Format) error {
	bars := newPullProgress(a.err, f.quiet)
	images, err := a.client().Load(ctx, archive, f.LoadRequest, func(p api.Progress) {
		if p.Image == "" {
			p.Image = what
		}
		bars.update(p)
	})
	bars.finish()
	switch {
	case errors.Is(err, context.Canceled):
		a.note("not loaded")
		return term.Code(term.ExitInterrupted)
	case err != nil:
		return a.cannot("load", what, err)
	case !format.Table():
		return term.PrintEach(a.out, format, images)
	}
	for _, i := range images {
		if len(i.Names) == 0 {
			if err := a.print("Loaded image ID: %s\n", i.ConfigID); err != nil {
				return err
			}
		}
		for _, name := range i.Names {
			if err := a.print("Loaded image: %s\n", term.Clean(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

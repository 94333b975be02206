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

// imageVerbs is every command of `wherry ctl image`.
var imageVerbs = []func(*app) *cobra.Command{imagePullCommand, imageListCommand, imageInspectCommand, imageRmCommand,
	imageLoadCommand, imageSaveCommand, imageGCCommand, imageVerifyCommand}

func imageCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Images: pull, list, inspect, rm, load, save, gc, verify",
		Example: `  wherry ctl image pull nginx:1.27
  wherry ctl image list
  wherry ctl image rm nginx:1.27`,
	}
	for _, verb := range imageVerbs {
		c.AddCommand(verb(a))
	}
	return c
}

func imageListCommand(a *app) *cobra.Command {
	var f formatFlags
	var verbose bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List images",
		Example: `  wherry ctl image list
  wherry ctl image list -v          what they take, and who needs them
  wherry ctl image list -q`,
		Long: `SIZE is that of the download. -v measures: ON DISK is blobs and layers, UNIQUE
what no other image shares and a removal would free.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			if verbose && !f.quiet {
				return a.diskUsage(c.Context(), format)
			}
			images, err := a.client().Images(c.Context())
			switch {
			case err != nil:
				return a.cannot("list images", "", err)
			case f.quiet:
				for _, i := range images {
					if err := a.lines(nameOrDigest(i)); err != nil {
						return err
					}
				}
				return nil
			case !format.Table():
				return term.PrintEach(a.out, format, images)
			}
			t := term.NewTable("NAME", "ID", "PLATFORM", "SIZE", "PULLED")
			now := time.Now()
			for _, i := range images {
				for _, name := range nameOrDigest(i) {
					t.Row(name, shortID(i.ConfigID), i.Platform, term.Size(i.Size), a.out.Since(i.PulledAt, now))
				}
			}
			return t.Print(a.out)
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "measure what they take on disk; may take seconds")
	f.add(c, "names only")
	return c
}

// diskUsage is `image list -v`: by image, then the rest of the store.
func (a *app) diskUsage(ctx context.Context, format term.Format) error {
	u, err := a.client().DiskUsage(ctx)
	switch {
	case err != nil:
		return a.cannot("measure images", "", err)
	case format.JSON:
		return format.Print(a.out, u)
	case !format.Table():
		return term.PrintEach(a.out, format, u.Images)
	}
	t := term.NewTable("NAME", "DIGEST", "ON DISK", "UNIQUE", "UNITS")
	for _, i := range u.Images {
		names := i.Names
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		for _, name := range names {
			t.Row(name, shortID(i.Digest), term.Size(i.Size), term.Size(i.Unique), strings.Join(i.Units, ","))
		}
	}
	if err := t.Print(a.out); err != nil {
		return err
	}
	rest := fmt.Sprintf("blobs %s, layers %s, volumes %s", term.Size(u.Blobs), term.Size(u.Layers), term.Size(u.Volumes))
	if u.Partial > 0 {
		rest += ", partial downloads " + term.Size(u.Partial)
	}
	if u.Trash > 0 {
		rest += ", being deleted " + term.Size(u.Trash)
	}
	return a.print("\n%s; %s\n", rest, diskText(u.Disk))
}

// nameOrDigest is how an image can be asked for.
func nameOrDigest(i api.Image) []string {
	if len(i.Names) == 0 {
		return []string{i.Digest}
	}
	return i.Names
}

func imageInspectCommand(a *app) *cobra.Command {
	var text string
	c := &cobra.Command{
		Use:   "inspect IMAGE...",
		Short: "Everything about images, as JSON or through a template",
		Example: `  wherry ctl image inspect nginx:1.27
  wherry ctl image inspect -f '{{.Digest}} {{.Config.Cmd}}' nginx:1.27`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			format, err := term.ParseFormat(text)
			if err != nil {
				return &term.Failure{Code: term.ExitUsage, Err: err}
			}
			images := make([]api.Image, 0, len(args))
			for _, ref := range args {
				i, err := a.client().Image(c.Context(), ref)
				if err != nil {
					return a.cannot("inspect image", ref, err)
				}
				images = append(images, i)
			}
			if format.Table() {
				return term.PrintJSON(a.out, images)
			}
			return term.PrintEach(a.out, format, images)
		},
	}
	c.Flags().StringVarP(&text, "format", "f", "json", "json, or a template for each image")
	return c
}

func imagesCommand(a *app) *cobra.Command {
	var f formatFlags
	c := &cobra.Command{
		Use:   "images",
		Short: "List images as Docker does",
		Example: `  wherry ctl images
  wherry ctl images -q
  wherry ctl images --format '{{.Repository}}:{{.Tag}} {{.Size}}'`,
		Long: `A Docker-shaped view, one line a name. Fields of templates: ID Repository Tag
Digest CreatedSince CreatedAt Size.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			images, err := a.client().Images(c.Context())
			if err != nil {
				return a.cannot("list images", "", err)
			}
			rows := []imageRow{}
			for _, i := range images {
				if f.quiet {
					if err := a.print("%s\n", shortID(i.ConfigID)); err != nil {
						return err
					}
				}
				rows = append(rows, newImageRows(i, time.Now())...)
			}
			switch {
			case f.quiet:
				return nil
			case !format.Table():
				return term.PrintEach(a.out, format, rows)
			}
			t := term.NewTable("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")
			for _, r := range rows {
				t.Row(r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size)
			}
			return t.Print(a.out)
		},
	}
	f.add(c, "ids only")
	return c
}

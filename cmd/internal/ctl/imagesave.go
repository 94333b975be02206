package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

func imageSaveCommand(a *app) *cobra.Command { return saveCommand(a, "image save") }

// saveAlias is `wherry ctl save`.
func saveAlias(a *app) *cobra.Command { return saveCommand(a, "save") }

// The forms of --format.
const (
	dockerArchive = "docker-archive"
	ociArchive    = "oci-archive"
	ociFolder     = "oci"
)

var saveFormats = []string{dockerArchive, ociArchive, ociFolder}

func saveCommand(a *app, path string) *cobra.Command {
	var output, format string
	c := &cobra.Command{
		Use:   "save [-o FILE] IMAGE...",
		Short: "Save images as an archive or an OCI layout",
		Example: "  wherry ctl " + path + ` -o nginx.tar nginx:1.27
  wherry ctl ` + path + ` nginx:1.27 redis:8 | ssh node2 sudo wherry ctl load
  wherry ctl ` + path + ` --format oci -o ./layout nginx:1.27`,
		Long: `docker-archive is what "docker load" reads, oci-archive an OCI layout in one tar
file, oci a folder: one that is there already keeps its other images. A file is
there whole or not at all.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(saveFormats, format) {
				return term.Usage("--format %s: want docker-archive, oci-archive or oci", format)
			}
			ctx, stop := watching(c.Context())
			defer stop()
			err := a.save(ctx, output, api.SaveRequest{Refs: args, Format: format})
			if errors.Is(err, context.Canceled) {
				a.note("not saved")
				return term.Code(term.ExitInterrupted)
			}
			return a.cannot("save", strings.Join(args, " "), err)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the file, or the folder of the format oci; stdout if left out")
	c.Flags().StringVar(&format, "format", dockerArchive, "docker-archive, oci-archive or oci")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(saveFormats, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) save(ctx context.Context, output string, r api.SaveRequest) error {
	switch {
	case r.Format == ociFolder && (output == "" || output == "-"):
		return term.Usage("--format oci writes a folder: name it with -o DIR")
	case r.Format == ociFolder:
		return a.saveFolder(ctx, output, r)
	case output == "" || output == "-":
		if a.out.People() {
			return &term.Failure{Code: term.ExitUsage, Err: errors.New("cannot save: stdout is a terminal"),
				Hint: "name a file with -o FILE, or pipe it on"}
		}
		return a.client().Save(ctx, a.out, r)
	}
	return a.saveFile(ctx, output, r)
}

func (a *app) saveFolder(ctx context.Context, dir string, r api.SaveRequest) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return term.Usage("%s is a file; --format oci writes a folder", dir)
	}
	var err error
	if r.Folder, err = filepath.Abs(dir); err != nil {
		return err
	}
	return a.client().Save(ctx, nil, r)
}

// saveFile writes beside the file and puts it there when it is whole. What is
// no plain file, such as a pipe, is written to directly.
func (a *app) saveFile(ctx context.Context, path string, r api.SaveRequest) (err error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return &term.Failure{Code: term.ExitUsage, Err: fmt.Errorf("%s is a folder", path), Hint: "--format oci writes a folder"}
	case err == nil && !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return unwritable(path, err)
		}
		return errors.Join(a.client().Save(ctx, f, r), f.Close())
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the link stays, what it leads to is replaced
	}
	// What CreateTemp makes is its owner's alone; an archive is like any other file of ours.
	mode := fs.FileMode(0o666) &^ umask()
	if info != nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return unwritable(path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := a.client().Save(ctx, f, r); err != nil {
		return unwritable(path, err)
	}
	if err := errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return unwritable(path, err)
	}
	return os.Rename(f.Name(), path)
}

// unwritable names the file that was asked for instead of the one beside it.
func unwritable(path string, err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return fmt.Errorf("write %s: %w", path, of.Err)
	}
	return err
}

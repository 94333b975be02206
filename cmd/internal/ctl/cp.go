package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/runtime/copying"
	"github.com/wherry-run/wherry/supervisor/api"
)

func cpCommand(a *app) *cobra.Command {
	var f cpFlags
	c := &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files into or out of a container",
		Example: `  wherry ctl cp web:/var/log/app .
  wherry ctl cp app.conf web.1/php:/etc/app/
  wherry ctl cp site/. web:/srv           what is in site, without site
  tar c . | wherry ctl cp - web:/srv      or an archive, in both directions`,
		Long: `One of the two is TARGET:PATH, of a container that runs or has run last. Where the
destination is a folder the copy goes into it, otherwise it gets that name. What is copied into
a container belongs to root there, what is copied out of it to who runs this, unless -a is
given. Devices, pipes and sockets are left out, with a warning.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completePlace,
		RunE: func(c *cobra.Command, args []string) error {
			from, to := parsePlace(args[0]), parsePlace(args[1])
			switch {
			case from.target != "" && to.target != "":
				return term.Usage("one of the two must be a path here: there is no copying between containers")
			case from.target != "":
				return a.cannot("copy from", from.target, a.copyOut(c.Context(), from, to.path, f))
			case to.target != "":
				err := a.copyIn(c.Context(), from.path, to, f)
				if err == nil && !f.quiet {
					a.warnOfEnded(c.Context(), to.target)
				}
				return a.cannot("copy to", to.target, err)
			}
			return term.Usage("neither is in a container: write TARGET:PATH")
		},
	}
	c.Flags().BoolVarP(&f.archive, "archive", "a", false, "keep owners")
	c.Flags().BoolVarP(&f.follow, "follow-link", "L", false, "copy what a link at SOURCE leads to")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no warnings")
	_ = c.Flags().MarkHidden("quiet")
	return c
}

// warnOfEnded says what becomes of a copy into a container that has ended.
func (a *app) warnOfEnded(ctx context.Context, target string) {
	name, _ := api.SplitTarget(target)
	d, err := a.client().Unit(ctx, name)
	if err == nil && !slices.ContainsFunc(d.Instances, func(i api.Instance) bool { return i.Pid != 0 }) {
		a.warn([]string{d.Name + " does not run, and its next start has a root file system of its own: what was copied stays with the run that has ended"})
	}
}

type cpFlags struct{ archive, follow, quiet bool }

// copyPlace is one end of a copy; target is empty for a path here.
type copyPlace struct{ target, path string }

// parsePlace tells TARGET:PATH from a path, which may hold a colon behind a slash.
func parsePlace(text string) copyPlace {
	target, name, ok := strings.Cut(text, ":")
	if !ok || target == "" || strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") {
		return copyPlace{path: text}
	}
	if name == "" {
		name = "/"
	}
	return copyPlace{target, name}
}

// contents tells whether only what is in a folder is meant.
func contents(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

func slashed(p string) bool { return strings.HasSuffix(p, "/") || contents(p) }

// destination says into which folder an archive goes and what its first entry is called there, as
// cp and Docker do: info is of the destination, nil if it is not there.
func destination(to string, info *api.FileInfo, source string, dir bool) (folder, as string, err error) {
	base := path.Base(path.Clean("/" + filepath.ToSlash(source)))
	switch {
	case info != nil && !info.Mode.IsDir() && !info.Mode.IsRegular():
		return "", "", fmt.Errorf("%s is a device, pipe or socket, and is not replaced", to)
	case info != nil && info.Mode.IsDir():
		if dir && contents(source) || base == "/" {
			return to, "", nil
		}
		return to, base, nil
	case info != nil && dir:
		return "", "", fmt.Errorf("%s is a file, and what is to be copied is a folder", to)
	case info == nil && slashed(to) && !dir:
		return "", "", fmt.Errorf("%s: there is no such folder", to)
	case info != nil && slashed(to):
		return "", "", fmt.Errorf("%s is no folder", to)
	}
	clean := path.Clean(to)
	return path.Dir(clean), path.Base(clean), nil
}

// copyOut copies from a container.
func (a *app) copyOut(ctx context.Context, from copyPlace, to string, f cpFlags) error {
	follow := f.follow || slashed(from.path)
	info, err := a.client().FileInfo(ctx, from.target, from.path, follow)
	if err != nil {
		return err
	}
	r := api.CopyFrom{Target: from.target, Path: from.path, Follow: follow, As: info.Name}
	if to == "-" {
		if a.out.People() {
			return &term.Failure{Code: term.ExitUsage, Err: errors.New("an archive does not go to a terminal"), Hint: "redirect it: > files.tar"}
		}
		if contents(from.path) || info.Name == "/" {
			r.As = ""
		}
		skipped, err := a.client().CopyFrom(ctx, r, a.out)
		a.skipped(skipped, f)
		return err
	}
	folder, as, err := destination(filepath.ToSlash(to), localInfo(to), from.path, info.Mode.IsDir())
	if err != nil {
		return err
	}
	if r.As = as; as == "" && !info.Mode.IsDir() {
		r.As = info.Name
	}
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	read, write := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		skipped, err := a.client().CopyFrom(ctx, r, write)
		a.skipped(skipped, f)
		write.CloseWithError(err)
		sent <- err
	}()
	o := copying.WriteOptions{Owners: f.archive, Keep: !f.archive}
	err = copying.Root{Dir: dir}.Write(ctx, read, "/", o)
	if err == nil {
		_, err = io.Copy(io.Discard, read)
	}
	read.CloseWithError(errStopped)
	if serr := <-sent; serr != nil && !errors.Is(serr, errStopped) {
		return serr // what came broke off because of it
	}
	return err
}

var errStopped = errors.New("the other side has stopped")

// localInfo is of a path here; nil if there is nothing.
func localInfo(name string) *api.FileInfo {
	st, err := os.Stat(name)
	if err != nil {
		return nil
	}
	return &api.FileInfo{Name: st.Name(), Mode: st.Mode(), Size: st.Size(), ModTime: st.ModTime()}
}

// skipped warns of what was left out.
func (a *app) skipped(list []string, f cpFlags) {
	if f.quiet {
		return
	}
	for _, s := range list {
		term.Warn(a.err, "left out: "+s)
	}
}

// copyIn copies into a container.
func (a *app) copyIn(ctx context.Context, from string, to copyPlace, f cpFlags) error {
	var there *api.FileInfo
	info, err := a.client().FileInfo(ctx, to.target, to.path, true)
	switch {
	case err == nil:
		there = &info
	case !errors.Is(err, api.ErrNoFile):
		return err
	}
	r := api.CopyTo{Target: to.target, Path: to.path, Owners: f.archive}
	if from == "-" {
		if there == nil || !there.Mode.IsDir() {
			return fmt.Errorf("%s: an archive goes into a folder", to.path)
		}
		res, err := a.client().CopyTo(ctx, r, a.in)
		a.skipped(res.Skipped, f)
		return err
	}
	follow := f.follow || slashed(from)
	stat := os.Lstat
	if follow {
		stat = os.Stat
	}
	st, err := stat(from)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	source := filepath.ToSlash(abs)
	if contents(from) {
		source += "/."
	}
	var as string
	if r.Path, as, err = destination(to.path, there, source, st.IsDir()); err != nil {
		return err
	}
	return a.sendFiles(ctx, abs, as, st, r, copying.ReadOptions{As: as, Follow: follow}, f)
}

// sendFiles reads a file or folder here while it is unpacked there.
func (a *app) sendFiles(ctx context.Context, abs, as string, st fs.FileInfo, r api.CopyTo, o copying.ReadOptions, f cpFlags) error {
	if as == "" && !st.IsDir() {
		o.As = st.Name()
	}
	dir, err := os.Open("/")
	if err != nil {
		return err
	}
	defer dir.Close()
	var left []string
	o.Skipped = func(text string) { left = append(left, text) }
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := copying.Root{Dir: dir}.Read(ctx, write, abs, o)
		write.CloseWithError(err)
		done <- err
	}()
	res, err := a.client().CopyTo(ctx, r, read)
	read.CloseWithError(errStopped)
	if rerr := <-done; rerr != nil && !errors.Is(rerr, errStopped) {
		return rerr
	}
	a.skipped(append(left, res.Skipped...), f)
	return err
}

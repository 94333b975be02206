package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime"
	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// openOCIInit is openInit for a process that lives as long as a command: the copy
// has the identity of our binary in its name, so nothing has to be hashed.
func (o *oci) openInit() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		return nil, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	name := fmt.Sprintf("init-%x-%x-%x-%x", sys.Dev, sys.Ino, st.Size(), st.ModTime().UnixNano())
	path := filepath.Join(o.helpers(), name)
	for range 2 { // another version of us may drop it meanwhile
		if !sameSize(path, self) {
			if err := os.MkdirAll(o.helpers(), 0o711); err != nil {
				return nil, err
			}
			if err := writeCopy(path, self); err != nil {
				return nil, err
			}
			o.dropCopies(name)
		}
		f, err := protect(path)
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("init %s: %w", path, os.ErrNotExist)
}

// dropCopies removes the binaries of other versions. Containers keep the inode.
func (o *oci) dropCopies(keep string) {
	old, _ := filepath.Glob(filepath.Join(o.helpers(), "init-*"))
	for _, p := range old {
		if b := filepath.Base(p); b != keep && !strings.HasSuffix(b, ".tmp") {
			os.Remove(p)
		}
	}
}

// compileFilter returns the filter that our init is to load, and whether it is
// to. The program is compiled once for all containers of a root.
func (o *oci) compileFilter(spec *specs.Spec) (filterRef, bool, error) {
	if !selfLoadable(spec) || !wrappable(spec) || spec.Linux.Seccomp.ListenerMetadata != "" {
		return filterRef{}, false, nil
	}
	if err := os.MkdirAll(o.helpers(), 0o711); err != nil {
		return filterRef{}, false, err
	}
	ref, err := newFilters(o.helpers()).get(spec.Linux.Seccomp)
	return ref, err == nil, err
}

func (o *oci) saveExtra(id string, e ociExtra) error {
	return bundle.WriteJSON(o.extraPath(id), e) // whole or not at all, also if we are killed
}

func (o *oci) loadExtra(id string) (ociExtra, error) {
	var e ociExtra
	err := bundle.ReadJSON(o.extraPath(id), &e)
	if errors.Is(err, os.ErrNotExist) {
		return e, nil
	}
	return e, err
}

// findCommand says what libcontainer would have said of a command that is not
// there, had we not put our init in front of it: engines tell users of it as
// soon as the container is created.
func findCommand(pid int, p *specs.Process) error {
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil // it will say so itself
	}
	defer root.Close()
	return lookCommand(root, p.Args[0], p.Cwd, p.Env)
}

func lookCommand(root *os.File, name, cwd string, env []string) error {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(cwd, path)
		}
		if err := executable(root, path); err != nil {
			return fmt.Errorf("exec: %q: stat %s: %w", name, name, err)
		}
		return nil
	}
	search := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v // the last one counts
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cwd, dir)
		}
		if executable(root, filepath.Join(dir, name)) == nil {
			return nil
		}
	}
	return fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}

// executable is about files that are certainly absent or not executable; the kernel has
// the last word.
func executable(root *os.File, path string) error {
	f, err := openInRoot(root, path, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return unix.ENOENT
	}
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil
	case st.IsDir():
		return unix.EISDIR
	case st.Mode().Perm()&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

// execWords puts our init's report of a failed exec into the words by which
// engines know a missing command (127) from one that cannot be run (126).
func execWords(name string, err error) error {
	var errno unix.Errno
	switch {
	case errors.Is(err, runtime.ErrNotExecutable) && errors.As(err, &errno):
		return fmt.Errorf("exec %s: %w", name, errno)
	case errors.Is(err, runtime.ErrCommand) && !strings.Contains(name, "/"):
		return fmt.Errorf("exec: %q: executable file not found in $PATH", name)
	case errors.Is(err, runtime.ErrCommand):
		return fmt.Errorf("exec: %q: stat %s: %w", name, name, unix.ENOENT)
	}
	return fmt.Errorf("exec %q: %w", name, err)
}

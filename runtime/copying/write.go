package copying

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/internal/nsthread"
)

// WriteOptions say what Write does with owners.
type WriteOptions struct {
	Owners  bool         // the archive's; otherwise everything is root's, inside
	Keep    bool         // whoever we are is the owner, for a client's own folder
	Skipped func(string) // told of what is not made; may be nil
}

// Write unpacks an archive into the folder at name, over what is there. Files are replaced, folders
// are merged.
func (r Root) Write(ctx context.Context, archive io.Reader, name string, o WriteOptions) error {
	if o.Skipped == nil {
		o.Skipped = func(string) {}
	}
	if r.IDs == nil {
		return r.write(ctx, archive, name, o)
	}
	// On a mount whose ids are shifted nobody can make a file who has no id there.
	return nsthread.Spend(func() error {
		if err := become(r.IDs.Host); err != nil {
			return err
		}
		return r.write(ctx, archive, name, o)
	})
}

// become lets the calling thread make files as id. Its capabilities stay: the kernel takes some from
// those in effect when the id is no longer 0.
func become(id uint32) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&h, &had[0]); err != nil {
		return fmt.Errorf("own capabilities: %w", err)
	}
	for _, call := range []uintptr{unix.SYS_SETFSGID, unix.SYS_SETFSUID} {
		unix.RawSyscall(call, uintptr(id), 0, 0)
		if now, _, _ := unix.RawSyscall(call, ^uintptr(0), 0, 0); uint32(now) != id {
			return fmt.Errorf("make files as %d: %w", id, unix.EPERM)
		}
	}
	if err := unix.Capset(&h, &had[0]); err != nil {
		return fmt.Errorf("own capabilities: %w", err)
	}
	return nil
}

func (r Root) write(ctx context.Context, archive io.Reader, name string, o WriteOptions) error {
	dir, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	dir.Close()
	w := &writer{ctx: ctx, root: r, base: name, o: o, in: tar.NewReader(archive)}
	for {
		h, err := w.in.Next()
		if err == io.EOF {
			return w.finish()
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(h); err != nil {
			return err
		}
	}
}

type writer struct {
	ctx  context.Context
	root Root
	base string
	o    WriteOptions
	in   *tar.Reader
	dirs []made
}

// made is a folder whose time is set at the end: what is put into it changes that.
type made struct {
	name string
	at   time.Time
}

// entry makes one entry of the archive.
func (w *writer) entry(h *tar.Header) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if strings.ContainsRune(h.Name, 0) {
		return errors.New("archive: a name holds a zero byte")
	}
	if name == "" {
		return nil // the folder itself, which is there
	}
	shown := path.Join("/", w.base, name)
	parent, err := w.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(name)
	switch h.Typeflag {
	case tar.TypeDir:
		err = w.folder(parent, base, shown, h)
	case tar.TypeReg:
		err = w.file(parent, base, h)
	case tar.TypeSymlink:
		err = w.symlink(parent, base, h)
	case tar.TypeLink:
		err = w.link(parent, base, h)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		w.o.Skipped(shown + ": " + kind(h.FileInfo().Mode()))
		return nil
	}
	return explain(shown, err)
}

// parent opens the folder that an entry goes into, and makes it if the archive does not hold it. Links
// lead to where they would lead inside.
func (w *writer) parent(name string) (*os.File, error) {
	at := path.Join(w.base, name)
	f, err := w.root.open(at, unix.O_RDONLY|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || name == "." {
		return f, err
	}
	above, err := w.parent(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	if err := w.mkdir(above, path.Base(name), &tar.Header{Mode: 0o755, ModTime: time.Now()}); err != nil {
		return nil, explain(at, err)
	}
	return w.root.open(at, unix.O_RDONLY|unix.O_DIRECTORY)
}

// folder makes a folder, or leaves the one that is there, also behind a link, as it is.
func (w *writer) folder(parent *os.File, base, shown string, h *tar.Header) error {
	if f, err := w.root.open(shown, unix.O_PATH|unix.O_DIRECTORY); err == nil {
		f.Close()
		return nil
	}
	if err := remove(parent, base); err != nil {
		return err
	}
	if err := w.mkdir(parent, base, h); err != nil {
		return err
	}
	w.dirs = append(w.dirs, made{shown, h.ModTime})
	return nil
}

func (w *writer) mkdir(parent *os.File, base string, h *tar.Header) error {
	if err := unix.Mkdirat(int(parent.Fd()), base, 0o700); err != nil {
		return err
	}
	f, err := openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.dress(f, h)
}

var errSpecial = errors.New("a device, pipe or socket is there, and is not replaced")

// remove makes room for a new entry. A folder that is not empty stays, as an error, and so
// does what is no file: a copy to /dev/null must not make a file of it.
func remove(parent *os.File, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
			return errSpecial
		}
	}
	err := unix.Unlinkat(int(parent.Fd()), base, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(int(parent.Fd()), base, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (w *writer) file(parent *os.File, base string, h *tar.Header) error {
	f, err := create(parent, base)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, readerWith{w.ctx, w.in}); err != nil {
		return err
	}
	if err := w.dress(f, h); err != nil {
		return err
	}
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, self(f), []unix.Timespec{at, at}, 0); err != nil {
		return err
	}
	return f.Close()
}

// create makes a new file in the place of what is there. What is mounted there, such as /etc/hosts, is written over.
func create(parent *os.File, base string) (*os.File, error) {
	err := remove(parent, base)
	if errors.Is(err, unix.EBUSY) {
		return overwrite(parent, base)
	}
	if err != nil {
		return nil, err
	}
	return openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
}

func overwrite(parent *os.File, base string) (*os.File, error) {
	f, err := openat(parent, base, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, unix.EBUSY
	}
	return reopen(f, unix.O_WRONLY|unix.O_TRUNC)
}

// readerWith is a reader that a context ends.
type readerWith struct {
	ctx context.Context
	io.Reader
}

func (r readerWith) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (w *writer) symlink(parent *os.File, base string, h *tar.Header) error {
	if err := remove(parent, base); err != nil {
		return err
	}
	if err := unix.Symlinkat(h.Linkname, int(parent.Fd()), base); err != nil {
		return err
	}
	uid, gid, err := w.owner(h)
	if err != nil || w.o.Keep {
		return err
	}
	return unix.Fchownat(int(parent.Fd()), base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// link makes another name of a file that the archive has brought, which must be no link itself.
func (w *writer) link(parent *os.File, base string, h *tar.Header) error {
	to, err := w.root.open(path.Join(w.base, path.Clean("/"+h.Linkname)), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer to.Close()
	if st, err := to.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("hard link to %s: not a file", h.Linkname))
	}
	if err := remove(parent, base); err != nil {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, self(to), int(parent.Fd()), base, unix.AT_SYMLINK_FOLLOW)
}

// owner is whom an entry belongs to, on the host.
func (w *writer) owner(h *tar.Header) (uid, gid int, err error) {
	if w.o.Owners {
		uid, gid = h.Uid, h.Gid
	}
	if uid, err = w.root.IDs.outside(uid); err != nil {
		return 0, 0, err
	}
	gid, err = w.root.IDs.outside(gid)
	return uid, gid, err
}

// dress gives an open file or folder its owner, mode and attributes, in this order: a change of the owner takes
// set-user-id bits and capabilities.
func (w *writer) dress(f *os.File, h *tar.Header) error {
	if !w.o.Keep {
		uid, gid, err := w.owner(h)
		if err != nil {
			return err
		}
		if err := unix.Fchown(int(f.Fd()), uid, gid); err != nil {
			return err
		}
	}
	mode := uint32(h.Mode & 0o7777)
	if w.o.Keep && !w.o.Owners {
		mode &= 0o777 // never a set-user-id program of ours made by somebody else
	}
	if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !portable(name) || w.o.Keep && name == "security.capability" {
			continue
		}
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

// finish sets the folders' times, the innermost first.
func (w *writer) finish() error {
	for i := len(w.dirs) - 1; i >= 0; i-- {
		d := w.dirs[i]
		f, err := w.root.open(d.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			continue // it has been replaced by something else
		}
		at := unix.NsecToTimespec(d.at.UnixNano())
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, self(f), []unix.Timespec{at, at}, 0)
		f.Close()
	}
	return nil
}

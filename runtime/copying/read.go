package copying

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ReadOptions say what Read writes.
type ReadOptions struct {
	As      string       // the name in the archive; empty: what is in the folder, without the folder
	Follow  bool         // a link at the path is followed
	Skipped func(string) // told of what cannot be copied, "PATH: a socket"; may be nil
}

// Read writes the file or folder at name, with all that is below it, as an archive to w. What
// vanishes meanwhile is left out.
func (r Root) Read(ctx context.Context, w io.Writer, name string, o ReadOptions) error {
	f, err := r.open(name, unix.O_PATH|nofollow(o.Follow))
	if err != nil {
		return err
	}
	defer f.Close()
	if o.Skipped == nil {
		o.Skipped = func(string) {}
	}
	t := &reader{ctx: ctx, root: r, o: o, tar: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 128<<10)}
	if err := t.entry(f, o.As, path.Clean("/"+name)); err != nil {
		return err
	}
	return t.tar.Close()
}

// inode is a file that may have several names.
type inode struct{ dev, ino uint64 }

type reader struct {
	ctx   context.Context
	root  Root
	o     ReadOptions
	tar   *tar.Writer
	links map[inode]string // names in the archive
	buf   []byte
}

// entry writes what f, opened with O_PATH, stands for. shown is where people find it.
func (t *reader) entry(f *os.File, name, shown string) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return explain(shown, err)
	}
	info, err := f.Stat()
	if err != nil {
		return explain(shown, err)
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), ModTime: info.ModTime(), Format: tar.FormatPAX,
		Uid: t.root.IDs.inside(st.Uid), Gid: t.root.IDs.inside(st.Gid)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.folder(f, h, shown)
	case unix.S_IFLNK:
		if h.Linkname, err = readlink(f); err != nil {
			return explain(shown, err)
		}
		h.Typeflag = tar.TypeSymlink
		return t.tar.WriteHeader(h)
	case unix.S_IFREG:
		if st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino}
			if first, ok := t.links[id]; ok {
				h.Typeflag, h.Linkname = tar.TypeLink, first
				return t.tar.WriteHeader(h)
			}
			t.links[id] = name
		}
		return t.file(f, h, info.Size(), shown)
	}
	t.o.Skipped(shown + ": " + kind(info.Mode()))
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "a device"
}

// file writes as many bytes as its header promises: one that grows is cut, one that shrinks
// meanwhile is an error, as its archive would be no archive any more.
func (t *reader) file(f *os.File, h *tar.Header, size int64, shown string) error {
	in, err := reopen(f, unix.O_RDONLY)
	if err != nil {
		return explain(shown, err)
	}
	defer in.Close()
	h.Typeflag, h.Size = tar.TypeReg, size
	addXattrs(f, h)
	if err := t.tar.WriteHeader(h); err != nil {
		return err
	}
	for left := size; left > 0; {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		n, err := in.Read(t.buf[:min(int64(len(t.buf)), left)])
		if n > 0 {
			if _, err := t.tar.Write(t.buf[:n]); err != nil {
				return err
			}
			left -= int64(n)
		}
		if err == io.EOF && left > 0 {
			return fmt.Errorf("%s: it became shorter while it was read", shown)
		}
		if err != nil && err != io.EOF {
			return explain(shown, err)
		}
	}
	return nil
}

// folder writes a folder and what is in it.
func (t *reader) folder(f *os.File, h *tar.Header, shown string) error {
	h.Typeflag = tar.TypeDir
	if h.Name != "" {
		addXattrs(f, h)
		named := *h
		named.Name += "/"
		if err := t.tar.WriteHeader(&named); err != nil {
			return err
		}
	}
	dir, err := reopen(f, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return explain(shown, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return explain(shown, err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := t.child(dir, n, path.Join(h.Name, n), path.Join(shown, n)); err != nil {
			return err
		}
	}
	return nil
}

func (t *reader) child(dir *os.File, n, name, shown string) error {
	f, err := openat(dir, n, unix.O_PATH, 0)
	if os.IsNotExist(err) {
		return nil // it has just gone
	}
	if err != nil {
		return explain(shown, err)
	}
	defer f.Close()
	if why := kernels(dir, f); why != "" {
		t.o.Skipped(shown + ": " + why)
		return nil
	}
	return t.entry(f, name, shown)
}

// kernels tells of a mount of what is no file system of files, such as /proc: it is copied only if
// it is asked for by name.
func kernels(dir, f *os.File) string {
	var above, here unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &above) != nil || unix.Fstat(int(f.Fd()), &here) != nil || above.Dev == here.Dev {
		return ""
	}
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) != nil {
		return ""
	}
	switch s.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, mqueueMagic:
		return "a file system of the kernel's own"
	}
	return ""
}

const mqueueMagic = 0x19800202

// xattrPrefix is how PAX archives name extended attributes.
const xattrPrefix = "SCHILY.xattr."

// portable tells which attributes mean something elsewhere.
func portable(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability"
}

// addXattrs adds the attributes that can be read; a file system without any is none.
func addXattrs(f *os.File, h *tar.Header) {
	size, err := unix.Listxattr(self(f), nil)
	if err != nil || size <= 0 {
		return
	}
	list := make([]byte, size)
	if size, err = unix.Listxattr(self(f), list); err != nil {
		return
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if !portable(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(self(f), name, value)
		if err != nil {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+name] = string(value[:n])
	}
}

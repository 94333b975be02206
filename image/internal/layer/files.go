package layer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/erofs"
)

// files is a layer that is there, in one of the forms.
type files interface {
	// lookup finds p, "" for the root. It follows no symlink, at no place of p;
	// what is not there is fs.ErrNotExist.
	lookup(p string) (inode, error)
	Close() error
}

// inode is a file of a layer.
type inode interface {
	stat() *erofs.Stat
	xattrs() (map[string]string, error)
	readlink() (string, error)
	open() (io.ReadCloser, error)
	names() ([]string, error) // in a folder, sorted
	// others yields the other paths of a file with several names.
	others(path string) iter.Seq2[string, error]
	is(other inode) bool // the same file
	close()
}

// namesOf yields the other paths of the file at path, by the layer's manifest;
// without one, there are none known.
func namesOf(dir, path string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		m, err := openManifest(dir)
		if errors.Is(err, ErrNoManifest) {
			return
		}
		if err != nil {
			yield("", err)
			return
		}
		defer m.Close()
		var first string // the manifest names a file's others by its first one
		var before []string
		for e, err := range m.Entries() {
			switch {
			case err != nil:
				yield("", err)
				return
			case e.Path == path:
				if first = e.Link; first == "" {
					first = path
				}
			case e.Link != "" && first == "":
				before = append(before, e.Link, e.Path)
			case e.Link != "" && e.Link == first:
				if !yield(e.Path, nil) {
					return
				}
			}
		}
		if first == path {
			return
		}
		if !yield(first, nil) {
			return
		}
		for i := 0; i < len(before); i += 2 {
			if before[i] == first && !yield(before[i+1], nil) {
				return
			}
		}
	}
}

// openFiles opens the layer in the folder dir of a store.
func openFiles(dir string, form Form) (files, error) {
	if form != EROFS {
		fd, err := unix.Open(filepath.Join(dir, diffName), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir, diffName), Err: err}
		}
		return &folderFiles{fd, dir}, nil
	}
	f, err := os.Open(filepath.Join(dir, imageName))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := erofs.Open(f, st.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &imageFiles{f, r, dir}, nil
}

// folderFiles is an unpacked folder.
type folderFiles struct {
	root int
	dir  string
}

func (f *folderFiles) Close() error { return unix.Close(f.root) }

func (f *folderFiles) lookup(p string) (inode, error) {
	fd, err := openBeneath(f.root, p, unix.O_PATH)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", p, err)
	}
	in := &folderInode{f: f, path: p, fd: fd}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		in.close()
		return nil, err
	}
	in.st = erofs.Stat{
		Ino: st.Ino, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink), Size: st.Size,
		Mtime: st.Mtim.Sec, MtimeNsec: uint32(st.Mtim.Nsec), Rdev: st.Rdev,
	}
	return in, nil
}

// folderInode has a descriptor that opens nothing, so that neither a fifo nor a
// mode without permissions is in the way.
type folderInode struct {
	f    *folderFiles
	path string
	fd   int
	st   erofs.Stat
}

func (in *folderInode) stat() *erofs.Stat { return &in.st }
func (in *folderInode) close()            { unix.Close(in.fd) }

func (in *folderInode) others(path string) iter.Seq2[string, error] { return namesOf(in.f.dir, path) }

func (in *folderInode) is(other inode) bool {
	o, ok := other.(*folderInode)
	return ok && o.f == in.f && o.st.Ino == in.st.Ino
}

func (in *folderInode) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(in.fd, "", buf)
	return string(buf[:max(n, 0)]), err
}

// xattrs goes by /proc, because the calls do not take a descriptor of O_PATH.
func (in *folderInode) xattrs() (map[string]string, error) {
	self := fmt.Sprintf("/proc/self/fd/%d", in.fd)
	var names [64 << 10]byte
	n, err := unix.Listxattr(self, names[:])
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("attributes of %s: %w", in.path, err)
	}
	var all map[string]string
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, maxValue+1)
		n, err := unix.Getxattr(self, name, value)
		if err != nil {
			continue // not ours to read: such are not set by us
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = string(value[:n])
	}
	return all, nil
}

func (in *folderInode) open() (io.ReadCloser, error) {
	return in.file(unix.O_RDONLY | unix.O_NONBLOCK)
}

func (in *folderInode) file(flags uint64) (*os.File, error) {
	fd, err := openBeneath(in.f.root, in.path, flags)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", in.path, err)
	}
	return os.NewFile(uintptr(fd), in.path), nil
}

func (in *folderInode) names() ([]string, error) {
	d, err := in.file(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// imageFiles is an EROFS image.
type imageFiles struct {
	f   *os.File
	r   *erofs.Reader
	dir string
}

func (f *imageFiles) Close() error { return f.f.Close() }

func (f *imageFiles) lookup(p string) (inode, error) {
	n, err := f.r.Lookup(p)
	if errors.Is(err, unix.ENOTDIR) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return imageInode{n, f}, nil
}

type imageInode struct {
	n *erofs.Node
	f *imageFiles
}

func (in imageInode) stat() *erofs.Stat                  { return &in.n.Stat }
func (in imageInode) xattrs() (map[string]string, error) { return in.n.Xattrs() }
func (in imageInode) readlink() (string, error)          { return in.n.Readlink() }
func (in imageInode) close()                             {}

func (in imageInode) others(path string) iter.Seq2[string, error] { return namesOf(in.f.dir, path) }

func (in imageInode) is(other inode) bool {
	o, ok := other.(imageInode)
	return ok && o.f == in.f && o.n.Ino == in.n.Ino
}

func (in imageInode) open() (io.ReadCloser, error) {
	r, err := in.n.Open()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

func (in imageInode) names() ([]string, error) {
	var names []string
	err := in.n.Each(func(name string, _ uint64) error {
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

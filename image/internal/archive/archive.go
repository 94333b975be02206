package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxSmall      = 1 << 20  // from this size on a file is the caller's to keep
	maxSmallTotal = 64 << 20 // bytes of small files together
	maxFiles      = 100_000
	maxName       = 4096 // bytes; a header has room for a megabyte
	maxLinks      = 40
)

// Kept is a large file that the caller has put somewhere.
type Kept interface {
	io.ReaderAt
	Size() int64
	Discard()
}

// Files is the content of an archive by clean relative names. Close it.
type Files struct {
	root  *os.Root // of a folder
	files map[string]*file
	links map[string]string // to clean names
	small int
}

type file struct {
	data []byte
	kept Kept
}

// Open reads a folder in place.
func Open(dir string) (*Files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Files{root: root}, nil
}

// Read reads a plain tar file to its end. keep is called for every large file and
// has to take all of r. Errors do not say that they are about an archive.
func Read(ctx context.Context, r io.Reader, keep func(r io.Reader, size int64) (Kept, error)) (_ *Files, err error) {
	a := &Files{files: map[string]*file{}, links: map[string]string{}}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, notAnArchive(err, len(a.files)+len(a.links))
		}
		if err := a.add(h, tr, keep); err != nil {
			return nil, fmt.Errorf("%.200s: %w", h.Name, cutOff(err))
		}
	}
	if len(a.files) == 0 {
		return nil, errors.New("it is empty")
	}
	_, err = io.Copy(io.Discard, r) // whoever writes to us must not get a broken pipe
	return a, err
}

func notAnArchive(err error, seen int) error {
	if seen == 0 && errors.Is(err, tar.ErrHeader) {
		return errors.New("not a tar file")
	}
	return cutOff(err)
}

// cutOff says what the end of a file in the middle of one means.
func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cut off before its end: %w", err)
	}
	return err
}

func (a *Files) add(h *tar.Header, r io.Reader, keep func(io.Reader, int64) (Kept, error)) error {
	name := clean(h.Name)
	if len(a.files)+len(a.links) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	if len(name) > maxName || len(h.Linkname) > maxName {
		return errors.New("file name too long")
	}
	switch h.Typeflag {
	case tar.TypeSymlink: // old docker archives name shared layers so
		if !path.IsAbs(h.Linkname) {
			a.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		}
		return nil
	case tar.TypeLink:
		a.links[name] = clean(h.Linkname)
		return nil
	case tar.TypeReg, '\x00':
	default:
		return nil
	}
	delete(a.links, name)
	if old := a.files[name]; old != nil {
		old.discard()
		delete(a.files, name)
	}
	if h.Size >= maxSmall {
		k, err := keep(r, h.Size)
		if err == nil {
			a.files[name] = &file{kept: k}
		}
		return err
	}
	if a.small += int(h.Size); a.small > maxSmallTotal {
		return fmt.Errorf("more than %d MiB of small files", maxSmallTotal>>20)
	}
	b := make([]byte, h.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	a.files[name] = &file{data: b}
	return nil
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// find follows links.
func (a *Files) find(name string) (*file, error) {
	name = clean(name)
	for range maxLinks {
		if f := a.files[name]; f != nil {
			return f, nil
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, fs.ErrNotExist
}

// Kept returns what keep returned for a large file.
func (a *Files) Kept(name string) (Kept, bool) {
	f, err := a.find(name)
	if err != nil || f.kept == nil {
		return nil, false
	}
	return f.kept, true
}

// Has tells whether there is a file of this name.
func (a *Files) Has(name string) bool {
	if a.root != nil {
		st, err := a.root.Stat(local(name))
		return err == nil && st.Mode().IsRegular()
	}
	_, err := a.find(name)
	return err == nil
}

// Open opens a file. A missing one is fs.ErrNotExist.
func (a *Files) Open(name string) (r io.ReadCloser, size int64, err error) {
	if a.root != nil {
		return a.openInRoot(name)
	}
	f, err := a.find(name)
	if err != nil {
		return nil, 0, fmt.Errorf("archive: %s: %w", name, err)
	}
	if f.kept != nil {
		return io.NopCloser(io.NewSectionReader(f.kept, 0, f.kept.Size())), f.kept.Size(), nil
	}
	return io.NopCloser(bytes.NewReader(f.data)), int64(len(f.data)), nil
}

func (a *Files) openInRoot(name string) (io.ReadCloser, int64, error) {
	st, err := a.root.Stat(local(name))
	if err == nil && !st.Mode().IsRegular() { // opening a fifo would wait for ever
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("archive: %s: %w", name, err)
	}
	f, err := a.root.OpenFile(local(name), os.O_RDONLY|unix.O_NONBLOCK, 0) // should it have become a fifo
	if err != nil {
		return nil, 0, fmt.Errorf("archive: %s: %w", name, err)
	}
	return f, st.Size(), nil
}

func local(name string) string {
	if name = clean(name); name == "" {
		return "."
	}
	return name
}

// ReadFile returns a small file's content.
func (a *Files) ReadFile(name string, limit int64) ([]byte, error) {
	r, size, err := a.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, fmt.Errorf("archive: %s: %d bytes are too many", name, size)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("it grows")
	}
	if err != nil {
		return nil, fmt.Errorf("archive: %s: %w", name, err)
	}
	return b, nil
}

// Close discards what was kept.
func (a *Files) Close() error {
	for _, f := range a.files {
		f.discard()
	}
	a.files = nil
	if a.root != nil {
		return a.root.Close()
	}
	return nil
}

func (f *file) discard() {
	if f.kept != nil {
		f.kept.Discard()
	}
}

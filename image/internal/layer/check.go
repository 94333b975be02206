package layer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/erofs"
)

// Checked is what Check has looked at.
type Checked struct {
	Files int   // regular files that were read
	Bytes int64 // of them
}

// Watch is who wants to know how a check goes.
type Watch struct {
	// Report is called for every difference: the path in the layer, "" for what is
	// not about one, and what is wrong with it.
	Report func(path, what string)
	Read   func(n int64) // nil or called for the bytes that were read
}

// Check compares a layer with its manifest and reports every difference. The
// error is about the check itself; ErrNoManifest and ErrManifest are among them.
func (s *Store) Check(ctx context.Context, key string, report func(path, what string)) (Checked, error) {
	return s.Examine(ctx, key, Watch{Report: report})
}

// Examine is Check for those who want to know more.
func (s *Store) Examine(ctx context.Context, key string, w Watch) (Checked, error) {
	m, err := s.ReadManifest(key)
	if err != nil {
		return Checked{}, err
	}
	defer m.Close()
	return s.check(ctx, key, m.Form, m, w)
}

// check compares a layer of the given form with a manifest, which is the layer's
// own one if that is of an image.
func (s *Store) check(ctx context.Context, key string, form Form, m *Manifest, w Watch) (Checked, error) {
	f, err := openFiles(filepath.Join(s.dir, key), form)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, erofs.ErrDamaged) || errors.Is(err, unix.EIO) {
		w.Report("", damage(err))
		return Checked{}, nil
	}
	if err != nil {
		return Checked{}, fmt.Errorf("layer %s: %w", key, err)
	}
	defer f.Close()
	if img, ok := f.(*imageFiles); ok && m.Form == EROFS {
		sum, err := sumOfMetadata(img.f, m.MetaStart)
		switch {
		case errors.Is(err, unix.EIO):
			w.Report("", damage(err))
		case err != nil:
			return Checked{}, fmt.Errorf("layer %s: %w", key, err)
		case sum != m.MetaSum:
			w.Report("", "metadata of the image differs")
		}
	}
	c := &checker{ctx: ctx, files: f, report: w.Report, read: w.Read, buf: make([]byte, largeChunk)}
	for e, err := range m.Entries() {
		if err == nil {
			err = c.entry(&e)
		}
		if err != nil {
			return c.done, fmt.Errorf("layer %s: %w", key, err)
		}
	}
	return c.done, c.leaveTo("\x00")
}

// checker goes along a manifest and a layer.
type checker struct {
	ctx    context.Context
	files  files
	report func(path, what string)
	read   func(int64) // may be nil
	done   Checked
	buf    []byte
	in     []openFolder // from the root to where we are
}

// openFolder is a folder whose entries come at the moment.
type openFolder struct {
	path  string
	names []string // that the manifest has in it, sorted
}

// entry compares one entry. Damage is reported; an error ends the check.
func (c *checker) entry(e *Entry) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if err := c.leaveTo(e.Path); err != nil {
		return err
	}
	if e.Path != "" {
		top := &c.in[len(c.in)-1]
		top.names = append(top.names, path.Base(e.Path))
	}
	in, err := c.files.lookup(e.Path)
	if err != nil {
		if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EMFILE) {
			return err
		}
		c.report(e.Path, damage(err))
		return c.enter(e)
	}
	defer in.close()
	if e.Link != "" {
		return c.link(e, in)
	}
	if err := c.compare(e, in); err != nil {
		return err
	}
	return c.enter(e)
}

func (c *checker) enter(e *Entry) error {
	if e.Link == "" && e.Mode&unix.S_IFMT == unix.S_IFDIR {
		c.in = append(c.in, openFolder{path: e.Path})
	}
	return nil
}

// leaveTo ends the folders that p is not in: what they have beside their entries
// was not there when the layer was made.
func (c *checker) leaveTo(p string) error {
	for len(c.in) > 0 {
		top := c.in[len(c.in)-1]
		if p != "\x00" && (top.path == "" || strings.HasPrefix(p, top.path+"/")) {
			return nil
		}
		c.in = c.in[:len(c.in)-1]
		in, err := c.files.lookup(top.path)
		if err != nil {
			continue // was reported
		}
		names, err := in.names()
		in.close()
		if err != nil {
			c.report(top.path, damage(err))
			continue
		}
		for _, name := range names {
			if _, ok := slices.BinarySearch(top.names, name); !ok {
				c.report(join(top.path, name), "is not of the layer")
			}
		}
	}
	return nil
}

func (c *checker) link(e *Entry, in inode) error {
	first, err := c.files.lookup(e.Link)
	if err != nil {
		return nil // was reported
	}
	defer first.close()
	if first.stat().Ino != in.stat().Ino {
		c.report(e.Path, fmt.Sprintf("is no longer the same file as %s", e.Link))
	}
	return nil
}

func (c *checker) compare(e *Entry, in inode) error {
	st := in.stat()
	if st.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT {
		c.report(e.Path, "is of another type")
		return nil
	}
	if e.IsWhiteout() && st.Rdev == 0 {
		return nil
	}
	if st.Mode != e.Mode {
		c.report(e.Path, fmt.Sprintf("mode is %o, was %o", st.Mode&0o7777, e.Mode&0o7777))
	}
	if st.UID != e.UID || st.GID != e.GID {
		c.report(e.Path, fmt.Sprintf("owner is %d:%d, was %d:%d", st.UID, st.GID, e.UID, e.GID))
	}
	if !sameTime(e, st) {
		c.report(e.Path, "time differs")
	}
	if st.Rdev != e.Rdev {
		c.report(e.Path, "device differs")
	}
	c.attributes(e, in)
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if target, err := in.readlink(); err != nil || target != e.Target {
			c.report(e.Path, cmp.Or(damage(err), "target differs"))
		}
	case unix.S_IFREG:
		return c.content(e, in)
	}
	return nil
}

// sameTime allows for file systems that end in 2038 or know only seconds.
func sameTime(e *Entry, st *erofs.Stat) bool {
	if st.Mtime == e.Mtime {
		return st.MtimeNsec == e.MtimeNsec || st.MtimeNsec == 0
	}
	return e.Mtime > math.MaxInt32 && st.Mtime == math.MaxInt32
}

// attributes compares those that layers have; others, such as labels of a
// security module, come and go.
func (c *checker) attributes(e *Entry, in inode) {
	if t := e.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return
	}
	attrs, err := in.xattrs()
	if err != nil {
		c.report(e.Path, damage(err))
		return
	}
	maps.DeleteFunc(attrs, func(k, _ string) bool {
		return !allowedXattr(k) && k != opaquePrivileged && k != opaqueUnprivileged
	})
	if !maps.Equal(attrs, e.Xattrs) {
		c.report(e.Path, "attributes differ")
	}
}

func (c *checker) content(e *Entry, in inode) error {
	if in.stat().Size != e.Size {
		c.report(e.Path, fmt.Sprintf("size is %d, was %d", in.stat().Size, e.Size))
		return nil
	}
	r, err := in.open()
	if err != nil {
		c.report(e.Path, damage(err))
		return nil
	}
	defer r.Close()
	var sum xxhash.Digest
	sum.Reset()
	n, err := io.CopyBuffer(&sum, &interruptible{c.ctx, r, c.read}, c.buf)
	c.done.Files++
	c.done.Bytes += n
	switch {
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case err != nil:
		c.report(e.Path, damage(err))
	case sum.Sum64() != e.Sum:
		c.report(e.Path, "content differs")
	}
	return nil
}

// interruptible lets a long file not hold up the end of the check.
type interruptible struct {
	ctx  context.Context
	r    io.Reader
	read func(int64) // may be nil
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := i.r.Read(p)
	if i.read != nil {
		i.read(int64(n))
	}
	return n, err
}

func damage(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	}
	return err.Error()
}

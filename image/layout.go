package image

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/disk"
)

// tarLayout is an OCI layout in a tar file. Times are zero: the same images
// give the same bytes.
type tarLayout struct {
	w       *tar.Writer
	written map[string]bool
}

func (t *tarLayout) put(name string, size int64, r io.Reader) error {
	if t.written[name] {
		return nil
	}
	t.written[name] = true
	if err := t.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	n, err := io.Copy(t.w, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (t *tarLayout) finish(entries []v1.Descriptor) error {
	b, err := marshalIndex(entries)
	if err != nil {
		return err
	}
	return putBytes(t, indexFile, b)
}

// folderLayout is an OCI layout in a folder. The folder may be somebody else's than
// ours: no symlink in it leads us out of it.
type folderLayout struct {
	dir *os.Root
	old []v1.Descriptor // what stood in index.json
}

func openLayout(dir string) (_ *folderLayout, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Close())
		}
	}()
	if err := root.MkdirAll("blobs/sha256", 0o755); err != nil {
		return nil, err
	}
	f := &folderLayout{dir: root}
	b, err := readRegular(root, indexFile, maxCarriedManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	idx, err := v1.ParseIndexManifest(strings.NewReader(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	f.old = idx.Manifests
	return f, nil
}

// readRegular reads a file, and waits for no fifo.
func readRegular(root *os.Root, name string, limit int64) ([]byte, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() > limit) {
		err = fmt.Errorf("%s: not a file of at most %s", name, disk.Bytes(limit))
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

func (f *folderLayout) put(name string, size int64, r io.Reader) error {
	if st, err := f.dir.Lstat(name); err == nil && st.Mode().IsRegular() && st.Size() == size {
		return nil
	}
	return f.write(name, size, r)
}

// write puts a whole file into place.
func (f *folderLayout) write(name string, size int64, r io.Reader) error {
	tmp := path.Join(path.Dir(name), ".save-"+rand.Text())
	file, err := f.dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.dir.Remove(tmp)
	n, err := io.Copy(file, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := f.dir.Rename(tmp, name); err != nil {
		return err
	}
	dir, err := f.dir.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *folderLayout) close() error { return f.dir.Close() }

// finish takes the names over from what the layout had under them.
func (f *folderLayout) finish(entries []v1.Descriptor) error {
	keep := slices.DeleteFunc(f.old, func(o v1.Descriptor) bool {
		return slices.ContainsFunc(entries, func(e v1.Descriptor) bool { return sameEntry(o, e) })
	})
	b, err := marshalIndex(append(keep, entries...))
	if err != nil {
		return err
	}
	return f.write(indexFile, int64(len(b)), bytes.NewReader(b))
}

func sameEntry(a, b v1.Descriptor) bool {
	if a.Annotations[annotationName] != "" || b.Annotations[annotationName] != "" {
		return a.Annotations[annotationName] == b.Annotations[annotationName]
	}
	return a.Annotations[annotationRef] == b.Annotations[annotationRef] && a.Digest == b.Digest
}

package layer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/image/internal/erofs"
)

// syncEvery is how much of an image the kernel is to collect before it begins
// writing to the disk, so that the sync at the end finds little left.
const syncEvery = 32 << 20

// imageBuf is how much of a file is hashed and written at once.
const imageBuf = 256 << 10

// imageSink makes one EROFS image. The content of files goes straight to it; all
// else waits in the tree for finish.
type imageSink struct {
	f   *os.File
	w   *erofs.Writer
	buf []byte

	// What finish knows of the image.
	metaStart int64
	metaSum   uint64
}

func newImageSink(path string) (*imageSink, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	o := erofs.Options{Sync: syncEvery}
	_, _ = rand.Read(o.UUID[:])
	return &imageSink{f: f, w: erofs.NewWriter(f, o), buf: make([]byte, imageBuf)}, nil
}

// close waits for a write under way: after an unpack that has failed the file is
// deleted, and its room has to be free when that is done.
func (s *imageSink) close() error {
	_ = s.w.Close() // what went wrong there has been said, or finish was not reached
	return s.f.Close()
}

func (s *imageSink) failed() error                                       { return nil }
func (s *imageSink) opaque() string                                      { return opaquePrivileged }
func (s *imageSink) folder(*folder) error                                { return nil }
func (s *imageSink) other(*folder, string, *node) error                  { return nil }
func (s *imageSink) link(_ *folder, _ string, _ *folder, _ string) error { return nil }
func (s *imageSink) remove(*folder, string, *node) error                 { return nil }

func (s *imageSink) file(_ *folder, _ string, n *node, r io.Reader, sparse bool) error {
	if err := s.w.Begin(n.size); err != nil {
		return formError(err)
	}
	err := pour(n, r, s.buf, sparse, func(p []byte) error {
		_, err := s.w.Write(p)
		return formError(err)
	}, func(k int64) error { return formError(s.w.Hole(k)) })
	if err != nil {
		return err
	}
	n.Data, err = s.w.End()
	return formError(err)
}

// formError marks errors that are of the form's making. Those of the system would
// come in the other form too.
func formError(err error) error {
	var errno unix.Errno
	if err == nil || errors.As(err, &errno) {
		return err
	}
	return fmt.Errorf("%w: %w", errForm, err)
}

// finish writes the metadata.
func (s *imageSink) finish(root *folder) error {
	s.metaStart = s.w.Size()
	list(root)
	if err := s.w.Finish(&root.node.Inode); err != nil {
		return formError(err)
	}
	var err error
	s.metaSum, err = sumOfMetadata(s.f, s.metaStart)
	return err
}

func list(f *folder) {
	f.node.Children = make([]erofs.Entry, 0, len(f.kids))
	for name, n := range f.kids {
		f.node.Children = append(f.node.Children, erofs.Entry{Name: name, Inode: &n.Inode})
		if n.dir != nil {
			list(n.dir)
		}
	}
}

// superblock is how much at the beginning of an image is metadata too.
const superblock = 4096

// sumOfMetadata is the checksum of all in an image that is not files' content.
func sumOfMetadata(f *os.File, start int64) (uint64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	start = max(start, superblock)
	var sum xxhash.Digest
	sum.Reset()
	for _, r := range []*io.SectionReader{io.NewSectionReader(f, 0, superblock), io.NewSectionReader(f, start, max(st.Size()-start, 0))} {
		if _, err := io.Copy(&sum, r); err != nil {
			return 0, err
		}
	}
	return sum.Sum64(), nil
}

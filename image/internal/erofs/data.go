package erofs

import (
	"errors"
	"io"
	"os"
)

// Options configure a Writer.
type Options struct {
	UUID [16]byte // of the file system; should differ between images
	Name string   // at most 15 bytes

	// Sync, if not 0, has the kernel start writing to the disk whenever so many
	// bytes have come together.
	Sync int64
}

// Writer writes one image, from block 0 of f on: first the files' content by
// File (or Begin, Write, Hole and End), then all the rest by Finish. Its methods
// are not for concurrent use. After an error it is of no use any more.
type Writer struct {
	f *os.File
	o Options
}

// NewWriter begins an image. f is empty.
func NewWriter(f *os.File, o Options) *Writer { return &Writer{f: f, o: o} }

// File takes the content of a regular file: size bytes of r. If r has less it is
// io.ErrUnexpectedEOF.
func (w *Writer) File(size int64, r io.Reader) (Data, error) { return Data{}, errors.ErrUnsupported }

// Begin begins the content of a regular file of that size; Write and Hole follow in
// the order of its bytes, until End.
func (w *Writer) Begin(size int64) error { return errors.ErrUnsupported }

// Write adds bytes.
func (w *Writer) Write(p []byte) (int, error) { return 0, errors.ErrUnsupported }

// Hole adds n zeros that take no place.
func (w *Writer) Hole(n int64) error { return errors.ErrUnsupported }

// End ends the content. What Write and Hole have not filled is a hole.
func (w *Writer) End() (Data, error) { return Data{}, errors.ErrUnsupported }

// Size is how long the image is so far, without metadata.
func (w *Writer) Size() int64 { return 0 }

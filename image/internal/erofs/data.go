package erofs

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 1 << 20

	// Files up to inlineMax bytes stand beside their inodes instead of taking a
	// block each, as long as all of them together do not take more memory than
	// inlineTotal until Finish.
	inlineMax   = 2 << 10
	inlineTotal = 8 << 20

	maxChunks = 1 << 15 // of one file: 128 KiB of metadata
	maxBlocks = 1<<32 - 2

	// Shorter holes inside a chunk are written as zeros.
	minSkip = 64 << 10
)

// Options configure a Writer.
type Options struct {
	UUID [16]byte // of the file system; should differ between images
	Name string   // at most 15 bytes

	// Sync, if not 0, has the kernel begin to write to the disk whenever so many
	// bytes have come together.
	Sync int64
}

// Writer writes one image, from block 0 of f on: first the files' content by
// File (or Begin, Write, Hole and End), then all the rest by Finish. Its methods
// are not for concurrent use. After an error it is of no use any more.
type Writer struct {
	f *os.File
	o Options

	buf    []byte // what is to come at offset at of f
	at     int64
	spare  []byte     // the buffer that is being written, until
	done   chan error // says how that went
	err    error
	synced int64 // the kernel was told to write up to here

	inline int64 // bytes that are kept for the metadata
	cur    content
}

// content is the file that is being taken.
type content struct {
	open      bool
	size, off int64

	small []byte // if it is to be kept for the metadata

	bits   uint8
	chunk  int64 // bytes
	first  uint32
	placed bool     // the chunk at off has blocks
	zeros  int64    // at the beginning of a chunk without blocks
	chunks []uint32 // from the first hole on
	holes  bool
}

// NewWriter begins an image. f is empty.
func NewWriter(f *os.File, o Options) *Writer {
	w := &Writer{f: f, o: o, buf: make([]byte, 0, bufferSize), done: make(chan error, 1)}
	w.buf = w.buf[:blockSize] // the superblock's place
	return w
}

// Close waits until nothing is being written any more. It does not close the file.
func (w *Writer) Close() error {
	if w.spare == nil {
		return w.err
	}
	if err := <-w.done; err != nil && w.err == nil {
		w.err = err
	}
	w.spare = nil
	return w.err
}

// Size is how long the image is so far, without metadata.
func (w *Writer) Size() int64 { return roundUp(w.at+int64(len(w.buf)), blockSize) }

// File takes the content of a regular file: size bytes of r. If r has less it is
// io.ErrUnexpectedEOF.
func (w *Writer) File(size int64, r io.Reader) (Data, error) {
	if err := w.Begin(size); err != nil {
		return Data{}, err
	}
	for w.cur.off < size {
		into, err := w.room()
		if err != nil {
			return Data{}, err
		}
		n, err := r.Read(into)
		w.took(n)
		if errors.Is(err, io.EOF) && w.cur.off < size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && w.cur.off < size {
			return Data{}, err
		}
	}
	return w.End()
}

// Begin begins the content of a regular file of that size; Write and Hole follow in
// the order of its bytes, until End.
func (w *Writer) Begin(size int64) error {
	if w.cur.open || size < 0 {
		return fmt.Errorf("begin a file of %d bytes: %w", size, errors.ErrUnsupported)
	}
	w.cur = content{open: true, size: size}
	if size <= inlineMax && w.inline+size <= inlineTotal {
		w.inline += size
		w.cur.small = make([]byte, 0, size)
		return nil
	}
	if w.Size()/blockSize+roundUp(size, blockSize)/blockSize > maxBlocks {
		return fmt.Errorf("file of %d bytes: %w", size, errFormat)
	}
	for size > maxChunks*blockSize<<w.cur.bits {
		w.cur.bits++
	}
	w.cur.chunk = blockSize << w.cur.bits
	return nil
}

// room is where the next bytes of the file belong.
func (w *Writer) room() ([]byte, error) {
	c := &w.cur
	left := c.size - c.off
	if c.small != nil {
		return c.small[len(c.small) : int64(len(c.small))+left], nil
	}
	if err := w.place(); err != nil {
		return nil, err
	}
	if len(w.buf) == cap(w.buf) {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	left = min(left, c.chunk-c.off%c.chunk, int64(cap(w.buf)-len(w.buf)))
	return w.buf[len(w.buf) : int64(len(w.buf))+left], nil
}

// took says that n bytes were put where room said.
func (w *Writer) took(n int) {
	c := &w.cur
	if c.small != nil {
		c.small = c.small[:len(c.small)+n]
	} else {
		w.buf = w.buf[:len(w.buf)+n]
	}
	w.advance(int64(n))
}

// advance goes on within a chunk or to its end.
func (w *Writer) advance(n int64) {
	c := &w.cur
	c.off += n
	if c.small == nil && (c.off%c.chunk == 0 || c.off == c.size) {
		if !c.placed && c.zeros > 0 {
			w.noteHole()
		}
		c.placed, c.zeros = false, 0
	}
}

// place gives the chunk at the current offset blocks if it has none yet.
func (w *Writer) place() error {
	c := &w.cur
	if c.placed {
		return nil
	}
	if err := w.pad(); err != nil {
		return err
	}
	block := uint32((w.at + int64(len(w.buf))) / blockSize)
	index := (c.off - c.zeros) / c.chunk
	if index == 0 {
		c.first = block
	}
	if c.holes {
		c.chunks = append(c.chunks, block)
	}
	zeros := c.zeros
	c.placed, c.zeros = true, 0
	return w.skip(zeros)
}

// noteHole adds the chunk that has just ended as one without blocks.
func (w *Writer) noteHole() {
	c := &w.cur
	if !c.holes {
		c.holes = true
		for i := range (c.off - 1) / c.chunk { // what came before had no holes
			c.chunks = append(c.chunks, c.first+uint32(i<<c.bits))
		}
	}
	c.chunks = append(c.chunks, chunkHole)
}

// Write adds bytes.
func (w *Writer) Write(p []byte) (int, error) {
	if !w.cur.open || int64(len(p)) > w.cur.size-w.cur.off {
		return 0, fmt.Errorf("%d bytes at %d of a file of %d: %w", len(p), w.cur.off, w.cur.size, io.ErrShortWrite)
	}
	done := 0
	for done < len(p) {
		into, err := w.room()
		if err != nil {
			return done, err
		}
		n := copy(into, p[done:])
		w.took(n)
		done += n
	}
	return done, nil
}

// Hole adds n zeros that take no place.
func (w *Writer) Hole(n int64) error {
	c := &w.cur
	if !c.open || n < 0 || n > c.size-c.off {
		return fmt.Errorf("hole of %d bytes at %d of a file of %d: %w", n, c.off, c.size, io.ErrShortWrite)
	}
	if c.small != nil {
		clear(c.small[len(c.small) : int64(len(c.small))+n])
		w.took(int(n))
		return nil
	}
	for n > 0 {
		m := min(n, c.chunk-c.off%c.chunk)
		if c.placed {
			if err := w.skip(m); err != nil {
				return err
			}
		} else {
			c.zeros += m
		}
		w.advance(m)
		n -= m
	}
	return nil
}

// End ends the content. What Write and Hole have not filled is a hole.
func (w *Writer) End() (Data, error) {
	c := &w.cur
	if err := w.Hole(c.size - c.off); err != nil {
		return Data{}, err
	}
	d := Data{Size: c.size, inline: c.small, block: c.first}
	if c.holes {
		d.sparse = &sparse{chunks: c.chunks, bits: c.bits}
	}
	w.cur = content{}
	return d, nil
}

// pad goes on to the next block.
func (w *Writer) pad() error {
	end := w.at + int64(len(w.buf))
	return w.skip(roundUp(end, blockSize) - end)
}

// skip adds zeros, as a hole of the image's file if they are many.
func (w *Writer) skip(n int64) error {
	if n >= minSkip {
		if err := w.flush(); err != nil {
			return err
		}
		w.at += n
		return nil
	}
	for n > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		m := int(min(n, int64(cap(w.buf)-len(w.buf))))
		clear(w.buf[len(w.buf) : len(w.buf)+m])
		w.buf = w.buf[:len(w.buf)+m]
		n -= int64(m)
	}
	return nil
}

// flush has the buffer written while the other one is filled.
func (w *Writer) flush() error {
	full := w.buf
	next := w.spare
	if err := w.Close(); err != nil {
		return err
	}
	if len(full) == 0 {
		return nil
	}
	if next == nil {
		next = make([]byte, 0, bufferSize)
	}
	w.buf, w.spare = next[:0], full
	go func(at int64) {
		_, err := w.f.WriteAt(full, at)
		w.done <- err
	}(w.at)
	w.at += int64(len(full))
	return w.startSync()
}

// startSync lets the kernel begin with the disk, so that the sync at the end has
// less to wait for.
func (w *Writer) startSync() error {
	const lag = 2 * bufferSize // not what is being written right now
	if w.o.Sync == 0 || w.at-lag-w.synced < w.o.Sync {
		return nil
	}
	err := unix.SyncFileRange(int(w.f.Fd()), w.synced, w.at-lag-w.synced, unix.SYNC_FILE_RANGE_WRITE)
	w.synced = w.at - lag
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESPIPE) {
		return nil // it is only to be faster
	}
	return err
}

package api

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Frame types of the streams of run, exec and logs: one byte of type, four
// bytes of length (big endian), then the payload.
const (
	FrameStdout  byte = 1
	FrameStderr  byte = 2
	FrameControl byte = 3 // JSON of Control
	FrameStdin   byte = 4 // client to server; empty: end of input
)

// MaxFrame is the largest payload.
const MaxFrame = 1 << 20

// Control is a control frame's payload; one field is set.
type Control struct {
	Progress *Progress `json:"progress,omitempty"`
	Created  string    `json:"created,omitempty"` // the unit's name
	Exit     *Exit     `json:"exit,omitempty"`    // last frame
	Error    *Error    `json:"error,omitempty"`   // last frame
}

// WriteFrame writes one frame with a single Write.
func WriteFrame(w io.Writer, typ byte, p []byte) error {
	b := make([]byte, 5, 5+len(p))
	b[0] = typ
	binary.BigEndian.PutUint32(b[1:], uint32(len(p)))
	_, err := w.Write(append(b, p...))
	return err
}

// ReadFrame reads one frame into buf, which grows as needed. A cut-off frame is
// io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, buf []byte) (typ byte, p []byte, err error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes: more than %d", n, MaxFrame)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	p = buf[:n]
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return h[0], p, nil
}

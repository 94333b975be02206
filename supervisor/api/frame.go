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

// Control is a control frame's payload; one field is set. The last three come from the
// client.
type Control struct {
	Progress *Progress `json:"progress,omitempty"`
	Created  string    `json:"created,omitempty"` // the unit's name
	Attached *Attached `json:"attached,omitempty"`
	Exit     *Exit     `json:"exit,omitempty"`  // last frame
	Error    *Error    `json:"error,omitempty"` // last frame

	Resize *Size  `json:"resize,omitempty"`
	Signal string `json:"signal,omitempty"` // for the main process
	Detach bool   `json:"detach,omitempty"` // the client leaves, its input does not end
}

// frameHead is the size of what stands before a frame's payload.
const frameHead = 5

func putHead(b []byte, typ byte, n int) {
	b[0] = typ
	binary.BigEndian.PutUint32(b[1:frameHead], uint32(n))
}

// WriteFrame writes one frame with a single Write.
func WriteFrame(w io.Writer, typ byte, p []byte) error {
	b := make([]byte, frameHead, frameHead+len(p))
	putHead(b, typ, len(p))
	_, err := w.Write(append(b, p...))
	return err
}

// ReadFrame reads one frame into buf, which grows as needed. A cut-off frame is
// io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, buf []byte) (typ byte, p []byte, err error) {
	var h [frameHead]byte
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

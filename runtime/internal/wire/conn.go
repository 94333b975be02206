package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Conn sends and receives messages on a Unix stream socket. Send may be called
// from several goroutines, Receive from one.
type Conn struct {
	sock *net.UnixConn

	version atomic.Uint32 // agreed on; 0: not yet

	sending sync.Mutex // one message at a time on the stream
}

// NewConn takes over sock.
func NewConn(sock *net.UnixConn) *Conn { return &Conn{sock: sock} }

// Speak fixes the version of the messages that are sent from now on.
func (c *Conn) Speak(version uint16) { c.version.Store(uint32(version)) }

// Version is the version that was agreed on, before that the oldest.
func (c *Conn) Version() uint16 { return uint16(max(c.version.Load(), MinVersion)) }

// Close ends the connection; a Receive in progress returns.
func (c *Conn) Close() error { return c.sock.Close() }

// Ended tells whether the peer has gone, also if there is something of its left to receive.
func (c *Conn) Ended() bool {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return true
	}
	var state [1]unix.PollFd
	err = raw.Control(func(fd uintptr) {
		state[0].Fd = int32(fd)
		unix.Poll(state[:], 0)
	})
	return err != nil || state[0].Revents&unix.POLLHUP != 0
}

// Send writes m. The files stay the caller's. A peer that does not read for
// Deadline gets a cut off message and thereby loses the connection.
func (c *Conn) Send(m *Message) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if v := c.version.Load(); v != 0 {
		binary.BigEndian.PutUint16(b[4:], uint16(v))
	}
	var rights []byte
	if len(m.Files) > 0 {
		fds := make([]int, len(m.Files))
		for i, f := range m.Files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.sock.SetWriteDeadline(time.Now().Add(Deadline))
	n, _, err := c.sock.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = c.sock.Write(b[n:])
	}
	if err != nil {
		c.sock.Close() // half a message may be out: nothing after it would be understood
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Receive reads the next message. io.EOF means that the peer ended between two
// messages.
func (c *Conn) Receive() (*Message, error) {
	m, err := c.receive()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return m, err
}

func (c *Conn) receive() (*Message, error) {
	head := make([]byte, headerSize)
	files, err := c.readHeader(head)
	m := &Message{Files: files}
	if err != nil {
		m.CloseFiles()
		return nil, err
	}
	h, err := parseHeader(head)
	if err == nil && int(h.fds) != len(files) {
		err = fmt.Errorf("header: %w: %d descriptors announced, %d came", ErrProtocol, h.fds, len(files))
	}
	if err != nil {
		m.CloseFiles()
		return nil, err
	}
	m.Version, m.Type, m.ID = h.version, h.typ, h.id
	m.Body = make([]byte, h.length)
	if _, err := io.ReadFull(c.sock, m.Body); err != nil {
		m.CloseFiles()
		return nil, fmt.Errorf("body cut off: %w", noEOF(err))
	}
	return m, nil
}

// readHeader fills head and collects the descriptors that come with it. The
// kernel hands them out with the first byte they were sent with and never
// glues the bytes of two such messages together.
func (c *Conn) readHeader(head []byte) ([]*os.File, error) {
	var files []*os.File
	oob := make([]byte, unix.CmsgSpace(4*MaxFds))
	for got := 0; got < len(head); {
		n, oobn, flags, _, err := c.sock.ReadMsgUnix(head[got:], oob)
		if oobn > 0 {
			more, perr := parseRights(oob[:oobn])
			files = append(files, more...)
			if perr != nil {
				return files, perr
			}
		}
		switch {
		case err != nil && got > 0:
			return files, fmt.Errorf("header cut off: %w", noEOF(err))
		case err != nil:
			return files, err
		case flags&unix.MSG_CTRUNC != 0:
			return files, fmt.Errorf("header: %w: descriptors were cut off", ErrProtocol)
		case n == 0 && got > 0:
			return files, fmt.Errorf("header cut off: %w", io.ErrUnexpectedEOF)
		case n == 0:
			return files, io.EOF
		}
		got += n
	}
	return files, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	var files []*os.File
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w: %w", ErrProtocol, err)
	}
	for _, msg := range msgs {
		fds, err := unix.ParseUnixRights(&msg)
		if err != nil {
			continue // another kind of control message
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("received %d", fd)))
		}
	}
	return files, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// CheckPeer refuses a peer that is neither root nor the user we run as.
func CheckPeer(sock *net.UnixConn) error {
	raw, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if cerr != nil {
		return fmt.Errorf("peer: %w", cerr)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("peer: user %d: %w", cred.Uid, os.ErrPermission)
	}
	return nil
}

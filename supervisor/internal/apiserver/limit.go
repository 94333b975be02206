package apiserver

import (
	"net"
	"sync"
)

// maxReaderConns is how many connections at once a user has who may only read.
// Root is not limited: nothing that others do may keep it out, and they could
// otherwise take all descriptors of the daemon.
const maxReaderConns = 128

// limitReaders closes connections of a user who has too many at once.
func limitReaders(ln net.Listener) net.Listener {
	return &readerLimit{Listener: ln, open: map[uint32]int{}}
}

type readerLimit struct {
	net.Listener

	mu   sync.Mutex
	open map[uint32]int // by user; those who connect without credentials are one user
}

func (l *readerLimit) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := peerOfConn(c)
		if p.admin() {
			return c, nil
		}
		if l.take(p.uid) {
			return &readerConn{Conn: c, peer: p, done: sync.OnceFunc(func() { l.give(p.uid) })}, nil
		}
		_ = c.Close()
	}
}

func (l *readerLimit) take(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid] >= maxReaderConns {
		return false
	}
	l.open[uid]++
	return true
}

func (l *readerLimit) give(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// readerConn is a connection that counts.
type readerConn struct {
	net.Conn
	peer peer
	done func()
}

func (c *readerConn) Close() error {
	err := c.Conn.Close()
	c.done()
	return err
}
